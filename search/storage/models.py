"""The database: campaigns, their candidates, and what training them gave; runs of studies;
prunings.

Only the controller of a campaign writes its rows; they are added, never changed, except for the
campaign's own (stop flag, heartbeat, versions, end), and for the kind of a paused run that went
on. All of a campaign's rows go when it is deleted. Runs of studies belong to no campaign. A
pruning's row is written by the process that prunes. Times are seconds since the epoch, UTC. A
change here needs a migration beside it (a test compares the two).
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

BigKey = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Constraint names are fixed, so that later migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )


def table_of(model: type[Base]) -> Table:
    """The model's table, for statements that name its columns one by one."""
    table = model.__table__
    assert isinstance(table, Table)
    return table


class Campaign(Base):
    """`config` is the checked config as JSON, `plugins` the name and version of each of its
    plug-ins, null in campaigns of the first versions. `stop_requested` asks the controller to
    drain; `heartbeat` is what it last said (search.storage.events.Heartbeat). `versions` holds an
    entry for each version of the code and its settings that proposed candidates, with the first of
    these (search.campaign.version); it is null in campaigns of the first versions."""

    __tablename__ = "campaigns"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    config: Mapped[str] = mapped_column(Text)
    seed: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[float] = mapped_column(Float)
    finished_at: Mapped[float | None] = mapped_column(Float)
    stop_requested: Mapped[bool] = mapped_column(default=False)
    heartbeat: Mapped[dict[str, object] | None] = mapped_column(JSON(none_as_null=True))
    plugins: Mapped[list[dict[str, str]] | None] = mapped_column(JSON(none_as_null=True))
    versions: Mapped[list[dict[str, object]] | None] = mapped_column(JSON(none_as_null=True))


class Candidate(Base):
    """A program that passed the gates, or a seed program (no parent). `id` counts from 1 in its
    campaign. `duplicate_of` is the earlier candidate with the same canonical graph, or that does
    the same on fixed inputs, whose outcome this one took over. `rejections` counts, by reason, the
    children refused before this one.
    `endings` is how many evaluations the campaign had when this one was proposed; it is null in
    rows of the first versions. `behaviour` is the digest of what it does, null for duplicates and
    where it was not asked or cannot be told."""

    __tablename__ = "candidates"
    __table_args__ = (
        ForeignKeyConstraint(
            ["campaign_id", "parent_id"], ["candidates.campaign_id", "candidates.id"]
        ),
        ForeignKeyConstraint(
            ["campaign_id", "duplicate_of"],
            ["candidates.campaign_id", "candidates.id"],
            name="fk_candidates_duplicate_of",
        ),
    )

    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"), primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent_id: Mapped[int | None]
    mutation: Mapped[str] = mapped_column(String(40))
    hash: Mapped[str] = mapped_column(String(64))
    duplicate_of: Mapped[int | None]
    rejections: Mapped[dict[str, int]] = mapped_column(JSON)
    endings: Mapped[int | None]
    behaviour: Mapped[str | None] = mapped_column(String(32))
    dna: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Float)


class Evaluation(Base):
    """One training run that has ended, or a copy of one for a duplicate (`worker` is null).

    `sequence` counts from 1 in its campaign, in order of recording, which is the age order of the
    population. `kind` is search or final. A run of the search that is paused and goes on has a row
    for each stage: the last one is of kind search, that of the stage which ended at hurdle k (from
    1) of kind "band k" (search.storage.events.stage); each tells of the run up to there. `hurdles`
    holds [at, threshold] pairs as they were given, `curve` [steps, tokens, train_seconds, val_loss]
    for each point that was scored, `metrics` the values by name of those metrics
    (workers.spec.metrics) that have no column of their own; it is null in rows of the first
    versions, which had none. `experts` says what the experts of a final run are for
    (workers.training.specialties); null where no call is routed, and in rows of earlier versions.
    `training` holds [steps, mean training loss of the steps since the point before]; null in rows
    of earlier versions. `device` is what trained; null in rows of earlier versions.
    """

    __tablename__ = "evaluations"
    __table_args__ = (
        ForeignKeyConstraint(
            ["campaign_id", "candidate_id"], ["candidates.campaign_id", "candidates.id"]
        ),
        UniqueConstraint("campaign_id", "candidate_id", "kind", "seed", name="uq_evaluations_run"),
        Index("ix_evaluations_rank", "campaign_id", "kind", "outcome", "val_loss"),
    )

    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    candidate_id: Mapped[int]
    kind: Mapped[str] = mapped_column(String(8))
    seed: Mapped[int] = mapped_column(BigInteger)
    unit: Mapped[str] = mapped_column(String(8))
    amount: Mapped[float] = mapped_column(Float)
    hurdles: Mapped[list[list[float | None]]] = mapped_column(JSON)
    hurdles_passed: Mapped[int]
    outcome: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    val_loss: Mapped[float | None] = mapped_column(Float)
    val_bpb: Mapped[float | None] = mapped_column(Float)
    test_loss: Mapped[float | None] = mapped_column(Float)
    test_bpb: Mapped[float | None] = mapped_column(Float)
    params: Mapped[int | None] = mapped_column(BigInteger)
    active_params: Mapped[int | None] = mapped_column(BigInteger)
    flops_per_token: Mapped[int | None] = mapped_column(BigInteger)
    step_time_s: Mapped[float | None] = mapped_column(Float)
    steps: Mapped[int] = mapped_column(BigInteger)
    tokens: Mapped[int] = mapped_column(BigInteger)
    train_seconds: Mapped[float] = mapped_column(Float)
    setup_seconds: Mapped[float] = mapped_column(Float)
    curve: Mapped[list[list[float | None]]] = mapped_column(JSON)
    metrics: Mapped[dict[str, float | None] | None] = mapped_column(JSON(none_as_null=True))
    experts: Mapped[list[dict[str, object]] | None] = mapped_column(JSON(none_as_null=True))
    training: Mapped[list[list[float | None]] | None] = mapped_column(JSON(none_as_null=True))
    device: Mapped[str | None] = mapped_column(String(200))
    worker: Mapped[str | None] = mapped_column(String(200))
    finished_at: Mapped[float] = mapped_column(Float)


class StudyRun(Base):
    """One training run outside a campaign, for comparing programs. It is found by what decides it:
    `key` is a digest of task, plug-ins, budget, points at which it was scored, program and seed
    (search.study.runs). `study` says what it was first made for. `result` is the whole outcome;
    `val_loss` stands apart for people who look with SQL."""

    __tablename__ = "study_runs"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    study: Mapped[str] = mapped_column(String(200))
    task: Mapped[str] = mapped_column(Text)
    hash: Mapped[str] = mapped_column(String(64))
    dna: Mapped[str] = mapped_column(Text)
    seed: Mapped[int] = mapped_column(BigInteger)
    unit: Mapped[str] = mapped_column(String(8))
    amount: Mapped[float] = mapped_column(Float)
    outcome: Mapped[str] = mapped_column(String(16))
    val_loss: Mapped[float | None] = mapped_column(Float)
    result: Mapped[dict[str, object]] = mapped_column(JSON)
    worker: Mapped[str] = mapped_column(String(200))
    finished_at: Mapped[float] = mapped_column(Float)


class Pruning(Base):
    """A trained model made smaller, or on its way there. `key` is a digest of what decides it
    (search.study.prunings); a campaign and the programs from outside have each key once. Campaign
    and candidate are null for a program from outside, `program` is its title. `folder` has the
    files that it goes on from, `progress` is what the process last said of it
    (workers.pruning.pruning.Progress), `result` the card's entry `pruned`, null until it has
    ended."""

    __tablename__ = "prunings"
    __table_args__ = (
        ForeignKeyConstraint(
            ["campaign_id", "candidate_id"], ["candidates.campaign_id", "candidates.id"]
        ),
        Index("ix_prunings_key", "key"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64))
    program: Mapped[str] = mapped_column(String(200))
    campaign_id: Mapped[int | None]
    candidate_id: Mapped[int | None]
    task: Mapped[str] = mapped_column(Text)
    dna: Mapped[str] = mapped_column(Text)
    seed: Mapped[int] = mapped_column(BigInteger)
    measure: Mapped[str] = mapped_column(String(16))
    share: Mapped[float] = mapped_column(Float)
    folder: Mapped[str] = mapped_column(Text)
    progress: Mapped[dict[str, object] | None] = mapped_column(JSON(none_as_null=True))
    result: Mapped[dict[str, object] | None] = mapped_column(JSON(none_as_null=True))
    started_at: Mapped[float] = mapped_column(Float)
    finished_at: Mapped[float | None] = mapped_column(Float)
