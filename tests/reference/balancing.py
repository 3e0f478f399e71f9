"""What balances the experts' loads, from the papers' equations: losses, queues, assignments.

Nothing here knows of programs or their lowering. There are N tokens, those of the whole batch, and
n experts.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


def squared_variation(v: Array) -> float:
    """Shazeer et al. 2017, CV^2: variance over squared mean, of the whole population."""
    return float(np.var(v) / (np.mean(v) ** 2 + 1e-10))


# Losses, without their coefficients.


def switch_loss(probabilities: Array, ids: Ids) -> float:
    """Fedus et al. 2021, equations 4 to 6: n sum_e f_e P_e; probabilities [N, n], ids [N, k] of the
    chosen experts. f is divided by k, so that uniform routing costs 1."""
    tokens, n = probabilities.shape
    total = 0.0
    for e in range(n):
        share = np.count_nonzero(ids == e) / (tokens * ids.shape[1])
        total += share * probabilities[:, e].mean()
    return float(n * total)


def importance_loss(gates: Array) -> float:
    """Shazeer et al. 2017, equations 6 and 7: CV^2 of the experts' summed gates [N, n]."""
    return squared_variation(gates.sum(0))


def shazeer_margins(clean: Array, noisy: Array, sigma: Array, k: int) -> Array:
    """Shazeer et al. 2017, inside equation 9: how far clean [N, n] is above the k-th largest noisy
    logit of the token's other experts, in units of sigma."""
    margins = np.zeros(clean.shape)
    for t, e in np.ndindex(*clean.shape):
        others = np.delete(noisy[t], e)
        margins[t, e] = (clean[t, e] - np.sort(others)[-k]) / sigma[t, e]
    return margins


def load_loss(margins: Array) -> float:
    """Shazeer et al. 2017, equations 9 to 11: CV^2 of sum_n Phi(margin), Phi the normal's
    distribution function; margins [N, n]."""
    phi = np.vectorize(lambda z: (1 + math.erf(z / math.sqrt(2))) / 2)
    return squared_variation(phi(margins).sum(0))


def z_loss(logits: Array) -> float:
    """Zoph et al. 2022 (ST-MoE), router z-loss: mean over tokens of logsumexp(logits)^2."""
    return float(np.mean([np.logaddexp.reduce(row) ** 2 for row in logits]))


def remoe_l1(gates: Array, k: int) -> float:
    """Wang et al. 2024 (ReMoE), load-balanced L1 of relu gates [N, n]: n / (k N^2) times the sum
    over experts of (sum of gates) * (tokens with a gate above 0), for k active experts wanted."""
    tokens, n = gates.shape
    total = sum(gates[:, e].sum() * np.count_nonzero(gates[:, e] > 0) for e in range(n))
    return float(n / (k * tokens**2) * total)


# State that a step of training updates.


def loss_free_update(b: Array, counts: Array, u: float) -> Array:
    """Wang et al. 2024 (loss-free balancing), algorithm 1: b + u sign(mean load - load)."""
    return np.asarray(b + u * np.sign(np.mean(counts) - counts))


def quantile_threshold(scores: Array, share: float) -> Array:
    """arXiv 2603.11535: of each expert, the ceil(share * N)-th largest of scores [N, n]. A token at
    the threshold is not above it."""
    place = math.ceil(share * len(scores) - 1e-9)
    return np.asarray(np.sort(scores, axis=0)[-place])


# Assignments of the tokens of a batch, and queues within a sequence.


def sinkhorn(scores: Array, iterations: int = 8) -> Array:
    """Clark et al. 2022 (S-BASE): P = D0 exp(scores [N, n]) D1, rows scaled to mass 1/N, then
    columns to mass 1/n, `iterations` times. The columns' masses are exact."""
    tokens, n = scores.shape
    kernel = np.exp(scores - scores.max())
    d0, d1 = np.ones(tokens), np.ones(n)
    for _ in range(iterations):
        d0 = 1 / tokens / (kernel @ d1)
        d1 = 1 / n / (d0 @ kernel)
    masses: Array = d0[:, None] * kernel * d1
    return masses


def best_assignment(scores: Array) -> tuple[Ids, float]:
    """Lewis et al. 2021 (BASE): the expert of each token, every expert taking
    exactly N / n of them, with the greatest total of scores [N, n]; and that total."""
    tokens, n = scores.shape
    if tokens % n:
        raise ValueError(f"{tokens} tokens do not divide evenly among {n} experts")
    places = np.repeat(np.arange(n), tokens // n)
    ids = places[_cheapest_matching(-scores[:, places])]
    return ids, float(sum(scores[t, e] for t, e in enumerate(ids)))


def _cheapest_matching(cost: Array) -> Ids:
    """Kuhn 1955, Munkres 1957, by shortest augmenting paths: the column of each row of a square
    cost matrix. Row and column 0 of what is kept here stand for "none yet"."""
    size = len(cost)
    row_price, column_price = np.zeros(size + 1), np.zeros(size + 1)
    row_of = np.zeros(size + 1, np.int64)
    for row in range(1, size + 1):
        row_of[0] = row
        distance, previous = np.full(size + 1, np.inf), np.zeros(size + 1, np.int64)
        visited = np.zeros(size + 1, bool)
        column = 0
        while row_of[column]:
            visited[column] = True
            at = row_of[column]
            for other in np.flatnonzero(~visited):
                reduced = cost[at - 1, other - 1] - row_price[at] - column_price[other]
                if reduced < distance[other]:
                    distance[other], previous[other] = reduced, column
            nearest = int(np.argmin(np.where(visited, np.inf, distance)))
            step = distance[nearest]
            row_price[row_of[visited]] += step
            column_price[visited] -= step
            distance[~visited] -= step
            column = nearest
        while column:
            row_of[column] = row_of[previous[column]]
            column = previous[column]
    columns = np.zeros(size, np.int64)
    columns[row_of[1:] - 1] = np.arange(size)
    return columns


def dispatch_with_capacity(ids: Ids, n: int, capacity: int) -> npt.NDArray[np.bool_]:
    """Which choices ids [b, T, k] find room: Fedus et al. 2021, section 2.2, one queue per expert
    and sequence. All choices of token t come before token t+1's, so that no later token matters."""
    kept = np.zeros(ids.shape, bool)
    for b, sequence in enumerate(ids):
        taken = [0] * n
        for t, choices in enumerate(sequence):
            for place, e in enumerate(choices):
                kept[b, t, place] = taken[e] < capacity
                taken[e] += 1
    return kept


def usage(counts: Array) -> dict[str, float]:
    """He 2024 (PEER): share of experts used, and KL to uniform use, log n + sum z log z; Wang et
    al. 2024 (loss-free balancing): MaxVio = max / mean - 1. counts [n] of tokens."""
    z = counts / counts.sum()
    positive = z[z > 0]
    return {
        "used": len(positive) / len(z),
        "unevenness": float(np.log(len(z)) + (positive * np.log(positive)).sum()),
        "max_violation": float(counts.max() / counts.mean() - 1),
    }
