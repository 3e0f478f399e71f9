"""Programs against the first of them, at equal budget and at equal quality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from search.report.verdict import Comparison, Interval, mean_interval
from search.study.speed import SpeedUp, speed_up
from search.study.study import Runs, Study, Subject, completed
from workers.spec.metrics import METRICS
from workers.spec.outcome import Outcome

SCORES = ("test_bpb", "test_loss", "val_bpb", "val_loss")
"""What programs are compared by: the first of these that every completed run has."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One program: `mean` of its score with a 95 % interval; `against` the first program, paired by
    seed (None for that one itself); how fast it reached that one's loss."""

    subject: Subject
    runs: Runs
    mean: Interval | None
    against: Comparison | None
    speed: SpeedUp | None

    def metric(self, name: str) -> float | None:
        """The mean of a metric over the completed runs."""
        values = [METRICS[name].of(outcome) for _, outcome in completed(self.runs)]
        known = [value for value in values if value is not None]
        return fmean(known) if known else None


@dataclass(frozen=True, slots=True)
class Compared:
    """A study of several programs. `score` is the metric that `standings` are about; the first of
    them is the baseline."""

    score: str
    standings: tuple[Standing, ...]

    @property
    def unit(self) -> str:
        return METRICS[self.score].unit


def compare(study: Study, subjects: Sequence[Subject]) -> Compared:
    """Trains what was not trained before, and compares with the first subject."""
    runs = study.run(subjects)
    score = common_score(runs)
    baseline = runs[0]
    standings = [
        Standing(
            subject,
            own,
            mean_interval(_values(own, score)),
            None if place == 0 else paired(own, baseline, score),
            None if place == 0 else speed_up(own, baseline),
        )
        for place, (subject, own) in enumerate(zip(subjects, runs, strict=True))
    ]
    return Compared(score, tuple(standings))


def common_score(runs: Sequence[Runs]) -> str:
    """The score that all completed runs have."""
    done = [outcome for own in runs for _, outcome in completed(own)]
    return next(
        (name for name in SCORES if all(METRICS[name].of(each) is not None for each in done)),
        SCORES[-1],
    )


def paired(runs: Runs, baseline: Runs, score: str) -> Comparison:
    """The differences, program minus baseline, of runs that have one seed: which text and which
    initial weights a seed draws counts the same on both sides. Seeds where either run has no score
    are left out."""
    value = METRICS[score].of
    differences = [
        own - base
        for seed, outcome in completed(runs)
        if (own := value(outcome)) is not None
        and seed in baseline
        and baseline[seed].status == "completed"
        and (base := value(baseline[seed])) is not None
    ]
    return Comparison(mean_interval(differences), len(differences), len(differences))


def records(compared: Compared) -> list[dict[str, Any]]:
    """A record for each program, as `compare -o json` and `-o csv` give it. Intervals are of 95 %;
    None where they have no end (a single run)."""
    return [_record(each, compared.score) for each in compared.standings]


def _record(standing: Standing, score: str) -> dict[str, Any]:
    done = len(list(completed(standing.runs)))
    against, speed = standing.against, standing.speed
    return {
        "program": standing.subject.title,
        "hash": standing.subject.hash,
        "runs": done,
        "failed": [each.status for each in standing.runs.values() if each.status != "completed"],
        "score": score,
        **ends("mean", standing.mean),
        **ends("difference", against.difference if against else None),
        "verdict": against.word if against else None,
        **ends("speedup_flops", speed.flops if speed else None),
        **ends("speedup_seconds", speed.seconds if speed else None),
        "seconds_to_reach": speed.seconds_to_reach if speed else None,
        "reached": f"{speed.reached} of {speed.pairs}" if speed else None,
        **{name: standing.metric(name) for name in _MEANS},
        **{name: _static(standing, METRICS[name].of) for name in _STATIC},
    }


_MEANS = ("val_loss", "val_bpb", "test_loss", "test_bpb", "step_time_s", "train_seconds")
_STATIC = ("params", "active_params", "flops_per_token")


def _static(standing: Standing, of: Callable[[Outcome], float | None]) -> float | None:
    """What is the same in all runs."""
    return next((of(outcome) for _, outcome in completed(standing.runs)), None)


def ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    """A record's fields for an interval; its ends are None where they are not finite."""
    if interval is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    finite = abs(interval.high) != float("inf")
    return {
        name: interval.centre,
        f"{name}_low": interval.low if finite else None,
        f"{name}_high": interval.high if finite else None,
    }


def _values(runs: Runs, score: str) -> list[float]:
    values = (METRICS[score].of(outcome) for _, outcome in completed(runs))
    return [value for value in values if value is not None]
