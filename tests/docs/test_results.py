"""The results that the pages tell are in the databases beside them."""

from __future__ import annotations

import json
import lzma
import sqlite3
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import data, primevo
from tests.docs.snippets import ROOT

RESULTS = ROOT / "docs" / "results"
PAGE = RESULTS / "h200-equal-seconds.md"
ROUTED = RESULTS / "dense-and-routed.md"
AGAIN = RESULTS / "equal-flops-again.md"
MIXTURES = RESULTS / "moe-cpu.md"


def unpacked(page: Path, folder: Path) -> str:
    """The URL of a page's database."""
    path = folder / "results.db"
    path.write_bytes(lzma.decompress(page.with_suffix(".db.xz").read_bytes()))
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    return unpacked(PAGE, tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return unpacked(ROUTED, tmp_path_factory.mktemp("routed"))


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> str:
    return unpacked(AGAIN, tmp_path_factory.mktemp("again"))


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


@pytest.mark.parametrize(
    "subjects",
    [
        ("transformer_pp", "pp2/80", "primer_ez"),
        ("transformer_pp", "pp/152", "--seeds", "5"),
        ("transformer_pp", "dense_flops/77", "pp2/80"),
        ("transformer_pp", "routed_flops/62", "pp2/80", "moe.dna"),
        ("transformer_pp", "moe/78", "moe.dna", "switch"),
        ("transformer_pp", "pp2/80", "--seeds", "5", *SCALED),
    ],
)
def test_comparisons_of_dense_and_routed(
    subjects: tuple[str, ...], routed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = ROUTED.read_text().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "pp.yaml").write_text(config.replace("seed: 1 ", "seed: 2 "))  # pp2's
    seed_program = primevo("show", "routed_flops", 1, "-o", "dna", "--storage", routed).stdout
    (tmp_path / "moe.dna").write_text(seed_program)
    page = ROUTED.read_text()
    rows = data("compare", *subjects, "--storage", routed)
    for row in rows:
        assert f"{row['mean']:.4f}" in page
        assert f"{row['params']:,}" in page
    for row in rows[1:]:
        assert difference(row) in page


@pytest.mark.parametrize(
    "subjects",
    [
        ("transformer_pp", "routed2/15", "switch", "campaign_routed"),
        ("transformer_pp", "dense2/112"),
    ],
)
def test_comparisons_of_the_second_time(
    subjects: tuple[str, ...], again: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = AGAIN.read_text()
    first, *others = data("compare", *subjects, "--storage", again)
    assert f"| {first['mean']:.4f} |" in page
    for row in others:
        to_reach = f"{row['train_seconds']:.1f} | {row['seconds_to_reach']:.1f}"
        figures = f"{row['mean']:.4f} | {difference(row)} | {to_reach} | {row['params']:,}"
        assert figures in page.replace("**", "")


def test_the_routed_winner_against_the_dense_block(routed: str, tmp_path: Path) -> None:
    """In the routed campaign's own task."""
    with sqlite3.connect(routed.removeprefix("sqlite:///")) as connection:
        found = connection.execute("SELECT config FROM campaigns WHERE name = 'routed_flops'")
        config = json.loads(found.fetchone()[0])
    path = tmp_path / "routed.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    subjects = ("pp2/80", "routed_flops/62", "--config", str(path))
    winner = data("compare", *subjects, "--storage", routed)[1]
    assert difference(winner) == "-0.0434 ± 0.0092" and "-0.0434 ± 0.0092" in ROUTED.read_text()


def test_the_convolution_explained(routed: str) -> None:
    printed, page = primevo("explain", "pp2", 80, "--storage", routed).stdout, ROUTED.read_text()
    for told in ("+0.0293 ± 0.0126", "+0.0364 ± 0.0183"):
        assert told in printed and told in page


def test_what_memories_give() -> None:
    """Means and deviations of the page's table."""
    page = (RESULTS / "trime-5m.md").read_text()
    for runs in json.loads((RESULTS / "trime-5m.json").read_text()).values():
        assert f"{statistics.mean(run['step_time_s'] for run in runs) * 1e3:.2f} ms" in page
        for scores in zip(*(run["memories"] for run in runs), strict=True):
            bits = [score["test_bpb"] for score in scores]
            assert f"{statistics.mean(bits):.4f} ± {statistics.stdev(bits):.4f}" in page


def test_what_pruning_gives() -> None:
    page = (RESULTS / "pruning-5m.md").read_text().replace("**", "")
    told = json.loads((RESULTS / "pruning-5m.json").read_text())
    for made in told["distances_as_they_are"].values():
        for row in made["table"]:
            speeds = f"{row['speedup_batch_1']:.2f} | {row['speedup_batch_32']:.2f} "
            speeds = "| " if row["model"] == "whole" else speeds
            figures = f"{row['layers']} | {row['parameters']:,} | {row['test_bpb']:.4f}"
            assert f"{row['model']} | {figures} | {speeds}| {row['steps']:,} |" in page
    for row in told["variants"]:
        assert f"{row['model']} | {row['test']:.4f}" in page


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pp", "pp2", "dense_flops"])
def test_campaigns_of_dense_blocks_are_derived_again(name: str, routed: str) -> None:
    """Mutations of routed programs have since been given more operations to draw."""
    assert "all the same" in primevo("replay", name, "--storage", routed).stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense2", "routed2"])
def test_the_second_campaigns_at_equal_flops_are_derived_again(name: str, again: str) -> None:
    assert "all the same" in primevo("replay", name, "--storage", again).stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pp", "vanilla-1", "vanilla-2", "vanilla-3"])
def test_the_campaigns_are_derived_again(name: str, storage: str) -> None:
    assert "all the same" in primevo("replay", name, "--storage", storage).stdout


PEER = "programs.peer.program=docs/results/moe-cpu-peer.dna"
D_32 = ("configs/studies/moe.yaml", "--set", "grid.d_model=[32]", "--set", PEER)
SQUARED = (*D_32, "--set", "programs.dense.vary.d2=[32,64]")
RELU = (*D_32, "--set", "programs.dense.program=transformer")


@pytest.mark.parametrize("command", [SQUARED, RELU, ("widths.yaml",)])
def test_the_study_of_mixtures(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cell after 400 steps and each sentence but those on step time is on the page."""
    monkeypatch.chdir(tmp_path)
    page = MIXTURES.read_text()
    (tmp_path / "widths.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    for folder in ("configs", "docs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    printed = primevo("study", *command, "--storage", unpacked(MIXTURES, tmp_path), "-o", "json")
    known = printed.stderr.split(" of ")
    assert known[0].split()[-1] == known[1].split()[0], printed.stderr  # nothing was trained
    found = json.loads(printed.stdout)
    cells = [row for row in found["cells"] if row["amount"] == 400]
    assert len(cells) >= 9
    for row in cells:
        assert row["runs"] == 3
        figures = f"{row['val_bpb']:.4f} | {row['flops_per_token']:,.0f} | {row['params']:,.0f}"
        paired = " | ".join(at_equal(row, name) for name in ("flops_per_token", "params"))
        assert f"| {row['cell']} | {figures} | {paired} |" in page
    sentences = [line for line in found["findings"] if "step time" not in line]
    assert [line for line in sentences if line not in page] == []


def at_equal(row: dict[str, Any], cost: str) -> str:
    name = f"at_equal_{cost}"
    if row[name] is None:
        return ""
    return f"{row[name]:+.4f} ± {(row[f'{name}_high'] - row[f'{name}_low']) / 2:.4f}"
