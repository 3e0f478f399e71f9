"""What is not exported: over files that are there, a program without a type, damaged weights or
those of another program."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from primitives.language.text import parse
from primitives.programs.seeds import load_seed
from tests.workers.exports import (
    SPEC,
    weights_of,
)
from workers.export import export as exporting
from workers.export.export import ExportError, export, export_candidate
from workers.spec.outcome import Budget
from workers.spec.task import Task


def test_what_is_there_is_never_touched(tmp_path: Path) -> None:
    dna = load_seed("transformer")
    full, file, empty = tmp_path / "full", tmp_path / "file", tmp_path / "empty"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    file.write_text("mine")
    for taken in (full, file):
        with pytest.raises(ExportError, match="not an empty folder; name another one"):
            export_candidate(
                dna, taken, task=Task(), budget=Budget("steps", 10**9), seed=0,
                card={"program": "it"},
            )  # fmt: skip
    assert (full / "mine.txt").read_text() == file.read_text() == "mine"
    empty.mkdir()
    weights = weights_of(dna)
    assert export(dna, empty, task=Task(model=SPEC), weights=weights, card={"program": "it"})


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "_model", fail)
    dna = load_seed("transformer")
    weights = weights_of(dna)
    with pytest.raises(ExportError, match="No space left on device"):
        export(dna, tmp_path / "it", task=Task(model=SPEC), weights=weights, card={"program": "it"})
    assert list(tmp_path.iterdir()) == []


def test_a_program_without_a_type_is_refused(tmp_path: Path) -> None:
    dna = parse("dims d0=8\nconstants c0=0.0\nmain(x, y):\n  out = RED SUM(x)\n")
    with pytest.raises(ExportError, match="does not type-check in this task: main"):
        export(dna, tmp_path / "it", task=Task(), weights={}, card={"program": "it"})


def test_weights_of_another_program_are_refused(tmp_path: Path) -> None:
    weights = weights_of(load_seed("primer"))
    with pytest.raises(ExportError, match="not the program's weights: 'blocks/"):
        export(
            load_seed("transformer"), tmp_path / "it", task=Task(model=SPEC), weights=weights,
            card={"program": "it"},
        )  # fmt: skip
    (tmp_path / "bad.npz").write_text("not an archive")
    with pytest.raises(ExportError, match="cannot read the weights"):
        export(
            load_seed("primer"), tmp_path / "it", task=Task(model=SPEC),
            weights=tmp_path / "bad.npz", card={"program": "it"},
        )  # fmt: skip


def test_a_run_that_diverges_has_no_weights_to_export(tiny_task: Task, tmp_path: Path) -> None:
    dna = parse("dims d0=8\nconstants c0=0.0\nmain(x, y):\n  none = RED SUM(x)\n"
                "  zero = C MUL(none) constant=c0\n  nan = DIVIDE(zero, zero)\n"
                "  out = ADD(x, nan)\n")  # fmt: skip
    with pytest.raises(ExportError, match="training ended as diverged"):
        export_candidate(
            dna, tmp_path / "it", task=tiny_task, budget=Budget("steps", 2), seed=0,
            card={"program": "it"},
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file cut short, or with some of its bytes overwritten."""
    made = bytearray(content[: rng.choice((len(content), rng.randrange(len(content))))])
    for _ in range(rng.choice((1, 20, 500))):
        made[rng.randrange(len(made))] = rng.randrange(256)
    return bytes(made)


class Bomb:
    """It tells when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


def test_damaged_weights_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path, rng = tmp_path / "1.npz", random.Random(0)
    for save in (np.savez, np.savez_compressed):
        save(path, precision="float32", embedding=np.ones((64, 8), np.float32))
        sound = path.read_bytes()
        assert exporting._loaded(path)["embedding"].shape == (64, 8)
        for _ in range(150):
            path.write_bytes(damaged(sound, rng))
            try:
                loaded = exporting._loaded(path)
            except ExportError as error:
                assert str(path) in str(error) and "restore a copy" in str(error)
                assert len(str(error).splitlines()) == 1
            else:  # what no array's sum covers
                assert all(array.dtype.kind in "fU" for array in loaded.values())
    np.save(tmp_path / "1.npy", np.ones(3))
    for content in (b"", b"text", b"PK\3\4", b"\x80\x04.", (tmp_path / "1.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ExportError, match=r"1.npz: damaged \("):
            exporting._loaded(path)
    for array in (np.array([Bomb()], object), np.array(["x"]), np.ones(3, int)):
        np.savez(path, embedding=array)
        with pytest.raises(ExportError, match=r"1.npz: damaged \("):
            exporting._loaded(path)
    assert not (tmp_path / "unpickled").exists()
