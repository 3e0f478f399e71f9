"""A metric of a plug-in: one row, and it is measured, recorded, shown and ranked by."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.campaign import queries
from search.cli import running
from tests.cli.command import CONFIG, data, primevo, refusal
from tests.cli.instant import InstantPool
from workers.spec.metrics import METRICS, Metric, Run, measured
from workers.spec.outcome import Job, Outcome
from workers.spec.pool import PoolSpec
from workers.spec.task import Task

TINY = CONFIG.replace(
    "d_model: 32, layers: 1", "d_model: 8, layers: 1, sequence_length: 8"
).replace(
    "task:",
    "task:\n  data: {max_documents: 40}\n  training: {batch_size: 2, eval_batches: 1}",
)
SHORT = (
    "--set",
    "search.candidates=4",
    "--set",
    "search.final.top=0",
    "--set",
    "search.budget.base=2",
)


class TrainingPool(InstantPool):
    """Trains in this process, as a worker does in its own."""

    def __init__(self, task: Task, spec: PoolSpec, **other: Any) -> None:
        from workers.training.evaluate import run_job

        super().__init__(task, spec, **other)

        def outcome(job: Job) -> Outcome:
            return run_job(job, task)

        self._outcome = outcome


def nodes(run: Run) -> float | None:
    return len(run.graph.nodes)


def last_step(run: Run) -> float | None:
    return run.curve[-1].steps / 2 if run.engine is not None else None


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a trained campaign `tiny`, measured by a plug-in's metrics as well."""
    METRICS.register(
        Metric(
            "graph_nodes",
            "nodes",
            "higher",
            "nodes of the graph",
            "static",
            measure=nodes,
            listed=True,
        )
    )
    METRICS.register(
        Metric("half_steps", "steps", "none", "half the steps", "training", measure=last_step)
    )
    METRICS.register(
        Metric("broken", "", "lower", "no number", "training", measure=lambda run: float("nan"))
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    monkeypatch.setattr(running, "Pool", TrainingPool)
    (tmp_path / "tiny.yaml").write_text(TINY)
    primevo("launch", "tiny.yaml", *SHORT)
    yield tmp_path
    for name in ("graph_nodes", "half_steps", "broken"):
        del METRICS[name]


def test_a_row_is_all_that_a_metric_takes(campaign: Path) -> None:
    kept = sqlite3.connect(campaign / "primevo.db").execute("SELECT metrics FROM evaluations")
    assert all(set(json.loads(text)) >= {"graph_nodes", "half_steps"} for (text,) in kept)
    shown = data("show", "tiny", 1)
    assert shown["graph_nodes"] > 10 and isinstance(shown["graph_nodes"], int)
    assert (shown["half_steps"], shown["steps"]) == (3.0, 6)
    assert shown["broken"] is None
    assert f"graph_nodes               {shown['graph_nodes']}" in primevo("show", "tiny", 1).stdout
    ranked = [record["graph_nodes"] for record in data("top", "tiny", "--by", "graph_nodes")]
    assert ranked == sorted(ranked, reverse=True) and len(ranked) > 1
    assert "graph_nodes" in primevo("top", "tiny").stdout
    assert "half_steps" not in primevo("top", "tiny").stdout
    assert "half_steps" in primevo("top", "tiny", "--by", "half_steps").stdout
    assert data("top", "tiny", "--by", "broken") == []
    assert "graph_nodes" in refusal(2, "top", "tiny", "--by", "graph_node")
    trained = data(
        "evaluate", "--seed-program", "transformer", "--config", "tiny.yaml", "--seeds", 2, *SHORT
    )
    assert [run["graph_nodes"] for run in trained["runs"]] == [shown["graph_nodes"]] * 2
    assert trained["half_steps"] == {"mean": 3.0, "sd": 0.0}
    assert "graph_nodes" not in trained, "static cost has no spread over runs"


def test_a_metric_that_fails_is_named() -> None:
    from workers.pool.worker import one_line

    METRICS.register(Metric("odd", "-", "none", "-", "static", measure=lambda run: run.nothing))  # type: ignore[attr-defined]
    try:
        with pytest.raises(AttributeError) as caught:
            cost = SimpleNamespace(activation_bytes=1, bytes_per_token=1)
            measured(SimpleNamespace(cost=cost, usage={}, tested={}))  # type: ignore[arg-type]
    finally:
        del METRICS["odd"]
    assert "while the metric 'odd' was measured" in one_line(caught.value)


def test_every_metric_says_what_it_is() -> None:
    for name, row in METRICS.items():
        assert row.name == name and row.meaning and row.unit
        assert row.better in ("lower", "higher", "none")
        assert (row.column is None) == (row.measure is not None)


def test_top_ranks_by_what_is_better(
    finished: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished[0])
    for name, row in METRICS.items():
        if row.where != "test":
            values = [record[name] for record in data("top", "small", "--by", name)]
            assert values == sorted(values, reverse=row.better == "higher")
    assert "val_perplexity" in queries.sort_fields() and "test_loss" not in queries.sort_fields()


def equal_to_two(**values: Any) -> list[str]:
    return [name for name, row in METRICS.items() if row.of(Outcome("completed", **values)) == 2.0]


def test_a_metric_is_read_from_an_outcome() -> None:
    assert equal_to_two(val_loss=2.0) == ["val_loss"]
    assert METRICS["val_perplexity"].of(Outcome("completed", val_loss=0.0)) == 1.0
    assert METRICS["val_perplexity"].of(Outcome("diverged")) is None
    assert METRICS["experts_used"].of(Outcome("completed", metrics={"experts_used": 0.5})) == 0.5
