"""`primevo generate`: text from an exported folder, or from a campaign's kept weights."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from primitives.language.jsonform import from_json
from primitives.programs.seeds import load_seed
from tests.cli.command import data, primevo, refusal
from tests.workers.exports import weights_of
from tests.workers.test_tasks import BY_TASK
from workers.export.export import export
from workers.spec.positions import Kind
from workers.spec.task import DataSpec, ModelSpec, Task, TrainingSpec

SPEC = ModelSpec(d_model=16, layers=1, sequence_length=12)


def folder_with(path: Path, objective: str = "next_token", positions: Kind = "learned") -> Path:
    training = TrainingSpec(objective=objective, eval_batches=1, batch_size=2)
    spec = SPEC.model_copy(update={"positions": positions})
    task = Task(model=spec, data=DataSpec(max_documents=20), training=training)
    dna, rows = load_seed("transformer", 16), 256 + (objective == "masked")
    weights = weights_of(dna, spec, rows)
    export(dna, path, task=task, weights=weights, card={"program": "it"})
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_with(tmp_path_factory.mktemp("writing") / "it")


def test_a_folder_writes_the_same_text_for_the_same_seed(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ("generate", exported, "--prompt", "The old ", "--tokens", 30, "--seed", 5)
    result = primevo(*asked)
    assert "trained with 12 positions: whenever they are full" in result.stderr
    assert result.stdout.startswith("The old ")
    shorter = ("generate", exported, "--prompt", "The old ", "--seed", 5)
    assert "positions" in primevo(*shorter, "--tokens", 5).stderr  # with the prompt's 8 bytes
    assert "positions" not in primevo(*shorter, "--tokens", 4).stderr
    assert all(letter.isprintable() or letter in "\n\t" for letter in result.stdout)
    found = data(*asked)
    assert found["tokens"] == 30 and found["seed"] == 5 and found["prompt"] == "The old "
    assert len(found["text"].encode(errors="replace")) >= 38
    written = "".join(it if it.isprintable() or it in "\n\t" else "\ufffd" for it in found["text"])
    assert written + "\n" == result.stdout
    (row,) = csv.DictReader(io.StringIO(primevo(*asked, "-o", "csv").stdout))
    assert row["text"] == found["text"] and row["seed"] == "5"
    assert json.loads((exported / "card.json").read_text())["generates"].startswith("Each new")


def test_a_text_beyond_the_trained_length_is_refused_or_told_of(
    exported: Path, tmp_path: Path
) -> None:
    said = refusal(2, "generate", exported, "--whole")
    assert "--whole: the model has learned 12 positions" in said and "rotary" in said
    folder = folder_with(tmp_path / "rotary", positions="rotary")
    asked = ("generate", folder, "--prompt", "The old ", "--tokens", 30, "--seed", 5)
    windows, whole = primevo(*asked), primevo(*asked, "--whole")
    assert "goes on from the last 6 tokens (--whole keeps all in sight)" in windows.stderr
    assert "the model was trained with 12 positions, so longer texts are new to it" in whole.stderr
    assert whole.stdout.startswith("The old ") and whole.stdout != windows.stdout


def test_a_campaigns_kept_weights_write(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(campaign, folder, ignore=shutil.ignore_patterns("primevo-weights"))
    monkeypatch.chdir(folder)
    refused = refusal(1, "generate", "small")
    assert "no weights of a finalist of small" in refused
    assert "primevo export small ID --to DIR" in refused
    assert "no weights of candidate 2 of small" in refusal(1, "generate", "small", 2)
    assert "it has 1 to 30" in refusal(3, "generate", "small", 99)
    best = data("top", "small", "-n", 1)[0]["id"]
    dna = from_json(data("show", "small", best)["dna"])
    spec = ModelSpec(d_model=32, layers=1)
    kept = folder / "primevo-weights" / "small" / f"{best}.npz"
    kept.parent.mkdir(parents=True)
    np.savez(kept, **weights_of(dna, spec))
    result = primevo("generate", "small", "--tokens", 4, "--seed", 1)
    assert f"small: candidate {best}" in result.stderr and "positions" not in result.stderr
    assert result.stdout.startswith("The ")


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("smal",), 3, "did you mean 'small'?"),
        (("small", "--prompt", ""), 2, "--prompt is empty"),
        (("small", "--top-p", "0"), 2, "--top-p must be above 0"),
        (("./primevo-none",), 3, "primevo-none"),
    ],
)
def test_what_cannot_be_written_is_said(
    campaign: Path, arguments: tuple[str, ...], code: int, expected: str
) -> None:
    assert expected in refusal(code, "generate", *arguments)


def test_a_folder_that_is_no_export_is_said(exported: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "is not an exported folder" in refusal(1, "generate", empty)
    assert "has no candidate 3" in refusal(2, "generate", exported, 3)
    broken = tmp_path / "broken"
    shutil.copytree(exported, broken)
    (broken / "model.keras").write_bytes(b"not a model")
    assert "cannot load" in refusal(1, "generate", broken)


def test_a_model_that_routes_by_task_is_told_one(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIMEVO_CACHE", str(tmp_path / "cache"))
    sources = {}
    for name in ("prose", "code"):
        (tmp_path / name).mkdir()
        for number in range(8):
            (tmp_path / name / f"{number}.txt").write_text(f"{number}{name}" * 20)
        sources[name] = DataSpec(source="text", files=(str(tmp_path / name / "*.txt"),))
    training = TrainingSpec(eval_batches=1, batch_size=2)
    task = Task(model=SPEC, data=DataSpec(sources=sources), training=training)
    folder, weights = tmp_path / "it", weights_of(BY_TASK, SPEC)
    export(BY_TASK, folder, task=task, weights=weights, card={"program": "it"})
    asked = ("generate", folder, "--tokens", 8, "--temperature", 2, "--seed", 1)
    first, told = primevo(*asked), "the text is of the task code; --task names another one of code"
    assert told in first.stderr
    texts = [data(*asked, *given)["text"] for given in ((), *(("--task", it) for it in sources))]
    assert texts[0] == texts[2] != texts[1]
    said = refusal(2, *asked, "--task", "pros")
    assert "--task pros: the model's tasks are code, prose" in said
    said = refusal(2, "generate", exported, "--task", "prose")
    assert "does not route by them (TASK)" in said


def test_a_masked_model_writes_none(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "masked", "masked")
    assert "writes no text: it was trained for another" in refusal(1, "generate", folder)
