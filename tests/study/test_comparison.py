"""Comparisons with a known answer: paired intervals, and the speed-up factor."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from primitives.language.text import parse
from search.report.verdict import Interval
from search.study import comparison
from search.study.charts import figure
from search.study.comparison import compare, paired
from search.study.setting import setting
from search.study.speed import reach, speed_up
from search.study.study import Subject
from tests.study.known import (
    NEUTRAL,
    SEED,
    SINE,
    SQUARED,
    START,
    answer,
    exact,
    small_config,
    study,
)
from workers.spec.outcome import Job, Measurement, Outcome


def made(*texts: str, rule: object = answer, points: int = 10) -> comparison.Compared:
    shared = setting(small_config(), 3, points=points)
    one, _ = study(None, rule, shared=shared)  # type: ignore[arg-type]
    names = ("seed", "squared", "neutral", "sine")
    return compare(
        one, [Subject.of(n, parse(t, d_model=64), shared) for n, t in zip(names, texts)]  # noqa: B905
    )  # fmt: skip


def test_pairing_finds_what_seeds_would_hide() -> None:
    """A seed's noise, as large as the gain, is the same for both: the paired interval is narrow."""
    found = made(SEED, SQUARED, NEUTRAL, SINE).standings
    words = [each.against.word for each in found if each.against]
    assert words == ["better", "better", "better"]
    gain = found[1].against
    assert gain is not None and gain.difference is not None
    assert gain.difference.centre == pytest.approx(-0.3 * 1.4427, abs=0.003)
    assert gain.difference.high - gain.difference.low < 0.01
    mean = found[1].mean
    assert mean is not None and mean.high - mean.low > 0.1


def test_the_interval_is_students_of_the_differences() -> None:
    a = [3.0, 3.2, 3.1, 3.4]
    b = [3.1, 3.25, 3.3, 3.35]
    runs = [
        {seed: Outcome("completed", val_loss=loss) for seed, loss in enumerate(losses)}
        for losses in (a, b)
    ]
    found = paired(runs[0], runs[1], "val_loss").difference
    assert found is not None
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_failed_run_leaves_its_pair_out() -> None:
    good = {seed: Outcome("completed", val_loss=3.0 + seed) for seed in range(3)}
    bad = {**good, 1: Outcome("diverged", val_loss=9.0)}
    found = paired(good, bad, "val_loss")
    assert found.runs == 2 and found.difference is not None and found.difference.centre == 0.0
    assert paired(good, {}, "val_loss").difference is None


def test_the_speed_up_is_the_share_of_compute_that_is_needed() -> None:
    """Without noise: losses fall in a line from 6 to 4 and to 3.7, so 4 is reached after 2/2.3."""
    found = made(SEED, SQUARED, rule=exact).standings[1].speed
    assert found is not None and found.flops is not None and found.seconds is not None
    assert found.flops.centre == pytest.approx((START - 3.7) / (START - 4.0))
    assert found.seconds.centre == pytest.approx(found.flops.centre)
    assert found.seconds_to_reach == pytest.approx(1.0 / found.seconds.centre)


def test_what_never_gets_there_has_no_factor() -> None:
    found = made(SQUARED, SEED, rule=exact).standings[1].speed
    assert found is not None and (found.reached, found.pairs) == (0, 3)
    assert found.flops is None and found.seconds_to_reach is None


def test_flops_count_the_programs_own() -> None:
    def dear(job: Job) -> Outcome:
        outcome = exact(job)
        return replace(outcome, flops_per_token=200) if "SQUARE" in job.dna else outcome

    found = made(SEED, SQUARED, rule=dear).standings[1].speed
    assert found is not None and found.flops is not None and found.seconds is not None
    assert found.flops.centre == pytest.approx(found.seconds.centre / 2)


def test_reaching_a_loss() -> None:
    curve = tuple(Measurement(at, at * 10, float(at), loss) for at, loss in ((1, 5.0), (3, 3.0)))
    outcome = Outcome("completed", val_loss=3.0, curve=curve)
    middle = reach(outcome, 4.0)
    assert middle is not None and (middle.tokens, middle.seconds) == (20.0, 2.0)
    early = reach(outcome, 9.0)
    assert early is not None and early.tokens == 10
    assert reach(outcome, 2.0) is None
    assert speed_up({0: outcome}, {0: outcome}).reached == 1


def test_records_and_charts_say_the_same(tmp_path: Path) -> None:
    found = made(SEED, SQUARED)
    base, row = comparison.records(found)
    assert (base["difference"], base["verdict"], row["verdict"]) == (None, None, "better")
    assert base["reached"] is None and base["speedup_flops"] is None
    assert row["runs"] == 3 and row["reached"] == "3 of 3" and row["failed"] == []
    drawn = figure(found)
    assert {trace.name for trace in drawn.data if trace.name} == {"seed", "squared"}
    means = [trace.x[0] for trace in drawn.data if trace.error_x.array is not None]
    assert means == [pytest.approx(base["mean"]), pytest.approx(row["mean"])]


def test_an_interval_without_ends_has_none_in_a_record() -> None:
    made = comparison.ends("mean", Interval(1.0, -math.inf, math.inf))
    assert made == {"mean": 1.0, "mean_low": None, "mean_high": None}
    made = comparison.ends("mean", Interval(1.0, 0.5, 1.5))
    assert made == {"mean": 1.0, "mean_low": 0.5, "mean_high": 1.5}
