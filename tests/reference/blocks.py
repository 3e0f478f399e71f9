"""The seed programs' architectures, written once more from the papers, head by head.

Nothing here knows of programs or their lowering. A block is a function of x [batch, T, d_model] and
of its weights by name; `*_WEIGHTS` says which there are, in order. There are 8 heads of d_model/8;
weights of heads have the head as their first axis; in grouped-query attention the group, then the
head in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keras import activations, layers, ops

Tensor = Any
Weights = Mapping[str, Tensor]
HEADS = 8
GROUPS = 2

NORM_1, NORM_2 = ("norm1_scale", "norm1_shift"), ("norm2_scale", "norm2_shift")
QKV = ("query", "key", "value")
TRANSFORMER_WEIGHTS = (*NORM_1, *QKV, "mix", *NORM_2, "wide", "narrow")
TRANSFORMER_PP_WEIGHTS = (
    "norm1_scale", *QKV, "mix", "norm2_scale", "gate", "wide", "narrow"
)  # fmt: skip
PRIMER_EZ_WEIGHTS = (
    *NORM_1, "query", "query_taps", "key", "key_taps", "value", "value_taps", "mix",
    *NORM_2, "wide", "narrow",
)  # fmt: skip
PRIMER_WEIGHTS = (
    *NORM_1, "key", "key_taps", "query", "value", "value_taps", "mix", "wide", "narrow", *NORM_2
)  # fmt: skip


def layer_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Ba, Kiros and Hinton 2016."""
    return layers.LayerNormalization(epsilon=0, center=False, scale=False)(x) * scale + shift


def rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    """Zhang and Sennrich 2019, equation 4."""
    return x / ops.sqrt(ops.mean(x * x, axis=-1, keepdims=True)) * scale


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Vaswani et al. 2017, equation 1, over the past: q, k, v [batch, T, d_head]."""
    visible = ops.tril(ops.ones((q.shape[1], k.shape[1]), bool))
    scores = ops.einsum("btd,bsd->bts", q, k) / q.shape[-1] ** 0.5
    return layers.Softmax()(scores, mask=visible) @ v


def past_average(x: Tensor, taps: Tensor) -> Tensor:
    """Causal depthwise convolution: So et al. 2021, figure 6; taps [width, channels]."""
    earlier = taps.shape[0] - 1
    convolution = layers.DepthwiseConv1D(taps.shape[0], use_bias=False)
    padded = layers.ZeroPadding1D((earlier, 0))(x)
    convolution.build(padded.shape)
    kernel = ops.expand_dims(taps, -1)
    return convolution.stateless_call([kernel], [], padded)[0]


def self_attention(
    x: Tensor, w: Weights, project: Callable[[Tensor, Weights, str, int], Tensor]
) -> Tensor:
    """Heads one after the other, joined, and mixed by one more map."""
    heads = []
    for head in range(HEADS):
        q, k, v = (project(x, w, name, head) for name in QKV)
        heads.append(causal_attention(q, k, v))
    return ops.concatenate(heads, axis=-1) @ w["mix"]


def plain(x: Tensor, w: Weights, name: str, head: int) -> Tensor:
    return x @ w[name][head]


def one_for_all(x: Tensor, w: Weights, name: str, head: int) -> Tensor:
    """Shazeer 2019, section 3: keys and values have no heads."""
    return x @ (w[name][head] if name == "query" else w[name])


def one_for_a_group(x: Tensor, w: Weights, name: str, head: int) -> Tensor:
    """Ainslie et al. 2023, section 2.2: a key and a value head for each group of query heads."""
    group, place = divmod(head, HEADS // GROUPS)
    return x @ (w[name][group][place] if name == "query" else w[name][group])


def multi_dconv(x: Tensor, w: Weights, name: str, head: int) -> Tensor:
    """Multi-DConv-head attention: a 3x1 convolution after the head's projection."""
    return past_average(x @ w[name][head], w[f"{name}_taps"][head])


def pre_norm_block(
    x: Tensor,
    w: Weights,
    activation: Callable[[Tensor], Tensor],
    project: Callable[[Tensor, Weights, str, int], Tensor] = plain,
) -> Tensor:
    normed = layer_norm(x, w["norm1_scale"], w["norm1_shift"])
    x = x + self_attention(normed, w, project)
    normed = layer_norm(x, w["norm2_scale"], w["norm2_shift"])
    return x + activation(normed @ w["wide"]) @ w["narrow"]


def transformer(x: Tensor, w: Weights) -> Tensor:
    """The decoder block of Vaswani et al. 2017, normalised first, without biases."""
    return pre_norm_block(x, w, activations.relu)


def transformer_gelu(x: Tensor, w: Weights) -> Tensor:
    """The same with GELU's tanh form: Hendrycks and Gimpel 2016."""
    return pre_norm_block(x, w, lambda h: activations.gelu(h, approximate=True))


def transformer_pp(x: Tensor, w: Weights) -> Tensor:
    """RMSNorm, and SwiGLU: (swish(x W) * x V) W2, Shazeer 2020."""
    x = x + self_attention(rms_norm(x, w["norm1_scale"]), w, plain)
    normed = rms_norm(x, w["norm2_scale"])
    return x + (activations.silu(normed @ w["gate"]) * (normed @ w["wide"])) @ w["narrow"]


def multi_query(x: Tensor, w: Weights) -> Tensor:
    return pre_norm_block(x, w, activations.relu, one_for_all)


def grouped_query(x: Tensor, w: Weights) -> Tensor:
    return pre_norm_block(x, w, activations.relu, one_for_a_group)


def squared_relu(x: Tensor) -> Tensor:
    return activations.relu(x) ** 2


def primer_ez(x: Tensor, w: Weights) -> Tensor:
    """So et al. 2021, section 4: squared ReLU and multi-DConv-head attention."""
    return pre_norm_block(x, w, squared_relu, multi_dconv)


def primer(x: Tensor, w: Weights) -> Tensor:
    """So et al. 2021, appendix A: also queries from keys, and the second norm after the
    feed-forward. Its norm's x(x - mean) has the mean (x - mean)^2: it is layer norm."""

    def project(x: Tensor, w: Weights, name: str, head: int) -> Tensor:
        if name == "query":
            return multi_dconv(x, w, "key", head) @ w["query"][head]
        return multi_dconv(x, w, name, head)

    normed = layer_norm(x, w["norm1_scale"], w["norm1_shift"])
    x = x + self_attention(normed, w, project)
    fed = squared_relu(x @ w["wide"]) @ w["narrow"]
    return x + layer_norm(fed, w["norm2_scale"], w["norm2_shift"])


BLOCKS: dict[str, tuple[Callable[[Tensor, Weights], Tensor], tuple[str, ...]]] = {
    "transformer": (transformer, TRANSFORMER_WEIGHTS),
    "transformer_gelu": (transformer_gelu, TRANSFORMER_WEIGHTS),
    "transformer_pp": (transformer_pp, TRANSFORMER_PP_WEIGHTS),
    "multi_query": (multi_query, TRANSFORMER_WEIGHTS),
    "grouped_query": (grouped_query, TRANSFORMER_WEIGHTS),
    "primer_ez": (primer_ez, PRIMER_EZ_WEIGHTS),
    "primer": (primer, PRIMER_WEIGHTS),
}
