"""The functions beside keras.ops that lowered programs call.

Arrays are [batch, *branches, T, feature]. An exported layer carries the source of those it uses, so
each stands alone on `ops` and on the ones above it.
"""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any


def hide(x: Tensor, fill: float) -> Tensor:
    """x [..., T, S] with the invisible entries, s > t, set to `fill`."""
    position = ops.arange(ops.shape(x)[-1])
    visible = position <= ops.expand_dims(position, -1)
    return ops.where(visible, x, ops.cast(fill, x.dtype))


def masked_softmax(x: Tensor) -> Tensor:
    """Softmax over the visible entries of x [..., T, S]; 0 elsewhere. Stable for any size of x."""
    return ops.softmax(hide(x, float("-inf")), axis=-1)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool,
    bfloat16: bool = False,
    positions: Tensor = None,
) -> Tensor:
    """softmax(q k^T) v; q and k [..., T, n], v [..., T, m]. The outer axes of k and v may be the
    first ones of q's: heads then share keys or values. A `causal` one is over the visible keys,
    those up to the query's position. Products of a `bfloat16` one are computed in bfloat16, and the
    softmax in float32. Where q holds some rows of sequences alone, [batch, heads, C, n],
    `positions` [batch, C] says which.

    The gradient needs no mask: weights are 0 where nothing is visible. Its row sums are taken over
    features instead of keys, as in FlashAttention (Dao et al. 2022)."""
    outer = {name: "bhijk"[: len(x.shape) - 2] for name, x in (("Q", q), ("K", k), ("V", v))}
    if len({*outer.values()}) == 1:
        outer = dict.fromkeys(outer, "...")

    def product(x: Tensor, y: Tensor, axes: str) -> Tensor:
        for name, letters in outer.items():
            axes = axes.replace(name, letters)
        if not bfloat16:
            return ops.einsum(axes, x, y)
        x, y = ops.cast(x, "bfloat16"), ops.cast(y, "bfloat16")
        return ops.cast(ops.einsum(axes, x, y), "float32")

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Any]:
        scores = product(q, k, "Qtn,Ksn->Qts")
        if causal and positions is not None:
            inner = (1,) * (len(q.shape) - 3)
            last = ops.reshape(positions, (ops.shape(q)[0], *inner, ops.shape(q)[-2], 1))
            visible = ops.arange(ops.shape(scores)[-1]) <= last
            scores = ops.where(visible, scores, ops.cast(float("-inf"), scores.dtype))
            weights = ops.softmax(scores, axis=-1)
        else:
            weights = masked_softmax(scores) if causal else ops.softmax(scores, axis=-1)
        y = product(weights, v, "Qts,Vsm->Qtm")

        def gradient(*arguments: Tensor, upstream: Tensor = None) -> tuple[Tensor, ...]:
            dy = arguments[0] if upstream is None else upstream
            dweights = product(dy, v, "Qtm,Vsm->Qts")
            # The two sums are equal; rounded weights must see their own gradients' roundings.
            along = weights * dweights if bfloat16 else dy * y
            dscores = weights * (dweights - ops.sum(along, axis=-1, keepdims=True))
            return (
                product(dscores, k, "Qts,Ksn->Qtn"),
                product(dscores, q, "Qts,Qtn->Ksn"),
                product(weights, dy, "Qts,Qtm->Vsm"),
            )

        return y, gradient

    return attend(q, k, v)


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, bfloat16: bool = False
) -> Tensor:
    """`attention` without ever holding the weights, for heads that cuDNN's kernel takes; its
    products are in bfloat16 always."""
    if q.shape[-1] != v.shape[-1] or q.shape[-1] % 8 or q.shape[-1] > 128:
        return attention(q, k, v, causal, bfloat16)
    heads = [ops.reshape(x, (x.shape[0], -1, *x.shape[-2:])) for x in (q, k, v)]
    rows = [ops.cast(ops.swapaxes(x, 1, 2), "bfloat16") for x in heads]
    y = ops.dot_product_attention(*rows, scale=1.0, is_causal=causal)
    return ops.cast(ops.reshape(ops.swapaxes(y, 1, 2), (*q.shape[:-1], v.shape[-1])), "float32")


def centred(x: Tensor) -> Tensor:
    """x less its features' mean."""

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def less_mean(x: Tensor) -> tuple[Tensor, Any]:
        def gradient(*arguments: Tensor, upstream: Tensor = None) -> Tensor:
            dy = arguments[0] if upstream is None else upstream
            return dy - ops.mean(dy, axis=-1, keepdims=True)

        return x - ops.mean(x, axis=-1, keepdims=True), gradient

    return less_mean(x)


def over_rms(x: Tensor, floor: float) -> Tensor:
    """x over the root of its features' mean square, which counts as `floor` at least."""

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def normed(x: Tensor) -> tuple[Tensor, Any]:
        square = ops.mean(ops.square(x), axis=-1, keepdims=True)
        inverse = ops.rsqrt(ops.maximum(square, floor))
        y = x * inverse

        def gradient(*arguments: Tensor, upstream: Tensor = None) -> Tensor:
            dy = arguments[0] if upstream is None else upstream
            along = ops.mean(dy * y, axis=-1, keepdims=True)
            return (dy - y * along * ops.cast(square > floor, x.dtype)) * inverse

        return y, gradient

    return normed(x)


def visible_mean(x: Tensor) -> Tensor:
    """Mean over visible entries, of which row t has t + 1; x is 0 elsewhere."""
    count = ops.cast(ops.arange(1, ops.shape(x)[-1] + 1), x.dtype)
    return ops.sum(x, axis=-1, keepdims=True) / count[:, None]


def reciprocal(x: Tensor) -> Tensor:
    """1 / x, and 0 where x is 0."""
    zero = ops.equal(x, 0)
    safe = ops.where(zero, ops.ones_like(x), x)
    return ops.where(zero, ops.zeros_like(x), 1 / safe)


def matmul(x: Tensor, kernel: Tensor) -> Tensor:
    """The product of x [batch, *branches, T, n] and kernel [*branches, n, m].

    A single branch axis of size 1 is taken out and put back: of such operands, TensorFlow 2.21 with
    oneDNN on CPUs with AVX-512 makes wrong products and writes beyond its buffers (TensorFlow issue
    117700)."""
    if len(x.shape) != 4 or x.shape[1] != 1 or any(size != 1 for size in kernel.shape[:-2]):
        return ops.matmul(x, kernel)
    kernel = ops.reshape(kernel, kernel.shape[-2:])
    return ops.expand_dims(ops.matmul(ops.squeeze(x, 1), kernel), 1)


def project(x: Tensor, kernel: Tensor) -> Tensor:
    """x [batch, *outer branches, T, n] times kernel [*branches, n, m]: [batch, *branches, T, m]. A
    branch axis of x may have size 1, where branches do not differ. x may also have more branch axes
    than the kernel, which those share: it works on their positions one after the other."""
    outer, inner = len(kernel.shape) - 2, len(x.shape) - 3
    if inner > outer:
        sizes = ops.shape(x)
        rows = ops.reshape(x, (*sizes[: 1 + outer], -1, x.shape[-1]))
        made = project(rows, kernel)
        own = ops.shape(made)[: 1 + outer]
        return ops.reshape(made, (*own, *sizes[1 + outer : -1], kernel.shape[-1]))
    if outer == 0:
        return matmul(x, kernel)
    if inner == outer and x.shape[-2] == 1:  # a row each: no product of matrices
        return ops.sum(x[..., 0, :, None] * kernel, axis=-2)[..., None, :]
    if inner == outer:  # an einsum would turn the batch axis about
        return matmul(x, kernel)
    heads = "hijk"[:outer]
    same = [axis for axis in range(inner) if x.shape[1 + axis] == 1 != kernel.shape[axis]]
    if same:
        x = ops.squeeze(x, tuple(1 + axis for axis in same))
    own = "".join(heads[axis] for axis in range(inner) if axis not in same)
    return ops.einsum(f"b{own}tn,{heads}nm->b{heads}tm", x, kernel)


def conv(x: Tensor, kernel: Tensor) -> Tensor:
    """Causal convolution over T: kernel [*branches, taps, n, m], its last tap at the position."""
    taps, n, m = kernel.shape[-3:]
    length = ops.shape(x)[-2]
    padded = ops.pad(x, [[0, 0]] * (len(x.shape) - 2) + [[taps - 1, 0], [0, 0]])
    if len(kernel.shape) == 3 == len(x.shape):
        return ops.conv(padded, kernel, padding="valid")
    window = ops.concatenate([padded[..., tap : tap + length, :] for tap in range(taps)], axis=-1)
    return project(window, ops.reshape(kernel, (*kernel.shape[:-3], taps * n, m)))


def depthwise_conv(x: Tensor, kernel: Tensor) -> Tensor:
    """Causal convolution over T, each channel by itself: kernel [*branches, taps, n], where a
    branch axis may have size 1, whose branches share it. Branches and channels lie side by side for
    it, which backends compute fastest."""
    *branches, taps, n = kernel.shape
    batch, length = ops.shape(x)[0], ops.shape(x)[-2]
    if branches:
        shared = branches
        branches = [max(sizes) for sizes in zip(branches, x.shape[1:-2], strict=True)]
        if branches != shared:
            kernel = ops.broadcast_to(kernel, (*branches, taps, n))
        x = ops.moveaxis(ops.broadcast_to(x, (batch, *branches, length, n)), -2, 1)
    flat = ops.pad(ops.reshape(x, (batch, length, -1)), [[0, 0], [taps - 1, 0], [0, 0]])
    weights = ops.reshape(ops.moveaxis(kernel, -2, 0), (taps, -1, 1))
    y = ops.depthwise_conv(flat, weights, padding="valid")
    if branches:
        y = ops.moveaxis(ops.reshape(y, (batch, length, *branches, n)), 1, -2)
    return y


def depthwise_taps(x: Tensor, kernel: Tensor) -> Tensor:
    """`depthwise_conv` tap by tap. Compilers fuse it into its neighbours, where the convolution of
    an accelerator's library takes ten times a block's other work."""
    taps, length = kernel.shape[-2], ops.shape(x)[-2]
    padded = ops.pad(x, [[0, 0]] * (len(x.shape) - 2) + [[taps - 1, 0], [0, 0]])
    parts = [padded[..., tap : tap + length, :] * kernel[..., tap, None, :] for tap in range(taps)]
    return sum(parts[1:], parts[0])


def project_all(x: Tensor, kernels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What `project` gives for each of several kernels of one shape, x [batch, T, n] being without
    branches: one product of matrices instead of several."""
    return _apart(ops.matmul(x, _side_by_side(kernels)), kernels)


def project_convolve_all(
    x: Tensor, kernels: tuple[Tensor, ...], taps: tuple[Tensor, ...], depthwise: Any
) -> tuple[Tensor, ...]:
    """`depthwise(project(x, kernel), taps)` for each of several kernels of one shape, x [batch, T,
    n] being without branches: one product of matrices and one convolution."""
    wide = ops.matmul(x, _side_by_side(kernels))
    return _apart(depthwise(wide, _side_by_side(taps)), kernels)


def _side_by_side(kernels: tuple[Tensor, ...]) -> Tensor:
    """Kernels [*branches, rows, m] of one shape as one [rows, kernels branches m]."""
    rows, x = kernels[0].shape[-2], kernels[0]
    if len(kernels) > 1:  # a stack does not take Keras' variables
        x = ops.concatenate([ops.expand_dims(kernel, 0) for kernel in kernels], axis=0)
    return ops.reshape(ops.moveaxis(x, -2, 0), (rows, -1))


def _apart(x: Tensor, kernels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """x [batch, T, kernels branches m] as one [batch, *branches, T, m] for each kernel."""
    *branches, _, m = kernels[0].shape
    if not branches:
        return tuple(ops.split(x, len(kernels), axis=-1)) if len(kernels) > 1 else (x,)
    batch, length = ops.shape(x)[0], ops.shape(x)[1]
    split = ops.reshape(x, (batch, length, len(kernels), *branches, m))
    inner = range(3, 3 + len(branches))
    return tuple(ops.unstack(ops.transpose(split, (2, 0, *inner, 1, 3 + len(branches)))))


def to_bfloat16(arrays: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Each array rounded to bfloat16."""
    return tuple(ops.cast(x, "bfloat16") for x in arrays)


def to_float32(arrays: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Each array in float32."""
    return tuple(ops.cast(x, "float32") for x in arrays)


def repeat_features(x: Tensor, n: int) -> Tensor:
    """[..., c] -> [..., n c]: n equal results side by side."""
    return ops.concatenate([x] * n, axis=-1)


def merge_branches(x: Tensor, n: int) -> Tensor:
    """[..., n, T, c] -> [..., T, n c]: the results of n branches side by side. The branch axis may
    have size 1, where branches do not differ."""
    if x.shape[-3] == 1:
        return repeat_features(x[..., 0, :, :], n)
    *outer, branches, length, c = ops.shape(x)
    return ops.reshape(ops.swapaxes(x, -3, -2), (*outer, length, branches * c))
