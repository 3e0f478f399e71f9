"""Garbage is looked for seldom while a campaign runs, and as before afterwards."""

from __future__ import annotations

import gc

import pytest

from search.collection import YOUNG, seldom_collected


def test_thresholds_are_as_before_afterwards_whatever_happens() -> None:
    before = gc.get_threshold()
    with pytest.raises(KeyError), seldom_collected():
        assert gc.get_threshold()[0] == YOUNG > before[0]
        assert gc.get_freeze_count() > 0
        raise KeyError
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
