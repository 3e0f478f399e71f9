"""Runs that are too slow end as soon as their pace is known, with their curve kept."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from primitives.programs.seeds import load_seed
from workers.spec.outcome import Budget, Hurdle, StepLimit
from workers.training.evaluate import evaluate
from workers.training.tempo import PROBE, WARM, Tempo

SEED = load_seed("transformer")
ENDLESS = StepLimit(3600.0, 1.0)


def test_a_step_above_the_limit_ends_the_run_with_a_scored_curve(tiny_task):
    budget = Budget("steps", 200, (Hurdle(100, 0.0),), StepLimit(1e-6, 3.0))
    outcome = evaluate(SEED, tiny_task, budget, seed=1)
    assert (outcome.status, outcome.steps, outcome.hurdles_passed) == ("too_slow", PROBE, 0)
    assert outcome.fitness is None and outcome.step_time_s > 3e-6
    assert [point.steps for point in outcome.curve] == [PROBE]
    assert outcome.val_loss == outcome.curve[0].val_loss
    assert "times the seed program's, more than the 3 that limits.step_time_max" in outcome.reason


def test_a_run_that_cannot_end_in_time_ends_at_once_with_a_scored_curve(tiny_task):
    outcome = evaluate(SEED, tiny_task, Budget("steps", 10**7, time_limit_s=60.0), seed=1)
    assert (outcome.status, outcome.steps, len(outcome.curve)) == ("timed_out", PROBE, 1)
    assert outcome.setup_seconds + outcome.train_seconds < 30
    assert "s, and its time limit is 60 s" in outcome.reason


@pytest.mark.parametrize("objective", ["next_token", "masked"])
def test_limits_that_are_kept_change_no_number(tiny_task, objective):
    training = tiny_task.training.model_copy(update={"objective": objective})
    task = tiny_task.model_copy(update={"training": training})
    plain = evaluate(SEED, task, Budget("steps", 24, (Hurdle(9),)), seed=1)
    limited = Budget("steps", 24, (Hurdle(9),), ENDLESS, 3600.0)
    watched = evaluate(SEED, task, limited, seed=1)
    assert watched.status == "completed"
    assert [p.val_loss for p in watched.curve] == [p.val_loss for p in plain.curve]


def test_seconds_of_training_count_no_less_under_limits(tiny_task):
    outcome = evaluate(SEED, tiny_task, Budget("seconds", 0.3, (), ENDLESS, 3600.0), seed=1)
    assert outcome.status == "completed" and 0.3 <= outcome.train_seconds < 1.5


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.floats(1e-3, 10))
def test_calls_are_the_windows_in_order_and_none_is_long(counts: list[int], pace: float) -> None:
    tempo = Tempo(Budget("steps", 1e6, (), None, 100.0), time.perf_counter())
    windows, seen = np.arange(sum(counts)), []
    for part in np.split(windows, np.cumsum(counts)[:-1]):
        for call in tempo.calls(part):
            before = len(seen)
            seen += call.tolist()
            assert len(call) and not any(before < cut < len(seen) for cut in (WARM, PROBE))
            assert before < PROBE or len(call) == 1 or len(call) * pace <= 0.02 * 100.0 + 1e-9
            tempo.took(len(call), len(call) * pace)
    assert seen == windows.tolist()


def test_a_busy_moment_does_not_make_a_program_slow() -> None:
    tempo = Tempo(Budget("steps", 1000, (), StepLimit(0.01, 3.0)), time.perf_counter())
    tempo.took(WARM, 9.0)
    assert tempo.pace is None and tempo.objection(1.0) is None
    tempo.took(10, 0.2)
    tempo.took(10, 50.0)
    assert tempo.pace == pytest.approx(0.02) and tempo.objection(1.0) is None


def test_short_calls_do_not_make_a_program_slow() -> None:
    """On a GPU a call takes 3 ms beside its steps: of 1 step at 2.5 ms it is no measure of a step.
    Budgets in seconds begin with such calls."""
    tempo = Tempo(Budget("seconds", 8.0, (), StepLimit(0.0025, 2.0)), time.perf_counter())
    for steps in (1, 3, 1, 2, 11, 30):
        tempo.took(steps, 0.003 + 0.0025 * steps)
        assert tempo.objection(1.0) is None, steps
    assert tempo.pace == pytest.approx(0.0026)


def test_slow_steps_are_seen_in_short_calls() -> None:
    tempo = Tempo(Budget("seconds", 8.0, (), StepLimit(0.0025, 2.0)), time.perf_counter())
    tempo.took(WARM, 0.2)
    tempo.took(2, 0.103)
    assert tempo.objection(1.0) is None
    tempo.took(2, 0.103)
    status, reason = tempo.objection(1.0) or ("", "")
    assert status == "too_slow" and "20.6 times" in reason


def test_the_pace_is_judged_against_what_is_left_of_the_time() -> None:
    began = time.perf_counter() - 50
    tempo = Tempo(Budget("steps", 1000, (), None, 100.0), began)
    tempo.took(WARM, 1.0)
    tempo.took(10, 10.0)
    assert tempo.objection(40.0) is None
    status, reason = tempo.objection(50.0) or ("", "")
    assert status == "timed_out" and "all of it would take 100 s" in reason
    assert tempo.objection(0.0) is None, "a run that is at its end has ended in time"
