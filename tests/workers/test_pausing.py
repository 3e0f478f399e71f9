"""A run that is paused at a hurdle and goes on from its checkpoint gives what it gives whole."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from primitives.language.dna import DNA
from primitives.language.text import render
from primitives.programs.seeds import load_seed
from workers.machine import arrays
from workers.spec.outcome import Budget, Compiled, Hurdle, Job, Outcome, Pause
from workers.spec.task import DataSpec, ModelSpec, Task, TrainingSpec
from workers.training.checkpoint import Note
from workers.training.evaluate import compile_job, evaluate, run_job
from workers.training.pausing import drop_worst

BUDGET = Budget("steps", 12, (Hurdle(3), Hurdle(7)), points=(5,))
SEED = load_seed("transformer")


def losses(outcome: Outcome) -> list[tuple[int, float]]:
    assert outcome.status == "completed", outcome.reason
    return [(point.steps, point.val_loss) for point in outcome.curve]


def stage(task: Task, folder: Path, hurdle: int | None, program: DNA = SEED) -> Outcome:
    return evaluate(program, task, BUDGET, 5, pause=Pause(str(folder / "7.npz"), hurdle))


@pytest.fixture(scope="module")
def whole(tiny_task: Task) -> Outcome:
    return evaluate(SEED, tiny_task, BUDGET, seed=5)


def test_the_numbers_are_those_of_a_run_that_was_not_paused(
    tmp_path: Path, tiny_task: Task, whole: Outcome
) -> None:
    first = stage(tiny_task, tmp_path, 0)
    assert (first.reason, first.hurdles_passed) == ("paused at hurdle 1 of 2", 0)
    assert np.allclose(losses(first), losses(whole)[:1], rtol=0, atol=1e-6)
    second = stage(tiny_task, tmp_path, 1)
    assert (second.reason, second.hurdles_passed) == ("paused at hurdle 2 of 2", 1)
    again = stage(tiny_task, tmp_path, 1)
    assert losses(again) == losses(second), "whoever asks twice gets the same answer"
    assert again.steps == 7 and again.train_seconds == second.train_seconds
    third = stage(tiny_task, tmp_path, None)
    assert (third.reason, third.hurdles_passed) == ("", 2)
    assert np.allclose(losses(third), losses(whole), rtol=0, atol=1e-6)
    assert [point.steps for point in third.curve] == [3, 5, 7, 12]
    assert third.training[-1][0] == third.steps == 12
    assert third.train_seconds > second.train_seconds and third.setup_seconds > first.setup_seconds
    assert not list(tmp_path.iterdir()), "a run that has ended needs no checkpoint"


FAULTS = {
    "another kind of value": {"steps": "three"},
    "a place where it cannot be": {"steps": 4},
    "no end": {"steps": -(10**15)},
    "no curve": {"curve": []},
    "another generator": {"rng": {"bit_generator": "MT19937"}},
    "losses of no steps": {"losses": [0, [[0, 2.0]]]},
}


@pytest.mark.parametrize("fault", ["lost", "damaged", "of another seed"])
def test_without_its_checkpoint_a_run_begins_anew_and_says_so(
    tmp_path: Path, tiny_task: Task, whole: Outcome, fault: str
) -> None:
    file = tmp_path / "7.npz"
    if fault == "damaged":
        file.write_bytes(b"PK\3\4")
    if fault == "of another seed":
        evaluate(SEED, tiny_task, BUDGET, 6, pause=Pause(str(file), 0))
    made = stage(tiny_task, tmp_path, 1)
    assert made.reason.startswith("trained again from the start, ")
    assert made.reason.endswith("; paused at hurdle 2 of 2")
    assert np.allclose(losses(made), losses(whole)[:3], rtol=0, atol=1e-6)
    assert arrays.read_note(file) is not None


def test_a_full_disk_leaves_no_checkpoint_and_the_run_is_good(
    tmp_path: Path, tiny_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Any, **named: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    made = stage(tiny_task, tmp_path, 0)
    assert made.status == "completed" and made.steps == 3
    assert made.reason == (
        "paused at hurdle 1 of 2, and its checkpoint could not be kept (No space left on device)"
    )
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_earlier_file_and_no_part_of_a_new_one(
    tmp_path: Path,
) -> None:
    def half(file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    (tmp_path / "kept.npz").write_bytes(b"whole")
    with pytest.raises(KeyboardInterrupt):
        arrays.replace(tmp_path / "kept.npz", half)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"whole"]


def test_the_worst_go_where_the_disk_is_limited(tmp_path: Path) -> None:
    standing = {"1": (0, 2.0), "2": (0, 3.0), "3": (1, 9.0), "4": (0, 1.0)}
    for name, (hurdle, loss) in standing.items():
        note = {**SOUND, "hurdle": hurdle, "val_loss": loss}
        arrays.write(tmp_path / f"{name}.npz", note, [np.zeros(110_000, np.float32)])
    drop_worst(tmp_path, 2)
    assert len(list(tmp_path.iterdir())) == 4
    drop_worst(tmp_path, 1)
    assert sorted(file.stem for file in tmp_path.iterdir()) == ["3", "4"]
    arrays.write(tmp_path / "4.npz", {"hurdle": "9", "val_loss": None}, [np.zeros(200_000)])
    drop_worst(tmp_path, 1)
    assert [file.stem for file in tmp_path.iterdir()] == ["3"], "what cannot be read goes first"


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_a_note_that_no_run_has_written_is_not_gone_on_from(fault: dict[str, Any]) -> None:
    note = Note.read({**SOUND, "steps": 3})
    note.check(BUDGET, 3)
    note.set_state(np.random.default_rng())
    with pytest.raises(arrays.Damaged):
        other = Note.read(SOUND | fault)
        other.check(BUDGET, 3)
        other.set_state(np.random.default_rng())


SOUND = {
    "key": "k", "hurdle": 0, "val_loss": 2.5, "steps": 3, "train_seconds": 0.5, "seconds": 1.5,
    "usage": {"used": 1.0}, "curve": [[3, 192, 0.5, 2.5]], "losses": [0, [[3, 7.5]]],
    "rng": np.random.default_rng(5).bit_generator.state,
}  # fmt: skip


def test_what_may_be_larger_than_the_memory_is_not_unpacked(tmp_path: Path) -> None:
    """A megabyte of zeros takes a kilobyte where it is compressed."""
    np.savez_compressed(tmp_path / "7.npz", about=np.array("{}"), array_0=np.zeros(1_000_000))
    with pytest.raises(arrays.Damaged, match="compressed"):
        arrays.read(tmp_path / "7.npz")


def test_the_array_that_does_not_fit_is_named() -> None:
    from workers.engines.engine import check_kept

    own = [np.zeros(3, np.float32), np.zeros((2, 4), np.float32)]
    check_kept(own, own)
    with pytest.raises(ValueError, match="2 arrays are asked for, and 1 were kept"):
        check_kept(own, own[:1])
    message = r"array 2 of 2 is float64 \(4, 2\), and should be float32 \(2, 4\)"
    with pytest.raises(ValueError, match=message):
        check_kept(own, [own[0], np.zeros((4, 2))])


@pytest.mark.slow
def test_tables_of_experts_and_their_moments_are_kept(tmp_path: Path, tiny_task: Task) -> None:
    """PEER's experts are trained row by row, by an optimiser of their own."""
    program = load_seed("peer")
    whole = evaluate(program, tiny_task, BUDGET, 5)
    stage(tiny_task, tmp_path, 1, program)
    made = stage(tiny_task, tmp_path, None, program)
    assert np.allclose(losses(made), losses(whole), rtol=0, atol=1e-6)


def test_seconds_that_were_used_count(tmp_path: Path, tiny_task: Task) -> None:
    budget = Budget("seconds", 0.6, (Hurdle(0.2),))
    for hurdle in (0, None):
        made = evaluate(SEED, tiny_task, budget, 5, pause=Pause(str(tmp_path / "7.npz"), hurdle))
        assert made.status == "completed"
    assert made.curve[0].train_seconds >= 0.2
    assert 0.6 <= made.train_seconds == made.curve[1].train_seconds < 1.6
    assert made.curve[0].steps < made.steps


SCRIPT = """
import json, sys
from pathlib import Path
from tests.workers.test_pausing import on_jax
print(json.dumps(on_jax(Path(sys.argv[1]))))
"""


def on_jax(folder: Path) -> list[list[tuple[int, float]]]:
    """A program whose experts draw noise, compiled beforehand as with `workers.ahead`: whole, in
    two stages of which the second is compiled where it trains, and in two."""
    task = Task(
        data=DataSpec(max_documents=40),
        model=ModelSpec(d_model=16, layers=1, sequence_length=16),
        training=TrainingSpec(batch_size=4, eval_batches=2, backend="jax"),
    )
    program = load_seed("switch")
    job = Job(7, render(program), BUDGET, 5)
    compiled = compile_job(job, task)
    assert isinstance(compiled, Compiled)
    found = [losses(run_job(job, task, compiled))]
    for ready in (None, compiled):
        for hurdle, steps in ((0, compiled), (None, ready)):
            pause = Pause(str(folder / "7.npz"), hurdle)
            made = run_job(dataclasses.replace(job, pause=pause), task, steps)
            assert "again" not in made.reason
        found.append(losses(made))
    return found


@pytest.mark.slow
def test_it_holds_on_jax_and_for_what_was_compiled_ahead(tmp_path: Path) -> None:
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    made = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-2000:]
    whole, paused, ahead = json.loads(made.stdout)
    assert [steps for steps, _ in whole] == [3, 5, 7, 12]
    assert np.allclose(paused, whole, rtol=0, atol=1e-6)
    assert np.allclose(ahead, whole, rtol=0, atol=1e-6)
