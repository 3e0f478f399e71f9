"""A lineage whose answer is known: one change gains, one does nothing, one hurts."""

from __future__ import annotations

from pathlib import Path

import pytest

from primitives.language.text import parse
from search.errors import UsageError
from search.storage.store import Store
from search.study.ancestors import ancestors
from search.study.explanation import Change, Explained, explain, records
from tests.study.known import CHANGED, NEUTRAL, SEED, SINE, SQUARED, campaign_of, graph_of, study


def explained(store: Store, *texts: str) -> Explained:
    campaign_of(store, texts)
    made, _ = study(store)
    return explain(made, ancestors(store, "known", len(texts)))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(f"sqlite:///{tmp_path}/known.db")


def by_id(found: Explained) -> dict[int, Change]:
    return {change.id: change for change in found.changes}


def test_the_change_that_carries_the_gain_is_found(store: Store) -> None:
    found = explained(store, SEED, SQUARED, NEUTRAL, SINE)
    assert found.idle == () and found.score == "test_bpb"
    square, tanh, sine = (by_id(found)[id] for id in (2, 3, 4))
    assert (square.inserted.word, square.removed.word) == ("helps", "helps")
    assert (tanh.inserted.word, tanh.removed.word) == ("no clear effect", "no clear effect")
    assert (sine.inserted.word, sine.removed.word) == ("hurts", "hurts")
    for change, gain in ((square, 0.3), (tanh, 0.0), (sine, -0.2)):
        for effect in (change.inserted, change.removed):
            assert effect.gain is not None
            assert effect.gain.centre == pytest.approx(gain * 1.4427, abs=0.003)
    assert found.whole.gain is not None
    assert found.whole.gain.centre == pytest.approx(0.1 * 1.4427, abs=0.003)
    assert "+ square = SQUARE(act)" in square.lines
    assert square.words == ("feed: new SQUARE of act, before narrow",)


def test_a_change_of_a_change_goes_with_it(store: Store) -> None:
    """Candidate 5 rewires what candidate 2 brought: it has no meaning without it."""
    found = by_id(explained(store, SEED, SQUARED, NEUTRAL, SINE, CHANGED))
    assert found[5].inserted.word == "cannot stand alone"
    assert "which another change brought" in found[5].inserted.reason
    assert found[2].removed.word == "helps" and found[2].removed.with_ids == (5,)


def test_what_a_later_step_undid_is_idle(store: Store) -> None:
    undone = SQUARED.replace("  square = SQUARE(act)\n", "").replace("(square)", "(act)")
    last = undone.replace("  out = ADD(x, fed)", "  sin = SIN(x)\n  out = ADD(sin, fed)")
    found = explained(store, SEED, SQUARED, undone, last)
    assert found.idle == (2, 3) and list(by_id(found)) == [4]
    assert by_id(found)[4].inserted.word == "hurts"


def test_a_change_without_effect_alone_is_not_trained(store: Store) -> None:
    """The inserted state is read only once another change reads it."""
    dead = SEED.replace("  fed = feed(x)\n", "  fed = feed(x)\n  sin = SIN(x)\n")
    read = dead.replace("ADD(x, fed)", "ADD(sin, fed)")
    found = by_id(explained(store, SEED, dead, read))
    assert found[2].inserted.word == "no effect"
    assert found[2].inserted.gain is not None and found[2].inserted.gain.centre == 0.0
    assert found[3].inserted.word == "cannot stand alone"


def test_runs_are_recorded_and_found_again(store: Store) -> None:
    campaign_of(store, (SEED, SQUARED, NEUTRAL, SINE))
    first, busy = study(store)
    line = ancestors(store, "known", 4)
    found = explain(first, line)
    assert len({(job.dna, job.seed) for job in busy.submitted}) == len(busy.submitted)
    again, idle = study(store)
    assert explain(again, line) == found and idle.submitted == []


def test_records_have_a_last_row_for_all(store: Store) -> None:
    rows = records(explained(store, SEED, SQUARED))
    assert [row["id"] for row in rows] == [2, None]
    assert rows[0]["inserted_gain"] == rows[1]["inserted_gain"]
    assert rows[0]["inserted_low"] < rows[0]["inserted_gain"] < rows[0]["inserted_high"]


def test_a_seed_program_has_nothing_to_explain(store: Store) -> None:
    campaign_of(store, (SEED, SQUARED))
    with pytest.raises(UsageError, match="candidate 1 of known is a seed program"):
        ancestors(store, "known", 1)
    assert graph_of(parse(SEED, d_model=64)).hash != graph_of(parse(SQUARED, d_model=64)).hash
