"""How many workers there are, and what each of them gets."""

from __future__ import annotations

import pytest

from workers.machine.devices import Layout
from workers.spec.pool import PoolSpec, layout


@pytest.mark.parametrize(
    ("fields", "cpus", "gpus", "expected"),
    [
        ({}, 2, 0, Layout(2, 1, 0)),
        ({"count": 1}, 4, 0, Layout(1, 4, 0)),
        ({"cpus_per_worker": 4}, 16, 0, Layout(4, 4, 0)),
        ({"cpus_per_worker": 4}, 2, 0, Layout(1, 4, 0)),
        ({}, 16, 1, Layout(1, 16, 1)),
        ({}, 32, 2, Layout(2, 16, 1)),
        ({"gpus_per_worker": 0.5}, 16, 1, Layout(2, 8, 0.5)),
        ({"gpus_per_worker": 1 / 3}, 16, 2, Layout(6, 2, 1 / 3)),
        ({"gpus_per_worker": 0}, 16, 2, Layout(16, 1, 0)),
        ({"count": 1}, 16, 8, Layout(1, 16, 1)),
    ],
)
def test_layout(fields: dict[str, object], cpus: int, gpus: int, expected: Layout) -> None:
    assert layout(PoolSpec(**fields), cpus, gpus) == expected


@pytest.mark.parametrize(
    ("fields", "gpus", "message"),
    [
        ({"gpus_per_worker": 0.5}, 0, "there is no GPU"),
        ({"count": 3, "gpus_per_worker": 0.5}, 1, "hold 2"),
    ],
)
def test_layout_that_does_not_fit(fields: dict[str, object], gpus: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout(PoolSpec(**fields), 8, gpus)
