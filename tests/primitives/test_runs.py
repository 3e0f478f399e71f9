"""Runs with a capacity factor, against queues that are filled entry by entry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from primitives.kernels.runs import Runs, to_runs


def reference(ids: np.ndarray, n: int, capacity: int) -> list[tuple[int, int]]:
    """(expert, entry) of each slot for ids [sequences, heads, T, k]: an expert of a head takes the
    first `capacity` entries of each sequence, and runs follow each other by head and expert."""
    sequences, heads, length, k = ids.shape
    taken: dict[tuple[int, int], int] = {}
    slots = []
    for sequence in range(sequences):
        for head in range(heads):
            for place in range(length * k):
                expert = head * n + int(ids[sequence, head].reshape(-1)[place])
                entry = (sequence * heads + head) * length * k + place
                taken[sequence, expert] = taken.get((sequence, expert), 0) + 1
                if taken[sequence, expert] <= capacity:
                    slots.append((expert, entry))
    return sorted(slots)


@pytest.mark.parametrize(
    ("factor", "capacity"), [(0.01, 1), (0.5, 2), (1.0, 4), (1.25, 5), (8.0, 12)]
)
@pytest.mark.parametrize("heads", [1, 3])
def test_an_expert_takes_the_first_of_each_sequence(
    heads: int, factor: float, capacity: int
) -> None:
    rng, n, length, k = np.random.default_rng(heads), 3, 6, 2
    ids = np.stack([rng.permutation(n)[:k] for _ in range(4 * heads * length)])
    ids = ids.reshape(4, heads, length, k)
    ids[0] = np.array([0, 1])  # a sequence in which nobody wants the third expert
    x = rng.standard_normal((4, heads, length, 5))
    around = () if heads == 1 else (heads,)
    given = (x, ids) if around else (x[:, 0], ids[:, 0])
    shapes = [tf.TensorSpec([None, *array.shape[1:-2], None, array.shape[-1]], dtype)
              for array, dtype in zip(given, (tf.float64, tf.int32), strict=True)]  # fmt: skip

    @tf.function(input_signature=shapes, autograph=False)
    def traced(x: Any, ids: Any) -> Any:
        slots, route = to_runs(x, ids, n, around, factor)
        return slots, *route[:4]

    slots, owner, ends, entries, order = (each.numpy() for each in traced(*given))
    expected = reference(ids, n, capacity)
    np.testing.assert_array_equal(np.stack([owner, entries], -1), expected)
    np.testing.assert_array_equal(slots.reshape(-1, 5), x.reshape(-1, 5)[entries // k])
    np.testing.assert_array_equal(entries[order], np.sort(entries))
    counts = np.bincount(owner, minlength=n * heads)
    np.testing.assert_array_equal(ends, np.cumsum(counts))


def test_inside_another_call_each_slot_is_a_sequence() -> None:
    """Both choices of a token go to expert 1, which has one place for them: ceil(1 * 1 * 2 / 2)."""
    outer = Runs(
        tf.constant([0, 0, 2]), tf.constant([2, 2, 3]), tf.constant([0, 1, 2]),
        tf.constant([0, 1, 2]), True, 1,
    )  # fmt: skip
    ids = tf.reshape(tf.constant([1, 1, 0, 1, 1, 1]), (1, 3, 1, 2))
    x = tf.reshape(tf.range(3.0), (1, 3, 1, 1))
    slots, route = to_runs(x, ids, 2, (-3,), 1.0, outer)
    np.testing.assert_array_equal(route.owner, [0, 1, 1, 5])
    np.testing.assert_array_equal(route.entries, [2, 0, 3, 4])
    np.testing.assert_array_equal(tf.reshape(slots, -1), [1, 0, 1, 2])


def test_no_slots_around_make_none() -> None:
    nothing = tf.zeros(0, tf.int32)
    outer = Runs(nothing, tf.zeros(2, tf.int32), nothing, nothing, False, 2)
    x, ids = tf.zeros((1, 0, 1, 3)), tf.zeros((1, 0, 1, 2), tf.int32)
    slots, route = to_runs(x, ids, 4, (-2,), 1.0, outer)
    assert slots.shape == (1, 1, 0, 1, 3)
    assert route.order.shape == (0,)
    np.testing.assert_array_equal(route.ends, np.zeros(8))
