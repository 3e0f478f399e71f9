"""Instructions without effect go, those that carry the score stay, and fresh seeds confirm it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from primitives.language.dna import first_fault
from primitives.language.text import parse
from search.errors import UsageError
from search.storage.store import Store
from search.study.setting import setting
from search.study.simplification import Simplified, simplify
from search.study.study import Subject
from tests.study.known import SINE, answer, graph_of, small_config, study
from workers.spec.outcome import Job, Outcome

FRESH = setting(small_config(), 3, first=3).seeds


def shorter(text: str, rule: object = answer, **settings: float) -> Simplified:
    made, _ = study(None, rule)  # type: ignore[arg-type]
    subject = Subject.of("whole", parse(text, d_model=64), made.setting)
    return simplify(made, subject, FRESH, **settings)


def test_what_has_no_effect_goes_and_what_helps_stays() -> None:
    found = shorter(SINE)
    ops = graph_of(found.program).ops
    assert "SQUARE" in ops and not ops & {"TANH", "SIN", "MAX"}
    assert first_fault(found.program) is None
    assert (found.before, found.after) == (8, found.program.length) and found.after <= 5
    results = {each.place: each.result for each in found.deletions}
    assert results["feed.square"] == "kept" and results["feed.tanh"] == "gone"
    assert found.against is not None and found.against.word == "better"  # the sine hurt
    assert "instructions became" in found.sentence


def test_seeds_that_chose_nothing_have_the_last_word() -> None:
    """Losses that are low under the first seeds alone deceive the choice, not the verdict."""
    whole = graph_of(parse(SINE, d_model=64)).hash

    def deceiving(job: Job) -> Outcome:
        outcome = answer(job)
        if job.seed in FRESH and graph_of(parse(job.dna)).hash != whole:
            return replace(outcome, test_bpb=(outcome.test_bpb or 0.0) + 2.0)
        return outcome

    found = shorter(SINE, deceiving)
    assert found.after < found.before
    assert found.against is not None and found.against.word == "not better"
    assert "higher: the shorter program is worse" in found.sentence


def test_where_everything_matters_nothing_goes() -> None:
    def by_length(job: Job) -> Outcome:
        outcome = answer(job)
        return replace(outcome, val_loss=9.0 - parse(job.dna).length)

    found = shorter(SINE, by_length)
    assert (found.after, found.against) == (found.before, None)
    assert "No instruction could be taken away" in found.sentence
    assert all(each.result == "kept" for each in found.deletions)


def test_small_losses_do_not_add_up() -> None:
    """Each instruction less costs 0.04; with a tolerance of 0.1 two may go, not more."""

    def creeping(job: Job) -> Outcome:
        dna = parse(job.dna)
        shift = 0.002 * (job.seed % 3) * (dna.length % 2)
        return Outcome("completed", val_loss=5.0 - 0.04 * dna.length + shift)

    found = shorter(SINE, creeping, tolerance=0.1)
    assert found.before - found.after <= 2


def test_the_first_run_spares_the_others_of_what_matters() -> None:
    made, workers = study(None)
    subject = Subject.of("whole", parse(SINE, d_model=64), made.setting)
    simplify(made, subject, FRESH, 0.01)
    without_square = [
        job for job in workers.submitted if "SQUARE" not in graph_of(parse(job.dna)).ops
    ]
    assert without_square
    assert {job.seed for job in without_square} == {made.setting.seeds[0]}


def test_it_goes_on_after_an_interruption(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/x.db") as store:
        made, _ = study(store)
        subject = Subject.of("whole", parse(SINE, d_model=64), made.setting)
        found = simplify(made, subject, FRESH)
        again, idle = study(store)
        assert simplify(again, subject, FRESH) == found
        assert idle.submitted == []


def test_one_seed_shows_no_noise() -> None:
    made, _ = study(None, shared=setting(small_config(), 1))
    subject = Subject.of("whole", parse(SINE, d_model=64), made.setting)
    with pytest.raises(UsageError, match="two seeds or more"):
        simplify(made, subject, FRESH)
