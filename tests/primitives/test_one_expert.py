"""A single expert in float32: a product that spreads one matrix over a batch must stay in it."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from primitives.kernels.dense import project


@pytest.mark.parametrize(
    ("shape", "kernel"), [((2, 1, 9, 16), (1, 16, 32)), ((3, 1, 1, 5, 8), (1, 1, 8, 2))]
)
def test_a_single_experts_product_reads_nothing_beyond_its_matrix(
    shape: tuple[int, ...], kernel: tuple[int, ...]
) -> None:
    """TensorFlow's own broadcast product reads foreign memory here, and may crash the process."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(shape), rng.standard_normal(kernel)
    for _ in range(20):
        y = project(ops.convert_to_tensor(x, "float32"), ops.convert_to_tensor(w, "float32"))
        np.testing.assert_allclose(np.array(y), np.matmul(x, w), rtol=1e-4, atol=1e-4)
