"""Prunings in the database: what decides one, where it stands, what came out of it.

A row is made when a pruning begins, says now and then how far it is, and holds its table at the
end. What it goes on from after an interruption lies in a folder beside the kept weights.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import delete, insert, select, update

from primitives.language.dna import DNA
from primitives.language.text import render
from search.config.plugins import versions
from search.config.schema import CampaignConfig
from search.errors import NotFoundError
from search.storage.models import Campaign, table_of
from search.storage.models import Pruning as Row
from search.storage.store import Store
from workers.pruning.checkpoint import held
from workers.spec.identity import identity

MEASURES = {"parameters": "of the blocks' parameters", "flops": "of the FLOPs"}
"""What a target is a share of, in words."""

State = Literal["running", "interrupted", "done"]


@dataclass(frozen=True, slots=True)
class Asked:
    """How a model is to be made smaller: a share of what goes, in so many steps (None: as many as
    the model was trained for), with or without other models beside it."""

    measure: str
    share: float
    steps: int | None
    baselines: bool


@dataclass(frozen=True, slots=True)
class Question:
    """A trained program and what is asked of it. `weights` says where its weights come from, in
    full: a digest of a file, or budget and seed of a run."""

    program: str
    dna: DNA
    config: CampaignConfig
    campaign: str | None
    candidate: int | None
    seed: int
    weights: str
    asked: Asked

    @property
    def key(self) -> str:
        """64 hexadecimal digits that depend on all that decides what comes out but the machine."""
        asked = self.asked
        whole = [
            identity(self.config.task.model_dump(mode="json")),
            [dict(each) for each in versions(self.config.plugins)], render(self.dna), self.seed,
            self.weights, asked.measure, asked.share, asked.steps, asked.baselines,
        ]  # fmt: skip
        return blake2b(json.dumps(whole, sort_keys=True).encode(), digest_size=32).hexdigest()

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return files_of(self.config, self.key)


PLACE = ".prunings"
"""The folder of prunings' files, beside the kept weights."""


def files_of(config: CampaignConfig, key: str) -> Path:
    """Where the files of a pruning lie; no campaign's name begins with a dot."""
    return Path(config.weights).absolute() / PLACE / key[:16]


@dataclass(frozen=True, slots=True)
class Kept:
    """A pruning as recorded; `progress` and `result` as its row has them."""

    id: int
    key: str
    program: str
    campaign: str | None
    candidate: int | None
    measure: str
    share: float
    state: State
    progress: Mapping[str, Any]
    result: Mapping[str, Any] | None
    started_at: float
    finished_at: float | None
    folder: Path

    @property
    def target(self) -> str:
        return f"{self.share:.1%} {MEASURES[self.measure]}"

    @property
    def record(self) -> dict[str, Any]:
        """What lists show of it."""
        rows = {row["model"]: row for row in (self.result or {}).get("table", ())}
        pruned = rows.get("pruned", {})
        return {
            "id": self.id,
            "program": self.program,
            "target": self.target,
            "state": self.state,
            "phase": self.progress.get("phase"),
            "steps": self.progress.get("done"),
            "of": self.progress.get("total"),
            "gone": (self.result or {}).get("share_gone"),
            "params": pruned.get("parameters"),
            "whole_bpb": rows.get("whole", {}).get("test_bpb"),
            "test_bpb": pruned.get("test_bpb"),
            "speedup_batch_1": pruned.get("speedup_batch_1"),
            "speedup_batch_32": pruned.get("speedup_batch_32"),
            "campaign": self.campaign,
            "candidate": self.candidate,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
        }


def begun(store: Store, question: Question) -> int:
    """The number of the question's row; a new one where it is asked for the first time."""
    number = store.campaign(question.campaign).id if question.campaign else None
    table = table_of(Row)
    same = table.c.campaign_id.is_(None) if number is None else table.c.campaign_id == number
    statement = select(table.c.id).where(same, table.c.key == question.key)
    with store.reading() as connection:
        found = connection.execute(statement).scalars().first()
    if found is not None:
        return int(found)
    row = {
        "key": question.key,
        "program": question.program[:200],
        "campaign_id": number,
        "candidate_id": question.candidate,
        "task": question.config.task.model_dump_json(),
        "dna": render(question.dna),
        "seed": question.seed,
        "measure": question.asked.measure,
        "share": question.asked.share,
        "folder": str(question.folder),
        "started_at": time.time(),
    }
    with store.writing() as connection:
        return int(connection.execute(insert(Row).returning(Row.id), row).scalar_one())


def note(store: Store, id: int, progress: Mapping[str, Any]) -> None:
    """Leaves how far it is for other processes to show."""
    _update(store, id, progress=dict(progress))


def finish(store: Store, id: int, result: Mapping[str, Any]) -> None:
    """Records what came out."""
    _update(store, id, result=dict(result), finished_at=time.time())


def prunings(store: Store, campaign: str | None = None, candidate: int | None = None) -> list[Kept]:
    """Every pruning, or those of a campaign's candidate, in the order of their beginning."""
    table, campaigns = table_of(Row), table_of(Campaign)
    columns = [column for column in table.columns if column.name not in ("task", "dna")]
    statement = select(*columns, campaigns.c.name).outerjoin(
        campaigns, campaigns.c.id == table.c.campaign_id
    )
    if campaign is not None:
        statement = statement.where(campaigns.c.name == campaign, table.c.candidate_id == candidate)
    with store.reading() as connection:
        rows = connection.execute(statement.order_by(table.c.id)).all()
    return [_kept(row) for row in rows]


def pruning(store: Store, id: int) -> Kept:
    """One of them; a NotFoundError where there is none of that number."""
    found = prunings(store)
    for each in found:
        if each.id == id:
            return each
    known = ", ".join(str(each.id) for each in found[-10:]) or "none yet"
    raise NotFoundError(f"no pruning {id}; there are: {known}")


def forget(store: Store, kept: Kept) -> None:
    """Deletes the row, and the files that it would go on from."""
    with store.writing() as connection:
        connection.execute(delete(Row).where(Row.id == kept.id))
    if _is_ours(kept):
        shutil.rmtree(kept.folder, ignore_errors=True)


def _is_ours(kept: Kept) -> bool:
    """Whether the folder is one that `files_of` names: what a row says of paths is not believed."""
    folder = kept.folder
    named = re.fullmatch(r"[0-9a-f]{16}", folder.name) and kept.key.startswith(folder.name)
    return bool(named) and folder.parent.name == PLACE and ".." not in folder.parts


def _kept(row: Any) -> Kept:
    state: State = "running" if held(Path(row.folder)) else "interrupted"
    return Kept(
        row.id, row.key, row.program, row.name, row.candidate_id, row.measure, row.share,
        "done" if row.finished_at is not None else state, row.progress or {}, row.result,
        row.started_at, row.finished_at, Path(row.folder),
    )  # fmt: skip


def _update(store: Store, id: int, **values: object) -> None:
    with store.writing() as connection:
        connection.execute(update(Row).where(Row.id == id).values(values))
