"""Studies from Python: the same figures as the command line's."""

from __future__ import annotations

from pathlib import Path

import pytest

import primevo
from search.cli import running
from search.errors import UsageError
from search.storage.store import Store
from tests.cli.command import CONFIG, data
from tests.cli.test_studies import KnownPool
from tests.study.known import NEUTRAL, SEED, SINE, SQUARED, campaign_of


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> primevo.Campaign:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    monkeypatch.setattr(running, "Pool", KnownPool)
    (tmp_path / "small.yaml").write_text(CONFIG)
    with Store.open("sqlite:///primevo.db") as store:
        campaign_of(store, (SEED, SQUARED, NEUTRAL, SINE))
    return primevo.open_campaign("known")


def test_compare_takes_whatever_names_a_program(campaign: primevo.Campaign) -> None:
    program = campaign.candidate(2).program
    found = primevo.compare(
        "known/1", campaign.candidate(2), program.genome, "primer_ez",
        config=campaign.config, progress=False,
    )  # fmt: skip
    table = found.table
    assert [row["program"] for row in table] == ["known/1", "known-2", "program", "primer_ez"]
    assert table[1]["hash"] == table[2]["hash"] and table[1]["verdict"] == "better"
    told = data("compare", "known/1", "known/2")
    assert told[1]["difference"] == table[1]["difference"]
    drawn = found._repr_mimebundle_()
    assert drawn["application/vnd.plotly.v1+json"]["data"] and "<table>" in drawn["text/html"]


def test_explain_equals_the_command(campaign: primevo.Campaign) -> None:
    found = primevo.explain(campaign, 4, progress=False)
    assert list(found.table) == data("explain", "known", 4)
    assert "<table>" in found._repr_html_() and "helps" in repr(found)


def test_simplify_gives_a_program(campaign: primevo.Campaign) -> None:
    found = primevo.simplify(campaign, 4, progress=False)
    told = data("simplify", "known", 4)
    assert (found.program.text, found.finding) == (told["program"], told["finding"])
    assert list(found.deletions) == told["deletions"]


def test_without_an_id_the_best_is_meant(campaign: primevo.Campaign) -> None:
    with pytest.raises(UsageError, match="'known' has no scored candidate yet"):
        primevo.explain(campaign)


def test_two_programs_at_least(campaign: primevo.Campaign) -> None:
    with pytest.raises(UsageError, match="the first is the baseline"):
        primevo.compare("known/1", config=campaign.config)
