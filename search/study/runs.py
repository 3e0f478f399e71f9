"""Runs in the database, found by what decides them: those of studies, and a campaign's final runs.

A run that crashed or was killed for its time is not kept, as that tells of the machine: it is tried
again. Whoever records a run twice records it once.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from search.storage.database import StoreError
from search.storage.events import finite
from search.storage.models import Campaign, Candidate, Evaluation, StudyRun
from search.storage.store import Store
from search.study.setting import Setting
from workers.spec.identity import identity
from workers.spec.outcome import Measurement, Outcome, Report

ACCIDENTS = ("crashed", "timed_out")
"""Outcomes that are not kept."""

Trial = tuple[str, int]
"""A run in a study: the program's canonical hash and the seed."""


def known(store: Store, setting: Setting, trials: Iterable[Trial]) -> dict[Trial, Outcome]:
    """Outcomes of those trials that were run before under this setting."""
    wanted = {setting.key(*trial): trial for trial in trials}
    with store.understanding():
        found = {wanted[key]: outcome for key, outcome in _kept(store, list(wanted))}
        if not setting.budget.points:  # with points, curves count: final runs have other ones
            missing = {trial for trial in wanted.values() if trial not in found}
            found |= _finals(store, setting, missing)
    return found


def keep(store: Store, study: str, setting: Setting, trial: Trial, report: Report) -> None:
    """Records a run for good, unless it ended by an accident."""
    outcome = report.outcome
    if outcome.status in ACCIDENTS:
        return
    row = {
        "key": setting.key(*trial),
        "study": study[:200],
        "task": setting.task.model_dump_json(),
        "hash": trial[0],
        "dna": report.job.dna,
        "seed": trial[1],
        "unit": setting.budget.unit,
        "amount": setting.budget.amount,
        "outcome": outcome.status,
        "val_loss": finite(outcome.val_loss),
        "result": _plain(outcome),
        "worker": report.worker,
        "finished_at": time.time(),
    }
    try:
        with store.writing() as connection:
            connection.execute(insert(StudyRun), row)
    except StoreError as error:
        if not isinstance(error.__cause__, IntegrityError):  # another process was first
            raise


def _kept(store: Store, keys: list[str]) -> list[tuple[str, Outcome]]:
    found: list[tuple[str, Outcome]] = []
    with store.reading() as connection:
        for start in range(0, len(keys), 500):  # databases bound the length of a list
            statement = select(StudyRun.key, StudyRun.result).where(
                StudyRun.key.in_(keys[start : start + 500])
            )
            rows = connection.execute(statement).tuples().all()
            found += [(key, _outcome(result)) for key, result in rows]
    return found


def _plain(outcome: Outcome) -> dict[str, Any]:
    """The outcome as JSON data: what is not finite is null."""
    made = asdict(outcome)
    made["metrics"] = {name: finite(value) for name, value in outcome.metrics.items()}
    made["curve"] = [
        [point.steps, point.tokens, finite(point.train_seconds), finite(point.val_loss)]
        for point in outcome.curve
    ]
    return {
        name: finite(value) if isinstance(value, float) else value for name, value in made.items()
    }


def _outcome(result: Mapping[str, Any]) -> Outcome:
    values = {field.name: result[field.name] for field in fields(Outcome) if field.name in result}
    values["experts"] = tuple(result.get("experts") or ())  # earlier versions had none
    values["training"] = _training(result.get("training"))
    values["curve"] = _curve(result["curve"])
    values["metrics"] = _measured(result["metrics"])
    return Outcome(**values)


def _training(points: Iterable[Any] | None) -> tuple[tuple[int, float], ...]:
    """Losses of training as they are stored; earlier versions had none."""
    return tuple((at, math.nan if loss is None else loss) for at, loss in points or ())


def _curve(points: Iterable[Any]) -> tuple[Measurement, ...]:
    return tuple(
        Measurement(steps, tokens, seconds or 0.0, loss)
        for steps, tokens, seconds, loss in points
        if loss is not None
    )


def _measured(metrics: Mapping[str, float | None] | None) -> dict[str, float]:
    return {name: value for name, value in (metrics or {}).items() if value is not None}


def _finals(store: Store, setting: Setting, trials: Iterable[Trial]) -> dict[Trial, Outcome]:
    """Final runs of campaigns on the same task, with the same plug-ins and budget."""
    trials, budget = set(trials), setting.budget
    if not trials:
        return {}
    statement = (
        select(Candidate.hash, Campaign.config, Campaign.plugins, Evaluation)
        .join(
            Candidate,
            (Candidate.campaign_id == Evaluation.campaign_id)
            & (Candidate.id == Evaluation.candidate_id),
        )
        .join(Campaign, Campaign.id == Evaluation.campaign_id)
        .where(
            Candidate.hash.in_({hash for hash, _ in trials}),
            Evaluation.kind == "final",
            Evaluation.seed.in_({seed for _, seed in trials}),
            Evaluation.unit == budget.unit,
            Evaluation.amount == budget.amount,
            Evaluation.outcome.not_in(ACCIDENTS),
        )
    )
    with store.reading() as connection:
        rows = connection.execute(statement.with_only_columns(
            Candidate.hash, Campaign.config, Campaign.plugins, *Evaluation.__table__.columns
        )).all()  # fmt: skip
    task = identity(setting.task.model_dump(mode="json"))
    plugins = [dict(one) for one in setting.plugins]
    return {
        (row.hash, row.seed): _evaluated(row)
        for row in rows
        if (row.hash, row.seed) in trials
        and identity(json.loads(row.config).get("task") or {}) == task
        and (row.plugins or []) == plugins
    }


def _evaluated(row: Any) -> Outcome:
    """The outcome that a row of evaluations holds."""
    apart = {"status", "curve", "metrics", "experts", "training"}
    names = {field.name for field in fields(Outcome)} - apart
    values = {name: getattr(row, name) for name in names}
    return Outcome(
        row.outcome, curve=_curve(row.curve), metrics=_measured(row.metrics),
        experts=tuple(row.experts or ()), training=_training(row.training), **values,
    )  # fmt: skip
