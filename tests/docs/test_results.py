"""The results that the pages tell are in the databases beside them."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import data, primevo
from tests.docs.snippets import ROOT

PAGE = ROOT / "docs" / "results" / "h200-equal-seconds.md"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The database of the page, unpacked."""
    path = tmp_path_factory.mktemp("results") / "results.db"
    path.write_bytes(lzma.decompress(PAGE.with_suffix(".db.xz").read_bytes()))
    return f"sqlite:///{path}"


SCALED = ("--scale", "d_model=512", "--config", "pp.yaml", "--set", "search.budget.base=2.1333")


@pytest.mark.parametrize(
    "subjects",
    [
        ("transformer_pp", "pp/64", "primer_ez"),
        ("primer_ez", "vanilla-1/364", "transformer_pp", "transformer"),
        ("primer_ez", "vanilla-2/381", "transformer_pp", "transformer"),
        ("primer_ez", "vanilla-3/276", "transformer_pp", "transformer"),
        ("transformer_pp", "vanilla-2/381"),
        ("transformer_pp", "pp/64", *SCALED),
    ],
)
def test_comparisons(
    subjects: tuple[str, ...], storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every mean and every difference of a winner is on the page; nothing is trained for it."""
    monkeypatch.chdir(tmp_path)
    config = PAGE.read_text().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "pp.yaml").write_text(config)
    rows = data("compare", *subjects, "--storage", storage)
    assert [row["runs"] for row in rows] == [3] * len(rows)
    page = PAGE.read_text()
    for row in rows:
        assert f"{row['mean']:.4f}" in page
        assert f"{row['params']:,}" in page
    winner = rows[1]
    assert difference(winner) in page


def difference(row: dict[str, Any]) -> str:
    half = (row["difference_high"] - row["difference_low"]) / 2
    return f"{row['difference']:+.4f} ± {half:.4f}"


def test_the_winner_explained(storage: str) -> None:
    printed = primevo("explain", "pp", 64, "--storage", storage).stdout
    page = PAGE.read_text()
    for told in ("+0.0171 ± 0.0122", "+0.0175 ± 0.0145", "+0.0143 ± 0.0165", "+0.0032 ± 0.0087"):
        assert told in printed and told in page


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pp", "vanilla-1", "vanilla-2", "vanilla-3"])
def test_the_campaigns_are_derived_again(name: str, storage: str) -> None:
    assert "all the same" in primevo("replay", name, "--storage", storage).stdout
