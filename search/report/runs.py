"""A campaign's training runs as trackers of experiments know them: settings, curves, scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import and_, or_, select

from search.campaign.progress import reach_of
from search.campaign.standing import standing
from search.config.plugins import stored_config
from search.errors import UsageError
from search.report.queries import Point
from search.storage.models import Candidate, Evaluation
from search.storage.store import Store
from workers.spec.metrics import METRICS, by_task

Setting = str | int | float


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """One training run that has ended. It is recorded once and never changes.

    Attributes:
        name: The run's name in its campaign, such as `00031-search` or `00031-final-1`.
        key: What tells it from every other run: campaign, time of launch, candidate, kind, seed.
        settings: What was decided before it began, and how it ended, by name.
        scores: Every metric that was measured, by its name in METRICS.
        points: The validation loss along training.
        finished_at: Seconds since the epoch.
        seconds: What the run took, training and all else.
        program: The candidate's program as text.
    """

    name: str
    key: str
    settings: Mapping[str, Setting]
    scores: Mapping[str, float]
    points: tuple[Point, ...]
    finished_at: float
    seconds: float
    program: str

    @property
    def completed(self) -> bool:
        return self.settings["outcome"] == "completed"


def tracked_runs(store: Store, name: str, hurdle: int = 0) -> Iterator[TrackedRun]:
    """The runs of the search that went over at least `hurdle` hurdles, and all final ones, in the
    order of recording. Duplicates, which were not trained, are left out, and so are paused
    candidates: what is told of a run once is not told again. Raises NotFoundError where there is no
    such campaign, UsageError where it has fewer hurdles."""
    campaign = store.campaign(name)
    spec = stored_config(campaign.config, name).search
    budget, most = spec.budget, spec.budget.hurdles
    if hurdle > most:
        raise UsageError(f"--hurdle {hurdle}: campaign '{name}' has {most}; allowed: 0 to {most}")
    statement = (
        select(Evaluation.__table__, Candidate.parent_id, Candidate.mutation, Candidate.hash,
               Candidate.dna)
        .join_from(
            Evaluation,
            Candidate,
            and_(
                Candidate.campaign_id == Evaluation.campaign_id,
                Candidate.id == Evaluation.candidate_id,
            ),
        )
        .where(
            Evaluation.campaign_id == campaign.id,
            Evaluation.worker.is_not(None),
            Evaluation.kind.in_(("search", "final")),
            or_(Evaluation.kind == "final", Evaluation.hurdles_passed >= hurdle),
        )
        .order_by(Evaluation.sequence)
    )  # fmt: skip
    phase = standing(store, campaign.id, spec)[0].phase
    with store.reading() as connection:
        rows = connection.execute(statement).mappings().all()
    finals: dict[int, int] = {}
    for row in rows:
        id, kind = row["candidate_id"], row["kind"]
        reach = reach_of(row["hurdles_passed"], budget, phase)
        if row["outcome"] == "completed" and kind == "search" and reach == "paused at a hurdle":
            continue
        if kind == "final":
            finals[id] = finals.get(id, 0) + 1
        label = f"{id:05}-{kind}" + (f"-{finals[id]}" if kind == "final" else "")
        key = f"{name}/{campaign.created_at:.3f}/{id}/{kind}/{row['seed']}"
        yield _tracked(dict(row), label, key)


def _tracked(row: Mapping[str, object], name: str, key: str) -> TrackedRun:
    decided = (
        "candidate_id", "parent_id", "mutation", "kind", "seed", "unit", "amount", "outcome",
        "reason", "hurdles_passed", "hash", "worker", "device",
    )  # fmt: skip
    known = {field.removesuffix("_id"): row[field] for field in decided}
    own = row["metrics"] or {}
    assert isinstance(own, Mapping)
    measured = {
        metric: line.formed(_number(row[line.column])) if line.column else _number(own.get(metric))
        for metric, line in METRICS.items()
    } | {name: _number(value) for name, value in by_task(own).items()}
    curve = row["curve"]
    assert isinstance(curve, list)
    return TrackedRun(
        name=name,
        key=key,
        settings={
            field: value
            for field, value in known.items()
            if isinstance(value, str | int | float) and value != ""
        },
        scores={metric: value for metric, value in measured.items() if value is not None},
        points=tuple(Point._make(point) for point in curve),
        finished_at=_number(row["finished_at"]) or 0.0,
        seconds=(_number(row["train_seconds"]) or 0.0) + (_number(row["setup_seconds"]) or 0.0),
        program=str(row["dna"]),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
