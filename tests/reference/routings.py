"""Every routing that our programs are compared with, written from the papers' equations.

Nothing here knows of programs or their lowering. A layer is a function of x [batch, T, d] and of
its weights by name, in float64, one token at a time. An expert is a squared-ReLU feed-forward
without bias, E_i(x) = relu(x @ up[i])**2 @ down[i], with up [n, d, f] and down [n, f, d]; `router`
is [d, n]. Layers are in evaluation mode unless they are given the random draws of training. A tie
goes to the lower index.
"""

from __future__ import annotations

import numpy as np

from tests.reference.balancing import best_assignment
from tests.reference.mixtures import (
    Array,
    Ids,
    Weights,
    combine,
    each_token,
    expert,
    feed_forward,
    rounded_up,
    sigmoid,
    softmax,
    softplus,
    top_k,
)

# Token choice: each token picks its experts.


def soft_mixture(x: Array, w: Weights) -> Array:
    """Jacobs et al. 1991, Eigen et al. 2013: y = sum_i p_i E_i, over all experts."""

    def token(v: Array) -> Array:
        p = softmax(v @ w["router"])
        return combine(v, np.arange(len(p)), p, w)

    return each_token(token, x)


def noisy_top_k(x: Array, w: Weights, k: int = 2, noise: Array | None = None) -> Array:
    """Shazeer et al. 2017, equations 3 to 5; training: `noise` [b, T, n] is standard normal and
    w['noise'] is [d, n]."""

    def token(v: Array, *draw: Array) -> Array:
        h = v @ w["router"]
        if draw:
            h = h + draw[0] * softplus(v @ w["noise"])
        chosen = top_k(h, k)
        return combine(v, chosen, softmax(h[chosen]), w)

    return each_token(token, x, *([] if noise is None else [noise]))


def switch(x: Array, w: Weights) -> Array:
    """Fedus et al. 2021, equations 1 and 2: y = p_i E_i for the most probable i."""

    def token(v: Array) -> Array:
        p = softmax(v @ w["router"])
        chosen = top_k(p, 1)
        return combine(v, chosen, p[chosen], w)

    return each_token(token, x)


def gshard(x: Array, w: Weights, uniform: Array | None = None, threshold: float = 0.2) -> Array:
    """Lepikhin et al. 2020, algorithm 1; training: the second expert takes part if
    uniform [b, T] < g_2 / threshold (policy "random" of Mesh TensorFlow). The paper tests
    2 g_2 > uniform, which is threshold 0.5. Weights are renormalised before the test."""

    def token(v: Array, *draw: float) -> Array:
        p = softmax(v @ w["router"])
        chosen = top_k(p, 2)
        g = p[chosen] / p[chosen].sum()
        if draw and not draw[0] < g[1] / threshold:
            g[1] = 0
        return combine(v, chosen, g, w)

    return each_token(token, x, *([] if uniform is None else [uniform]))


def st_moe(x: Array, w: Weights, k: int = 2) -> Array:
    """Zoph et al. 2022: top-2 of the softmax, renormalised."""

    def token(v: Array) -> Array:
        p = softmax(v @ w["router"])
        chosen = top_k(p, k)
        return combine(v, chosen, p[chosen] / p[chosen].sum(), w)

    return each_token(token, x)


def swiglu_experts(x: Array, w: Weights) -> Array:
    """Top-2 of the softmax, renormalised, of experts (swish(v G) * v U + shift) D."""

    def token(v: Array) -> Array:
        p = softmax(v @ w["router"])
        y = np.zeros_like(v)
        chosen = top_k(p, 2)
        for i in chosen:
            a = v @ w["gate"][i]
            shift = w["shift"][i] if w["shift"].ndim > 1 else 0.0
            y += (
                p[i]
                / p[chosen].sum()
                * ((a * sigmoid(a) * (v @ w["up"][i]) + shift) @ w["down"][i])
            )
        return y

    return each_token(token, x)


def dense_to_sparse(
    x: Array, w: Weights, temperature: float, noise: Array | None = None, least: float = 0.05
) -> Array:
    """Nie et al. 2021 (EvoMoE, DTS-Gate): p = softmax((logits + Gumbel noise [b, T, n]) / t), over
    the experts with p above `least`, not renormalised."""

    def token(v: Array, *draw: Array) -> Array:
        logits = v @ w["router"] + (draw[0] if draw else 0)
        p = softmax(logits / temperature)
        chosen = np.flatnonzero(p > least)
        return combine(v, chosen, p[chosen], w)

    return each_token(token, x, *([] if noise is None else [noise]))


def soft_moe(x: Array, w: Weights) -> Array:
    """Puigcerver et al. 2023, section 2.1, with one slot an expert: slot i is the mean of the
    sequence's tokens by the softmax over tokens of its scores, and a token is the mean of
    the slots' results by the softmax over slots. Scores are |x| = 1 times Phi = w['router'] times
    w['scale']. Not causal."""
    x = np.asarray(x, np.float64)
    y = np.zeros_like(x)
    for b, sequence in enumerate(x):
        unit = sequence / np.linalg.norm(sequence, axis=-1, keepdims=True)
        scores = unit @ w["router"] * w["scale"]
        dispatch = np.stack([softmax(column) for column in scores.T])
        made = [expert(i, row @ sequence, w) for i, row in enumerate(dispatch)]
        y[b] = np.stack([softmax(row) for row in scores]) @ np.stack(made)
    return y


def v_moe(x: Array, w: Weights, share: float, k: int = 2) -> Array:
    """Riquelme et al. 2021, algorithm 2, of each sequence: all first choices before any second one,
    tokens with the largest probability first; an expert has room for ceil(share * T) tokens. Gates
    are the softmax's. Not causal."""
    x = np.asarray(x, np.float64)
    y = np.zeros_like(x)
    for b, sequence in enumerate(x):
        p = np.array([softmax(v @ w["router"]) for v in sequence])
        left = np.full(p.shape[1], rounded_up(share, len(sequence)))
        for choice in range(k):
            for t in sorted(range(len(sequence)), key=lambda t: -p[t].max()):
                e = top_k(p[t], k)[choice]
                if left[e] > 0:
                    left[e] -= 1
                    y[b, t] += p[t, e] * expert(e, sequence[t], w)
    return y


def base_assigned(x: Array, w: Weights, ids: Ids) -> Array:
    """Lewis et al. 2021 (BASE), released code: y = a E(x) + (1 - a) x, a = sigmoid(x . c_e), for
    the expert ids[b, t] with centroid w['centroids'][:, e]."""

    def token(v: Array, e: int) -> Array:
        a = sigmoid(v @ w["centroids"][:, e])
        return a * expert(e, v, w) + (1 - a) * v

    return each_token(token, x, ids)


def base(x: Array, w: Weights) -> Array:
    """Lewis et al. 2021, at test time: every token goes to its best centroid."""
    scores = np.asarray(x, np.float64) @ w["centroids"]
    return base_assigned(x, w, np.argmax(scores, axis=-1))


def base_training(x: Array, w: Weights) -> Array:
    """Lewis et al. 2021, in training: the balanced assignment of the batch's tokens with the
    greatest total score."""
    scores = np.asarray(x, np.float64) @ w["centroids"]
    ids, _ = best_assignment(scores.reshape(-1, scores.shape[-1]))
    return base_assigned(x, w, ids.reshape(x.shape[:2]))


def s_base(x: Array, w: Weights) -> Array:
    """Clark et al. 2022 (S-BASE), evaluation: the best logit's expert, weighted by its sigmoid."""

    def token(v: Array) -> Array:
        logits = v @ w["router"]
        chosen = top_k(logits, 1)
        return combine(v, chosen, sigmoid(logits[chosen]), w)

    return each_token(token, x)


def hash_layer(x: Array, w: Weights, ids: Ids) -> Array:
    """Roller et al. 2021: the expert that a fixed table gives the token's id, unweighted."""
    return each_token(lambda v, e: expert(e, v, w), x, ids)


def demix(x: Array, w: Weights, tasks: Ids) -> Array:
    """Gururangan et al. 2021: the expert of the document's domain, unweighted."""
    return each_token(lambda v, e: expert(e % len(w["up"]), v, w), x, tasks)


def task_level(x: Array, w: Weights, tasks: Ids) -> Array:
    """Kudugunta et al. 2021, routing by task: the two most probable experts of the task, whose
    scores are a row of w['tasks'] [tasks, n]; weights renormalised."""

    def token(v: Array, task: int) -> Array:
        p = softmax(w["tasks"][task % len(w["tasks"])])
        chosen = top_k(p, 2)
        return combine(v, chosen, p[chosen] / p[chosen].sum(), w)

    return each_token(token, x, tasks)


def sentence_level(x: Array, w: Weights) -> Array:
    """Kudugunta et al. 2021, routing by sentence: a switch whose router reads the mean of the whole
    sequence. Not causal."""

    def token(v: Array, whole: Array) -> Array:
        p = softmax(whole @ w["router"])
        chosen = top_k(p, 1)
        return combine(v, chosen, p[chosen], w)

    x = np.asarray(x, np.float64)
    return each_token(token, x, np.repeat(x.mean(1, keepdims=True), x.shape[1], axis=1))


def random_expert(x: Array, w: Weights, ids: Ids) -> Array:
    """Zuo et al. 2022 (THOR): the expert ids[b, t] that was drawn, unweighted."""
    return each_token(lambda v, e: expert(e, v, w), x, ids)


def lsh(x: Array, w: Weights) -> Array:
    """Charikar 2002, signs of frozen projections w['planes'] [d, m]: expert sum_j 2^j [x.r_j > 0],
    unweighted."""

    def token(v: Array) -> Array:
        planes = w["planes"].T
        return expert(sum(2**j for j, r in enumerate(planes) if v @ r > 0), v, w)

    return each_token(token, x)


def reinforce(x: Array, w: Weights) -> Array:
    """Clark et al. 2022 (RL-R), evaluation: the most probable action, unweighted."""
    return each_token(lambda v: expert(int(np.argmax(v @ w["router"])), v, w), x)


def prototypes(x: Array, w: Weights) -> Array:
    """Yang et al. 2021 (M6-T), k top-1: groups of experts, each with its own router, are switches
    of their own, and summed. Weights have the group as first axis: router [groups, d, n], up
    [groups, n, d, f], down [groups, n, f, d]."""
    y = np.zeros(x.shape)
    for router, up, down in zip(w["router"], w["up"], w["down"], strict=True):
        y += switch(x, {"router": router, "up": up, "down": down})
    return y


def deepseek(x: Array, w: Weights, bias: Array, k: int = 2) -> Array:
    """DeepSeek-V3 2024, equations 12 to 16: sigmoid scores; bias [n] takes part in the choice only;
    one shared expert w['shared_up'], w['shared_down'] is always on."""

    def token(v: Array) -> Array:
        s = sigmoid(v @ w["router"])
        chosen = top_k(s + bias, k)
        routed = combine(v, chosen, s[chosen] / s[chosen].sum(), w)
        return routed + feed_forward(v, w["shared_up"], w["shared_down"])

    return each_token(token, x)


def remoe(x: Array, w: Weights) -> Array:
    """Wang et al. 2024 (ReMoE): g = relu(logits), no choice and no softmax."""

    def token(v: Array) -> Array:
        g = np.maximum(v @ w["router"], 0)
        return combine(v, np.arange(len(g)), g, w)

    return each_token(token, x)


def prefix_mean(x: Array, w: Weights) -> Array:
    """Kudugunta et al. 2021 (sentence-level routing) made causal: a switch whose router reads the
    mean of x[0..t], and whose expert reads x[t]."""

    def token(v: Array, seen: Array) -> Array:
        p = softmax(seen @ w["router"])
        chosen = top_k(p, 1)
        return combine(v, chosen, p[chosen], w)

    x = np.asarray(x, np.float64)
    means = [[sequence[: t + 1].mean(0) for t in range(len(sequence))] for sequence in x]
    return each_token(token, x, np.array(means))


def tree(x: Array, w: Weights) -> Array:
    """Jordan and Jacobs 1994, top-1 at both levels: y = p_group p_expert E. w['router'] is
    [d, groups], w['inner'] [groups, d, n], up [groups, n, d, f], down [groups, n, f, d]."""

    def token(v: Array) -> Array:
        outer = softmax(v @ w["router"])
        g = int(np.argmax(outer))
        inner = softmax(v @ w["inner"][g])
        e = int(np.argmax(inner))
        y: Array = outer[g] * inner[e] * feed_forward(v, w["up"][g, e], w["down"][g, e])
        return y

    return each_token(token, x)


# Experts or depths with a threshold, and the choice by experts.


def expert_choice(x: Array, w: Weights, share: float) -> Array:
    """Zhou et al. 2022: each expert takes, of each sequence, the ceil(share * T) tokens that give
    it the largest softmax weight, and multiplies by that weight. Not causal."""
    x = np.asarray(x, np.float64)
    y = np.zeros_like(x)
    for b, sequence in enumerate(x):
        s = np.array([softmax(v @ w["router"]) for v in sequence])
        for e in range(s.shape[1]):
            for t in top_k(s[:, e], rounded_up(share, len(sequence))):
                y[b, t] += s[t, e] * expert(e, sequence[t], w)
    return y


def threshold(x: Array, w: Weights, c: Array) -> Array:
    """Expert threshold routing (arXiv 2603.11535): expert e takes a token if its sigmoid score
    is above c[e], and weighs it by that score."""

    def token(v: Array) -> Array:
        s = sigmoid(v @ w["router"])
        chosen = np.flatnonzero(s > c)
        return combine(v, chosen, s[chosen], w)

    return each_token(token, x)


def mixture_of_depths_threshold(x: Array, w: Weights, c: float) -> Array:
    """Raposo et al. 2024, equation 1 without the residual, with a threshold instead of the top
    tokens: s f(x) where s = sigmoid(x . router) > c, else 0. router [d], up [d, f], down [f, d]."""

    def token(v: Array) -> Array:
        s = sigmoid(v @ w["router"])
        return s * feed_forward(v, w["up"], w["down"]) if s > c else np.zeros_like(v)

    return each_token(token, x)


def cascade(x: Array, w: Weights) -> Array:
    """Bolukbasi et al. 2017, evaluation: y = f1(x), + f2(x) where sigmoid(x . stop + stop_bias)
    > 0.5. f1 and f2 are experts 0 and 1; stop [d], stop_bias a scalar."""

    def token(v: Array) -> Array:
        y = expert(0, v, w)
        return y + expert(1, v, w) if sigmoid(v @ w["stop"] + w["stop_bias"]) > 0.5 else y

    return each_token(token, x)
