"""The database: what is recorded is read back."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event

from search.campaign import queries
from search.errors import NotFoundError, UsageError
from search.report.queries import curves
from search.storage.address import StoreError
from search.storage.events import Ended
from search.storage.models import Base
from search.storage.schema import HEAD
from search.storage.store import Store
from tests.search.entries import HISTORY, OUTCOME, candidate, copy, evaluation, in_order
from tests.search.instant import launch, make_config
from workers.spec.outcome import Measurement, Outcome


def test_what_is_recorded_is_read_back(store: Store) -> None:
    campaign = launch(store)
    store.record(campaign.id, HISTORY[:3])
    store.record(campaign.id, HISTORY[3:])
    assert list(store.events(campaign.id)) == in_order(HISTORY)
    assert store.dna(campaign.id, 3) == "program 3"


def test_campaigns_do_not_mix(store: Store) -> None:
    first, second = launch(store, "a"), launch(store, "b")
    store.record(first.id, HISTORY)
    store.record(second.id, HISTORY[:2])
    assert list(store.events(second.id)) == in_order(HISTORY[:2])
    assert [line.recorded for line in queries.campaigns(store)] == [4, 2]


def test_entries_are_recorded_together_or_not_at_all(store: Store) -> None:
    campaign = launch(store)
    with pytest.raises(StoreError):
        store.record(campaign.id, [candidate(1), candidate(2), candidate(2)])
    with pytest.raises(StoreError):  # an outcome of a candidate that is not there
        store.record(campaign.id, [candidate(1), evaluation(1, 2)])
    assert list(store.events(campaign.id)) == []
    store.record(campaign.id, HISTORY)
    with pytest.raises(StoreError):  # the same run twice
        store.record(campaign.id, [evaluation(5, 2)])


def test_numbers_that_json_has_no_place_for(store: Store) -> None:
    import numpy as np

    campaign = launch(store)
    curve = (Measurement(1, 2, 0.5, math.inf), Measurement(2, 4, 1.0, float(np.float32(2.5))))
    metrics = {"experts_used": np.float32(0.5), "experts_dropped": math.nan, "activation_bytes": 3}
    outcome = replace(
        OUTCOME, val_loss=np.float32(2.5), val_bpb=math.nan, curve=curve, metrics=metrics
    )
    store.record(campaign.id, [candidate(1), evaluation(1, 1, outcome)])
    end = list(store.events(campaign.id))[1]
    assert isinstance(end, Ended)
    assert (end.val_loss, end.val_bpb, end.losses) == (2.5, None, (None, 2.5))
    record = queries.candidate(store, "test", 1)
    assert [record[name] for name in metrics] == [0.5, None, 3]
    assert queries.top(store, "test", by="experts_dropped") == []


def test_losses_of_training_and_the_device_come_back(store: Store) -> None:
    campaign = launch(store)
    outcome = replace(OUTCOME, training=((25, 3.25), (75, math.nan)), device="NVIDIA H200")
    entries = [candidate(1), candidate(2), evaluation(1, 1, outcome), evaluation(2, 2)]
    store.record(campaign.id, entries)
    kept, none = curves(store, "test", [1, 2])
    assert kept.training == ((25, 3.25), (75, None))
    assert none.training == ()
    assert queries.candidate(store, "test", 1)["device"] == "NVIDIA H200"


def test_texts_that_a_database_has_no_place_for(store: Store) -> None:
    campaign = launch(store)
    outcome = Outcome("crashed", "it said \0 and \ud800 and ü and \U0001f600")
    run = replace(evaluation(1, 1, outcome), worker="host\0" + "x" * 300)
    store.record(campaign.id, [candidate(1), run])
    assert store.reason(campaign.id, 1) == "it said \\x00 and \\ud800 and ü and \U0001f600"
    worker = str(queries.candidate(store, "test", 1)["worker"])
    assert worker.startswith("host\\x00xxx") and len(worker) == 200


def test_a_campaign_keeps_the_versions_of_its_plug_ins(store: Store) -> None:
    plugins = [{"name": "mine", "version": "1.2"}]
    made = store.create_campaign("a", make_config().model_dump_json(), 1, plugins)
    assert made == store.campaign("a") and made.plugins == plugins
    assert list(launch(store, "b").plugins) == []


def test_a_name_that_exists_is_refused(store: Store) -> None:
    launch(store, "mine")
    with pytest.raises(UsageError, match=r"campaign 'mine' exists.*primevo resume mine"):
        launch(store, "mine")
    assert len(store.campaigns()) == 1


def test_a_name_that_does_not_exist(store: Store) -> None:
    launch(store, "first-run")
    with pytest.raises(NotFoundError, match="no campaign 'frist-run'; did you mean 'first-run'"):
        store.campaign("frist-run")


def test_the_migrations_make_the_models(store: Store) -> None:
    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_head_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", "search.storage:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_no_query_scans_a_table(tmp_path: Path) -> None:
    """Everything asked of a campaign is answered through an index."""
    with Store.open(f"sqlite:///{tmp_path}/a.db") as store:
        campaign = launch(store)
        store.record(campaign.id, HISTORY)
        asked: list[tuple[str, object]] = []

        @event.listens_for(store._engine, "before_cursor_execute")
        def note(connection, cursor, statement, parameters, context, executemany):  # type: ignore[no-untyped-def]
            asked.append((statement, parameters))

        list(store.events(campaign.id))
        store.record(campaign.id, [candidate(5, twin=2), copy(5, 5, original=2)])
        queries.summary(store, "test")
        queries.top(store, "test")
        queries.candidate(store, "test", 2)
        queries.program(store, "test", 2)
        queries.lineage(store, "test", 4)
        store.stop_requested(campaign.id)
        plans = {}
        raw = sqlite3.connect(tmp_path / "a.db")
        for statement, parameters in list(asked):
            rows = raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)  # type: ignore[arg-type]
            plans[statement] = [row[3] for row in rows]
    scans = {
        statement: plan
        for statement, plan in plans.items()
        if any("SCAN candidates" in step or "SCAN evaluations" in step for step in plan)
    }
    assert len(plans) > 8
    assert scans == {}


def test_records_have_the_promised_keys(store: Store) -> None:
    campaign = launch(store)
    store.record(campaign.id, [*HISTORY, candidate(5)])
    record = queries.candidate(store, "test", 2)
    assert tuple(record) == queries.record_fields()
    assert record == {
        "id": 2, "parent_id": 1, "mutation": "insert", "outcome": "completed", "reason": "",
        "fitness": 2.5, "val_loss": 2.5, "val_bpb": 3.6, "val_perplexity": math.exp(2.5),
        "params": 3_000_000_000, "active_params": 7, "flops_per_token": 5, "step_time_s": 0.1,
        "activation_bytes": 4096, "bytes_per_token": 512, "experts_used": 0.75,
        "experts_unevenness": 0.2, "experts_gate_unevenness": 0.3,
        "experts_max_violation": 1.5, "experts_dropped": 0.1, "train_seconds": 7.5,
        "setup_seconds": 0.5, "steps": 75, "tokens": 10**10, "hash": f"{2:032x}",
        "worker": "host/1", "device": None,
    }  # fmt: skip
    twin = queries.candidate(store, "test", 3)
    assert (twin["fitness"], twin["worker"], twin["reason"]) == (2.5, None, "same program as 2")
    failed = queries.candidate(store, "test", 4)
    assert (failed["outcome"], failed["fitness"], failed["val_loss"]) == ("diverged", None, None)
    pending = queries.candidate(store, "test", 5)
    assert (pending["outcome"], pending["fitness"]) == (None, None)


def test_top_lineage_and_program(store: Store) -> None:
    campaign = launch(store)
    store.record(campaign.id, HISTORY)
    assert [record["id"] for record in queries.top(store, "test")] == [1, 2]
    assert [record["id"] for record in queries.top(store, "test", 1, by="val_bpb")] == [1]
    assert [record["id"] for record in queries.lineage(store, "test", 4)] == [1, 2, 3, 4]
    assert queries.program(store, "test", 4) == "program 4"
    with pytest.raises(UsageError, match=r"unknown field 'fitnes'.*did you mean 'fitness'"):
        queries.top(store, "test", by="fitnes")


@pytest.mark.parametrize("id", [0, 5, -1, 2**31, 2**70])
def test_a_candidate_that_does_not_exist(store: Store, id: int) -> None:
    campaign = launch(store)
    store.record(campaign.id, HISTORY)
    for query in (queries.candidate, queries.program, queries.lineage):
        with pytest.raises(NotFoundError, match=f"no candidate {id}; it has 1 to 4"):
            query(store, "test", id)
