"""Replaying a campaign equals having lived it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from search.campaign.controller import Controller
from search.campaign.history import State, fold
from search.campaign.progress import final_table, progress
from search.config.schema import BudgetSpec
from search.evolution.population import Member
from search.storage.events import Ended, Event, Proposed
from search.storage.store import Store
from tests.search.instant import InstantEvaluator, launch, make_config

SPEC = make_config(candidates=40, seeds=("transformer", "primer"), population=5).search


def everything(state: State) -> dict[str, Any]:
    """All that the state knows, in comparable form."""
    fields = {**vars(state), "hurdles": state.hurdles.bars(), "tally": vars(state.tally)}
    fields["rungs"] = vars(state.rungs)
    fields.pop("finalists", None)  # cached when first read
    return fields


def ended(sequence: int, id: int, loss: float | None = 2.0, passed: int = 2) -> Ended:
    losses = () if loss is None else tuple(loss + 2 - k for k in range(passed + 1))
    return Ended(
        sequence, id, "search", id, "diverged" if loss is None else "completed", loss, loss, None,
        None, passed, losses,
    )  # fmt: skip


def proposed(id: int, twin: int | None = None) -> Proposed:
    parent = None if id <= 2 else 1
    return Proposed(id, parent, "insert", f"h{twin or id}", twin, {"feature axes differ": id % 2})


def lived(rng: Random) -> list[Event]:
    """A random campaign as four workers would live it: endings overtake one another."""
    events: list[Event] = [proposed(1), proposed(2)]
    running, done = [1, 2], dict[int, Ended]()
    while len(done) < SPEC.candidates:
        number = len({event.id for event in events}) + 1
        if len(done) >= 2 and number <= SPEC.candidates and len(running) < 4:
            twin = rng.choice([*(id for id in done if id == int(id)), None, None])
            events.append(proposed(number, twin))
            if twin is not None:
                done[number] = done[twin]._replace(sequence=len(done) + 1, id=number)
                events.append(done[number])
            else:
                running.append(number)
            continue
        id = running.pop(rng.randrange(len(running)))
        loss = None if rng.random() < 0.2 else rng.choice([1.0, 1.5, rng.random() * 4])
        done[id] = ended(len(done) + 1, id, loss, rng.randrange(3))
        events.append(done[id])
    return events


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 200))
def test_the_order_of_the_database_gives_the_same_state(seed: int, killed_at: int) -> None:
    """The database lists proposals first, then endings; a campaign may be cut off anywhere."""
    events = lived(Random(seed))[:killed_at]
    listed = sorted(events, key=lambda event: isinstance(event, Ended))
    assert everything(fold(SPEC, events)) == everything(fold(SPEC, listed))


def test_a_campaign_folds_back_into_the_state_that_lived_it(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/a.db") as store:
        settings: dict[str, Any] = {"candidates": 150, "mutations": {"delete": 1.0}}
        campaign = launch(store, **settings)
        controller = Controller(store, campaign, InstantEvaluator(3))
        shown = controller.run()
        again = fold(make_config(**settings).search, store.events(campaign.id))
    assert everything(again) == everything(controller._state)
    assert progress(again) == shown
    assert shown.duplicates > 0 and shown.outcomes["diverged"] > 0 and shown.stopped_at[0] > 0


def test_the_population_starts_as_copies_of_the_seeds_that_completed() -> None:
    state = fold(SPEC, [proposed(1), proposed(2), ended(1, 2, 3.0)])
    assert (len(state.population), state.seeds_done) == (0, False)
    state.apply(ended(2, 1, 2.0))
    assert [member.id for member in state.population] == [1, 2, 1, 2, 1]
    failed = fold(SPEC, [proposed(1), proposed(2), ended(1, 2, None), ended(2, 1, 2.0)])
    assert {member.id for member in failed.population} == {1}


def test_age_is_the_order_of_completion_and_failures_stay_out() -> None:
    events: list[Event] = [proposed(id) for id in range(1, 8)]
    order = [1, 2, 7, 3, 5, 4, 6]
    events += [ended(k, id, None if id == 5 else float(id)) for k, id in enumerate(order, 1)]
    state = fold(SPEC, events)
    assert list(state.population) == [Member(id, float(id)) for id in (1, 7, 3, 4, 6)]
    assert state.results[5].status == "diverged"


def test_duplicates_enter_the_population_but_not_the_hurdles() -> None:
    before = [proposed(1), proposed(2), ended(1, 1, 2.0), ended(2, 2, 3.0)]
    state = fold(SPEC, before)
    state.apply(proposed(3, twin=2))
    state.apply(ended(3, 3, 3.0, passed=1))
    assert state.population[-1].id == 3
    assert state.tally.duplicates == 1
    assert state.tally.outcomes == {"completed": 2}
    assert state.tally.saved_by_duplicates == 75.0


def test_savings_add_up() -> None:
    events: list[Event] = [proposed(1), proposed(2)]
    events += [ended(1, 1, 2.0, passed=2), ended(2, 2, 3.0, passed=0)]
    shown = progress(fold(SPEC, events))
    assert (shown.spent, shown.saved_by_hurdles) == (175.0 + 25.0, 150.0)
    assert shown.stopped_at == (1, 0)


def test_finalists_are_distinct_and_the_seed_is_one_of_them() -> None:
    spec = make_config(candidates=5).search
    events: list[Event] = [proposed(1), proposed(2), proposed(3, twin=2), proposed(4), proposed(5)]
    losses = {1: 2.0, 2: 1.0, 3: 1.0, 4: None, 5: 1.5}
    events += [ended(id, id, loss) for id, loss in losses.items()]
    assert fold(spec, events).finalists == (1, 2, 5)


def test_the_final_table_ranks_by_mean_test_loss() -> None:
    state = fold(make_config(candidates=2).search, [proposed(1), proposed(2)])
    for sequence, (id, loss) in enumerate([(1, 2.0), (2, 1.0)], 1):
        state.apply(ended(sequence, id, loss))
    losses = {(1, 7): 2.0, (1, 8): 3.0, (2, 7): 1.0, (2, 8): None}
    for sequence, ((id, seed), loss) in enumerate(losses.items(), 3):
        end = ended(sequence, id, loss)
        state.apply(end._replace(kind="final", seed=seed, test_loss=loss, test_bpb=loss))
    best, seed_row = final_table(state)
    assert (best.id, best.loss, best.bpb_deviation, best.failed) == (2, 1.0, None, ("diverged",))
    assert (seed_row.is_seed, seed_row.loss, seed_row.bpb_deviation) == (True, 2.5, 0.5**0.5)


def test_a_finalist_is_trained_again_once_though_it_is_a_seed() -> None:
    spec = make_config(candidates=3, seeds=("transformer",)).search
    events = [proposed(id) for id in (1, 2, 3)]
    events += [ended(1, 1, 1.0), ended(2, 2, 3.0), ended(3, 3, 2.0)]
    assert fold(spec, events).finalists == (1, 3, 2)
    best = fold(spec, [*events[:3], ended(1, 1, 3.0), ended(2, 3, 2.0), ended(3, 2, 2.0)]).best
    assert best is not None and best.id == 3, "of equal ones the first"


def test_what_a_candidate_had_when_it_was_paused_is_forgotten() -> None:
    """Number 2 is the best where it waits. It goes on and ends worse; then number 3 diverges."""
    budget = BudgetSpec(unit="steps", base=25.0, hurdles=2, rule="promote")
    spec = make_config(
        candidates=9, seeds=("transformer",), population=3, tournament=2, budget=budget
    ).search
    state = fold(spec, [proposed(1), ended(1, 1, 4.0), proposed(2), proposed(3)])

    def seen(*events: Event) -> tuple[int | None, list[tuple[int, float]]]:
        for event in events:
            state.apply(event)
        return state.best and state.best.id, [tuple(each) for each in state.population]

    assert seen(ended(2, 2, 1.0, 0), ended(3, 3, 2.0, 0)) == (2, [(1, 4.0), (2, 1.0), (3, 2.0)])
    assert seen(ended(4, 2, 3.0, 2)) == (3, [(1, 4.0), (3, 2.0), (2, 3.0)])
    assert state.tally.reached == [2, 1] and state.tally.went_on == [1, 1]
    assert seen(ended(5, 3, None, 0)) == (2, [(1, 4.0), (2, 3.0)])
    assert state.tally.outcomes == {"completed": 2, "diverged": 1} and len(state.rungs) == 0
