"""What keeps experts busy, and what a pass through a block leaves beside its value: noise, balanced
choices, selection biases, thresholds and auxiliary losses.

Scores and gates are [batch, *heads, T, n]. Statistics run over the tokens of the batch, for each
head by itself. In evaluation there is no noise, no loss and no update.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from primitives.kernels.routing import between, same_heads, share_of, top_k
from primitives.kernels.tasks import tasks_of

Tensor = Any


class Run:
    """One pass through a block. It is told whether it trains, the token ids [batch, T], with the
    tasks of their documents (`kernels.tasks`), and a source of random numbers (what keras.random
    calls a seed); it is left with auxiliary `losses` (scalars, times their coefficients), `updates`
    (new values of states, by name), `together` (for states that all layers of a model move as one:
    how far this layer would move its own, by name), `policies` (logarithms of the probabilities of
    sampled experts [batch, T], times coefficients), `baselines` (what of their reward was foreseen
    [batch, T], and a weight) and, where they are measured, `loads` (see `routing.expert_load`), or
    `choices` (which experts each token went to, and its gates)."""

    def __init__(self, training: Any = False, tokens: Tensor = None, seed: Any = None) -> None:
        self.training, self.tokens, self.seed = bool(training), tokens, seed
        self.losses: list[Tensor] = []
        self.updates: dict[str, Tensor] = {}
        self.together: dict[str, Tensor] = {}
        self.policies: list[Tensor] = []
        self.baselines: list[tuple[Tensor, float]] = []
        self.loads: list[tuple[Tensor, Tensor, Tensor]] = []
        self.choices: list[tuple[Tensor, Tensor]] = []


def noise(x: Tensor, run: Run) -> Tensor:
    """Standard normal noise of x's shape."""
    if not run.training:
        return ops.zeros_like(x)
    return keras.random.normal(ops.shape(x), dtype=x.dtype, seed=run.seed)


def uniform(x: Tensor, run: Run) -> Tensor:
    """Uniform noise in [0, 1) of x's shape."""
    if not run.training:
        return ops.zeros_like(x)
    return keras.random.uniform(ops.shape(x), dtype=x.dtype, seed=run.seed)


def hash_experts(x: Tensor, n: int, run: Run) -> tuple[Tensor, Tensor]:
    """One entry a token, of value 1: its id by multiplicative hashing (Knuth, section 6.4), the
    same for ever (Roller et al. 2021 draw a table at random), whatever its task: SPAN is a multiple
    of 65536."""
    spread = _tokens(run) * 40503 % 65536
    ids = spread * n // 65536
    return ops.ones_like(x[..., :1]), ids[..., None]


def task_entries(x: Tensor, n: int, run: Run) -> tuple[Tensor, Tensor]:
    """One entry a token, of value 1: the number of its document's task, modulo n."""
    return ops.ones_like(x[..., :1]), (tasks_of(_tokens(run)) % n)[..., None]


def _tokens(run: Run) -> Tensor:
    if run.tokens is None:
        raise ValueError("this program routes by token ids; call it with tokens=[batch, T]")
    return ops.cast(run.tokens, "int32")


def balance(x: Tensor, run: Run, iterations: int = 8) -> Tensor:
    """Sinkhorn (Clark et al. 2022): exp(x) scaled to mass 1/N for each of N tokens and 1/n for each
    expert, over the whole batch."""
    if not run.training:
        return x
    mass = ops.exp(x - ops.max(x, axis=(0, -2, -1), keepdims=True))
    tokens, n = ops.cast(ops.shape(x)[0] * ops.shape(x)[-2], x.dtype), x.shape[-1]
    columns = ops.ones_like(mass[:1, ..., :1, :])
    for _ in range(iterations):
        rows = 1 / (ops.sum(mass * columns, axis=-1, keepdims=True) * tokens + 1e-9)
        columns = 1 / (ops.sum(mass * rows, axis=(0, -2), keepdims=True) * n + 1e-9)
    return mass * rows * columns


def assign(x: Tensor, run: Run) -> tuple[Tensor, Tensor]:
    """One expert a token, with its score: the best one in evaluation; in training, as near to the
    best total as an auction comes in which every expert takes equally many of the batch's tokens
    (Lewis et al. 2021, section 3.2)."""
    if not run.training:
        return top_k(x, 1)
    by_head = ops.moveaxis(ops.stop_gradient(x), 0, -3)
    *heads, batch, length, n = ops.shape(by_head)
    flat = ops.reshape(by_head, (-1, batch * length, n))
    ids = ops.stack([auction(flat[head]) for head in range(math.prod(heads))])
    ids = ops.moveaxis(ops.reshape(ids, (*heads, batch, length, 1)), -3, 0)
    hot = ops.one_hot(ids[..., 0], n, dtype=x.dtype)
    return ops.sum(hot * x, axis=-1, keepdims=True), ids


def auction(scores: Tensor, rounds: int = 20) -> Tensor:
    """scores [N, n] -> an expert for each of N tokens, about N / n for each expert.

    In each round every expert bids for its N / n best tokens what they are worth to it above its
    next best; the highest bid wins a token and raises its price. An expert keeps what it has won
    unless another one bids more. Tokens that nobody has bid for after the last round go where they
    are worth most.
    """
    tokens, n = ops.shape(scores)[0], scores.shape[-1]
    share = between(tokens // n, 1, tokens - 1)
    worth = ops.transpose(scores)
    highest = ops.max(worth)
    step = ops.maximum((highest - ops.min(worth)) / 50, 1e-4)
    price, owned = ops.zeros_like(worth[0]), ops.zeros_like(worth)
    done = ops.zeros((), "bool")
    for _ in range(rounds):
        value = ops.where(owned > 0, highest + 1, worth - price)
        best, places = ops.top_k(value, share + 1)
        bids = best[:, :-1] - best[:, -1:] + step
        bid = ops.sum(ops.one_hot(places[:, :-1], tokens, dtype=bids.dtype) * bids[..., None], 1)
        bid = ops.where(owned > 0, ops.minimum(bid, step), bid)
        top = ops.max(bid, axis=0)
        won = ops.one_hot(ops.argmax(bid, axis=0), n, axis=0, dtype=worth.dtype)
        won = won * ops.cast(top > 0, worth.dtype)
        owned, price = ops.where(done, owned, won), ops.where(done, price, price + top)
        done = ops.logical_or(done, ops.all(top > 0))
    left = ops.cast(ops.sum(owned, axis=0, keepdims=True) == 0, worth.dtype)
    best = ops.one_hot(ops.argmax(worth - price, axis=0), n, axis=0, dtype=worth.dtype)
    return ops.argmax(owned + left * best, axis=0)


def balance_bias(x: Tensor, bias: Tensor, name: str, k: int, rate: float, run: Run) -> Tensor:
    """x + bias, for choosing only. After a step the bias of an expert rises by `rate` where fewer
    tokens than the mean chose it, and falls where more did (Wang et al. 2024, algorithm 1)."""
    biased = x + ops.cast(ops.stop_gradient(bias)[..., None, :], x.dtype)
    if run.training:
        load = ops.sum(ops.cast(_chosen(biased, k), bias.dtype), axis=(0, -2))
        mean = ops.mean(load, axis=-1, keepdims=True)
        run.updates[name] = bias + rate * ops.sign(mean - load)
    return biased


def threshold(x: Tensor, level: Tensor, name: str, share: float, run: Run) -> Tensor:
    """1 where x is above its expert's level, else 0. The level follows, by a tenth of the way a
    step, the score that `share` of the batch's tokens reach: expert choice by past batches
    alone."""
    chosen = ops.cast(x > ops.cast(level[..., None, :], x.dtype), x.dtype)
    if run.training:
        scores = _by_expert(ops.stop_gradient(x))
        count = share_of(ops.shape(scores)[-1], share)
        reached = ops.cast(ops.top_k(scores, count)[0][..., -1], level.dtype)
        run.updates[name] = level + 0.1 * (reached - level)
    return chosen


def top_positions(x: Tensor, share: float) -> Tensor:
    """x at the positions of a sequence, a `share` of them, where its expert's score is largest
    (Zhou et al. 2022: experts choose tokens); 0 elsewhere."""
    length = ops.shape(x)[-2]
    count = share_of(length, share)
    _, places = ops.top_k(ops.swapaxes(x, -1, -2), count)
    chosen = ops.sum(ops.one_hot(places, length, dtype=x.dtype), axis=-2)
    return x * ops.swapaxes(chosen, -1, -2)


def switch_loss(x: Tensor, ids: Tensor, y: Tensor, weight: float, run: Run) -> Tensor:
    """weight n sum_e f_e p_e, with f the share of entries and p the mean probability of an expert
    (Fedus et al. 2021, equation 4): 1 times the weight where both are even."""
    if run.training:
        n = y.shape[-1]
        while len(ids.shape) < len(y.shape):  # probabilities may differ between heads alone
            ids = ids[..., None, :, :]
        ids, y = same_heads(ids, y)
        share = ops.mean(ops.mean(ops.one_hot(ids, n, dtype=y.dtype), axis=-2), axis=(0, -2))
        run.losses.append(weight * n * _over_heads(share * ops.mean(y, axis=(0, -2))))
    return x


def importance_loss(x: Tensor, gates: Tensor, weight: float, run: Run) -> Tensor:
    """weight CV(sum of an expert's gates)^2 (Shazeer et al. 2017, equation 7)."""
    if run.training:
        run.losses.append(weight * _squared_variation(ops.sum(gates, axis=(0, -2))))
    return x


def load_loss(x: Tensor, margins: Tensor, weight: float, run: Run) -> Tensor:
    """weight CV(expected load)^2: an expert's margin is how many deviations of its noise its score
    lies above what it must exceed (Shazeer et al. 2017, appendix A)."""
    if run.training:
        likely = 0.5 * (1 + ops.erf(margins / 2**0.5))
        run.losses.append(weight * _squared_variation(ops.sum(likely, axis=(0, -2))))
    return x


def z_loss(x: Tensor, weight: float, run: Run) -> Tensor:
    """weight mean(logsumexp(x)^2) (Zoph et al. 2022, equation 5)."""
    if run.training:
        run.losses.append(weight * ops.mean(ops.square(ops.logsumexp(x, axis=-1))))
    return x


def sparsity_loss(x: Tensor, power: Tensor, name: str, k: int, weight: float, run: Run) -> Tensor:
    """ReMoE's balanced L1 (Wang et al. 2024, equations 6 to 9): lambda n / (N^2 k) times the sum
    over experts of (sum of gates) (tokens with a gate above 0), for N tokens. lambda starts at
    `weight` and is multiplied by 1.2 or divided by it after each step, towards k gates above 0 a
    token."""
    if run.training:
        n, gates = x.shape[-1], ops.cast(x, power.dtype)
        active = ops.cast(x > 0, power.dtype)
        balanced = ops.mean(gates, axis=(0, -2)) * ops.mean(active, axis=(0, -2)) * n / k
        strength = ops.stop_gradient(weight * 1.2**power)
        run.losses.append(_over_heads(strength * balanced))
        share = ops.mean(active, axis=(0, -2, -1))[..., None]
        run.updates[name] = power + ops.sign(share - k / n)
    return x


def joint_sparsity_loss(
    x: Tensor, power: Tensor, name: str, k: int, weight: float, run: Run
) -> Tensor:
    """`sparsity_loss` with one lambda for all layers of a model, which follows the mean share of
    their gates that are above 0, as ReMoE has it. A layer by itself is all layers."""
    if run.training:
        share = ops.mean(ops.cast(x > 0, power.dtype), axis=(0, -2, -1))[..., None]
        run.together[name] = share - k / x.shape[-1] + ops.zeros_like(power)
    return sparsity_loss(x, power, name, k, weight, run)


def training_steps(x: Tensor, count: Tensor, name: str, run: Run) -> Tensor:
    """How many steps of training came before, for each position of x [batch, *heads, T, c]:
    [batch, *heads, T, 1]."""
    if run.training:
        run.updates[name] = count + 1
    steps = ops.cast(ops.stop_gradient(count)[..., None, :], x.dtype)
    return ops.zeros_like(x[..., :1]) + steps


def at_places(x: Tensor, n: int, start: Tensor = 0) -> Tensor:
    """For each position of x [batch, *heads, T, c], which of the first n it is, after `start`
    others: [batch, *heads, T, n], with a 1 at its place, and 0 for later ones."""
    at = ops.one_hot(start + ops.arange(ops.shape(x)[-2]), n, dtype=x.dtype)
    return ops.zeros_like(x[..., :1]) + at


def prioritised(x: Tensor, ids: Tensor, n: int, share: float) -> Tensor:
    """Gates [batch, *heads, T, k] of n experts that find room, 0 for the others: an expert takes a
    share of a sequence's T tokens, first choices before second ones, and among them the tokens
    whose largest gate is largest (Riquelme et al. 2021, algorithm 2)."""
    x, ids = same_heads(x, ids)
    order = ops.argsort(-ops.max(x, axis=-1), axis=-1)[..., None]
    sorted_ids = ops.take_along_axis(ops.cast(ids, "int32"), order, axis=-2)
    by_choice = ops.one_hot(ops.swapaxes(sorted_ids, -1, -2), n, dtype="int32")
    shape = ops.shape(by_choice)  # [batch, *heads, k, T, n]
    flat = ops.reshape(by_choice, (*shape[:-3], shape[-3] * shape[-2], n))
    place = ops.reshape(ops.sum(ops.cumsum(flat, axis=-2) * flat, axis=-1), shape[:-1])
    kept = ops.swapaxes(place <= share_of(ops.shape(x)[-2], share), -1, -2)
    back = ops.argsort(order, axis=-2)
    return x * ops.cast(ops.take_along_axis(ops.cast(kept, "int32"), back, axis=-2), x.dtype)


def baseline(x: Tensor, foreseen: Tensor, weight: float, run: Run) -> Tensor:
    """Leaves for the trainer what the block foresees of a token's reward, above the batch's mean:
    its REINFORCE choices are judged by what the reward has beyond that, and it is trained on the
    squared difference, times weight (Williams 1992; Clark et al. 2022, RL-R)."""
    if run.training:
        single = ops.mean(foreseen, axis=-1)
        while len(single.shape) > 2:
            single = ops.mean(single, axis=1)
        run.baselines.append((single, weight))
    return x


def reinforce(x: Tensor, chances: Tensor, weight: float, run: Run) -> Tensor:
    """Leaves weight log p(chosen experts) for the trainer, which knows the reward (Clark et al.
    2022, RL-R)."""
    if run.training:
        taken = ops.sum(chances, axis=-1)
        while len(taken.shape) > 2:
            taken = ops.sum(taken, axis=1)
        run.policies.append(weight * taken)
    return x


def _chosen(x: Tensor, k: int) -> Tensor:
    """1 at the k largest of x [..., n], else 0."""
    return ops.sum(ops.one_hot(top_k(x, k)[1], x.shape[-1], dtype=x.dtype), axis=-2)


def _by_expert(x: Tensor) -> Tensor:
    """[batch, *heads, T, n] -> [*heads, n, batch T]."""
    moved = ops.moveaxis(x, 0, -1)
    moved = ops.swapaxes(moved, -3, -2)
    shape = ops.shape(moved)
    return ops.reshape(moved, (*shape[:-2], shape[-2] * shape[-1]))


def _over_heads(x: Tensor) -> Tensor:
    """The sum over experts, the mean over heads."""
    return ops.mean(ops.sum(x, axis=-1))


def _squared_variation(x: Tensor) -> Tensor:
    """The squared coefficient of variation over experts, the mean over heads."""
    mean = ops.mean(x, axis=-1)
    return ops.mean(ops.var(x, axis=-1) / (ops.square(mean) + 1e-10))
