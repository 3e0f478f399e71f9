"""Kernels of dense programs against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from primitives.kernels.dense import project
from tests.reference.mixtures import Array

RNG = np.random.default_rng(0)
SIZES = RNG.integers(1, 40, (60, 3))


def drawn(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


OUTER = [(), (1,), (2,), (1, 1), (1, 2)]
BRANCHES = [(1,), (2,), (1, 1), (2, 1), (1, 2)]
PAIRS = [(outer, ()) for outer in OUTER] + [
    (outer, branches)
    for outer in OUTER
    for branches in BRANCHES
    if len(outer) <= len(branches)
    and all(own in (1, each) for own, each in zip(outer, branches, strict=False))
]
"""Branch axes of x and of the kernel: x has the first of the kernel's, or axes of size 1."""


@pytest.mark.parametrize(("outer", "branches"), PAIRS)
def test_a_projection_and_its_gradients_are_numpys(
    outer: tuple[int, ...], branches: tuple[int, ...]
) -> None:
    """At many sizes, with branch axes of size 1 above all: TensorFlow 2.21 has a product of
    matrices that is wrong only for these, and for some sizes (its issue 117700)."""
    for length, n, m in SIZES:
        x, kernel = drawn(3, *outer, length, n), drawn(*branches, n, m)
        ahead = x.reshape(3, *outer, *(1,) * max(0, len(branches) - len(outer)), length, n)
        upstream = drawn(*np.matmul(ahead, kernel).shape)
        with tf.GradientTape() as tape:
            inputs = tf.constant(x), tf.constant(kernel)
            tape.watch(inputs)
            output = project(*inputs)
            total = tf.reduce_sum(output * upstream)
        dx, dkernel = tape.gradient(total, inputs)
        np.testing.assert_allclose(output, np.matmul(ahead, kernel), rtol=1e-4, atol=1e-4)
        back = np.matmul(upstream, np.swapaxes(kernel, -1, -2))
        spread = tuple(a for a, size in enumerate(ahead.shape[:-2]) if back.shape[a] != size)
        expected = back.sum(spread, keepdims=True).reshape(x.shape)
        np.testing.assert_allclose(dx, expected, rtol=1e-4, atol=1e-4)
        forward = np.matmul(np.swapaxes(ahead, -1, -2), upstream)
        over = tuple(range(forward.ndim - kernel.ndim))
        summed = forward.sum(over).reshape(-1, *forward.shape[len(over) :])[0]
        np.testing.assert_allclose(dkernel, summed, rtol=1e-4, atol=1e-3)
