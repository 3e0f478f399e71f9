"""Who runs a campaign: one process at a time, and nobody once it is dead."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.storage.address import StoreError
from search.storage.events import Heartbeat
from search.storage.store import Store
from tests.search.entries import HISTORY, in_order
from tests.search.instant import launch
from tests.search.recorded import ask

ROOT = Path(__file__).parents[2]


def test_only_one_holder(store: Store, url: str) -> None:
    campaign, other = launch(store), launch(store, "other")
    assert not store.running(campaign.id)
    with store.holding(campaign), Store.open(url) as second:
        store.beat(campaign.id, Heartbeat(1.0, 1, 2, "", None, "box", 42))
        assert second.running(campaign.id)
        with pytest.raises(StoreError, match="'test' is being run by process 42 on box"):
            second.holding(campaign).__enter__()
        with second.holding(other):
            pass
    assert not store.running(campaign.id)
    with store.holding(campaign):
        pass


def test_a_killed_holder_holds_nothing(store: Store, url: str) -> None:
    campaign = launch(store)
    code = (
        "import sys, time; from search.storage.store import Store\n"
        "store = Store.open(sys.argv[1])\n"
        "with store.holding(store.campaign('test')): print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, url], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert store.running(campaign.id)
        process.kill()
    deadline = time.monotonic() + 10
    while store.running(campaign.id) and time.monotonic() < deadline:
        time.sleep(0.02)
    with store.holding(campaign):
        assert store.running(campaign.id)


def test_whoever_loses_the_connection_cannot_record(postgresql_url: str) -> None:
    """The server ends the holder's session, as a cut in the network does; another one goes on."""
    end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
    with Store.open(postgresql_url) as first, Store.open(postgresql_url) as second:
        campaign = launch(first)
        with first.holding(campaign):
            first.record(campaign.id, HISTORY[:1])
            assert ask(postgresql_url, end) == [(True,)]
            with pytest.raises(StoreError, match="connection"):
                first.record(campaign.id, HISTORY[1:2])
            with second.holding(campaign):
                second.record(campaign.id, HISTORY[1:2])
            with pytest.raises(StoreError, match="run campaign 'test'; go on by: primevo resume"):
                first.record(campaign.id, HISTORY[2:3])
        assert list(first.events(campaign.id)) == in_order(HISTORY[:2])
        with first.holding(campaign):
            first.record(campaign.id, HISTORY[2:3])


def test_a_failure_inside_gives_the_lease_back(store: Store) -> None:
    campaign = launch(store)
    with pytest.raises(ZeroDivisionError), store.holding(campaign):
        _ = 1 / 0
    assert not store.running(campaign.id)
    with store.holding(campaign):
        with pytest.raises(StoreError, match="this process is running campaign 'test'"):
            store.holding(campaign).__enter__()
        assert store.running(campaign.id)
    assert not store.running(campaign.id)


def test_stop_is_asked_for_and_forgotten(store: Store) -> None:
    campaign = launch(store)
    assert not store.request_stop(campaign.id)
    with store.holding(campaign):
        assert store.request_stop(campaign.id)
        assert store.stop_requested(campaign.id)
    with store.holding(campaign):
        assert not store.stop_requested(campaign.id)
