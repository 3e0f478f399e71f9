"""Databases to report on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from search.campaign.controller import Controller
from search.storage.store import Store
from tests.report.synthetic import write
from tests.search.instant import InstantEvaluator, launch


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A campaign `test` that a controller ran with an instant evaluator."""
    with Store.open(f"sqlite:///{tmp_path_factory.mktemp('played')}/primevo.db") as store:
        Controller(store, launch(store, candidates=150), InstantEvaluator()).run()
        yield store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the database of a campaign `small`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    with Store.open("sqlite:///primevo.db") as store:
        write(store, "small", 120)
    return tmp_path
