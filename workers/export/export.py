"""A program leaves: a folder with a Keras layer, its trained weights, a model, a card, an example.

Nothing in the folder needs this project. The layer carries the lines and kernels that a candidate
runs in float32. Candidates on accelerators may train with products of matrices in bfloat16, and
with a fused attention kernel: what the exported model computes then differs by roundings. So the
card says in which precision the weights were trained, and how the exported model itself scores.
"""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from primitives.graph.build import Graph, IllTyped
from primitives.language.dna import DNA
from primitives.language.jsonform import to_json
from primitives.language.text import render
from primitives.lowering.cost import layers_cost
from workers.data.tokens import load_tokens
from workers.export.facts import NOT_TRAINED, facts_of
from workers.export.generation import how_it_generates
from workers.export.score import exported_score
from workers.export.source import (
    Names,
    by_task,
    example_source,
    module_source,
    names,
    readme,
)
from workers.machine.backends import BACKENDS
from workers.machine.progress import Tell, silent
from workers.spec.fit import lowering_options, refused, task_cost, task_graph
from workers.spec.metrics import METRICS, all_scores
from workers.spec.outcome import Budget, Outcome
from workers.spec.positions import POSITIONS
from workers.spec.task import ModelSpec, Task
from workers.training.evaluate import evaluate

Weights = Mapping[str, npt.NDArray[Any]]

PRECISION = "precision"
"""In a file of weights, the name under which it says in which precision they were trained."""


class ExportError(Exception):
    """An export that cannot be made: what is wrong, and what to do."""


def export_candidate(
    dna: DNA,
    directory: Path,
    *,
    task: Task,
    budget: Budget,
    seed: int,
    card: Mapping[str, Any],
    weights: Path | None = None,
    tell: Tell = silent,
    untrained: bool = False,
    start: Path | None = None,
) -> list[Path]:
    """`export` with the weights of a file that `evaluate` kept, or, where `weights` is None, with
    those of a training run made for it now; its scores then stand in the card under `weights`.
    `tell` counts the budget that the run has used. An `untrained` one has the start values of this
    seed, to be trained elsewhere. `start` is a file of a dense model's weights that a run or start
    values begin with, see `workers.model.upcycling`."""
    check_free(directory)
    if untrained:
        fresh = _start_values(dna, task, seed, start)
        return export(dna, directory, task=task, weights=fresh, card={**card, "trained": False})
    if weights is not None and start is None:
        return export(dna, directory, task=task, weights=weights, card=card)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder, "weights.npz")
        outcome = evaluate(
            dna, task, budget, seed, test=True, weights=str(kept), tell=tell,
            start=None if start is None else str(start),
        )  # fmt: skip
        if outcome.status != "completed":
            raise ExportError(
                f"there are no weights to export: training ended as {outcome.status} "
                f"({outcome.reason}); another seed or a smaller learning rate may help"
            )
        run = _training(budget, seed, outcome)
        return export(dna, directory, task=task, weights=kept, card={**card, "weights": run})


def export(
    dna: DNA, directory: Path, *, task: Task, weights: Weights | Path, card: Mapping[str, Any]
) -> list[Path]:
    """Writes the folder, whole or not at all, and returns its files.

    `weights` are named as in `workers.model.model` (or are the .npz file of them that `evaluate`
    keeps).
    `card` says where the program comes from: `program`, a short title that names the module, and
    what else is known: `candidate` (its record), `verdict` and `changes` against the seed program
    in words, `budget`, `weights` (the training run of these weights). It goes into card.json with
    hash, static cost, task, versions and the DNA added; with `trained_in`, the precision of the
    training run ("unknown" where neither file nor task says it);
    and with `exported`, the scores of the exported model and the precision of its products.

    Raises ExportError where the folder is not new or empty or cannot be written, where the program
    has no type in the task, and where the weights are not its weights.
    """
    check_free(directory)
    graph, arrays, trained_in = _checked_program(dna, task, weights)

    def write(draft: Path) -> None:
        _write(draft, dna, graph, task, arrays, {**card, "trained_in": trained_in})

    _whole_or_not(directory, write)
    return sorted(directory.iterdir())


def export_cut(
    dna: DNA,
    directory: Path,
    *,
    task: Task,
    cut: Sequence[Graph],
    weights: Sequence[npt.NDArray[Any]],
    card: Mapping[str, Any],
) -> list[Path]:
    """Writes the folder of a model that was cut, and returns its files: `cut` is what is left of
    the program's graph in each layer, `weights` are the model's in order. Else as `export`."""
    from workers.model.shape import shape_of

    check_free(directory)
    graph = _checked_graph(dna, task)
    model = task.model.model_copy(update={"layers": len(cut)})
    shape = shape_of(cut, model, len(weights[0]))
    named = dict(zip(shape.names, weights, strict=True))
    small = task.model_copy(update={"model": model})

    def write(draft: Path) -> None:
        _write(draft, dna, graph, small, named, {**card, "trained_in": "float32"}, cut)

    _whole_or_not(directory, write)
    return sorted(directory.iterdir())


def _start_values(dna: DNA, task: Task, seed: int, start: Path | None) -> Weights:
    """What the model's weights are before the first step; ExportError where it has none."""
    from workers.model.shape import embedding_rows, initial_model, layer_graphs, model_shape
    from workers.model.upcycling import NotUpcyclable, upcycled

    graph = _checked_graph(dna, task)
    rows = embedding_rows(task, load_tokens(task.data).vocabulary)
    shape = model_shape(graph, task.model, rows)
    made = initial_model(shape, seed)
    if start is not None:
        try:
            made = upcycled(layer_graphs(graph, task.model), shape, made, dense_weights(start))
        except NotUpcyclable as error:
            raise ExportError(f"{start}: {error}") from error
    return {**dict(zip(shape.names, made, strict=True)), PRECISION: np.array(NOT_TRAINED)}


def dense_weights(path: Path) -> Weights:
    """The weights of a file that `evaluate` kept, by name. Raises ExportError as `export` does."""
    return {name: array for name, array in _loaded(path).items() if name != PRECISION}


def trained_weights(dna: DNA, task: Task, weights: Path) -> tuple[Graph, list[npt.NDArray[Any]]]:
    """The program's graph in the task, and the weights of a file in the model's order. Raises
    ExportError as `export` does."""
    graph, arrays, _ = _checked_program(dna, task, weights)
    return graph, list(arrays.values())


def trained_model(dna: DNA, task: Task, weights: Path) -> Any:
    """The exported model with the weights of a file, without a folder; it can write text if the
    objective's models do. Raises ExportError as `export` does."""
    graph, arrays, _ = _checked_program(dna, task, weights)
    called = _names("candidate", graph, task)
    source = module_source(dna, graph, task, len(arrays["embedding"]), called, {})
    folder = _tokenizer_file(task).parent if task.data.tokenizer == "bpe" else Path()
    return _model(source, called, arrays, folder)


def _checked_program(dna: DNA, task: Task, weights: Weights | Path) -> tuple[Graph, Weights, str]:
    """The program's graph, its weights in order, and the precision in which they were trained;
    ExportError where the program has no type in the task or these are not its weights."""
    graph = _checked_graph(dna, task)
    arrays = dict(_loaded(weights) if isinstance(weights, Path) else weights)
    trained_in = str(arrays.pop(PRECISION, _precision(task)))
    return graph, dict(_in_order(arrays, graph, task.model)), trained_in


def _checked_graph(dna: DNA, task: Task) -> Graph:
    """The program's graph; ExportError where the task cannot have it."""
    graph = task_graph(dna, task)
    if isinstance(graph, IllTyped):
        raise ExportError(f"the program does not type-check in this task: {graph}")
    if reason := refused(graph, task):
        raise ExportError(f"the task cannot have this program: {reason}")
    return graph


def _precision(task: Task) -> str:
    """The precision of a run of which the task alone is known."""
    chosen = task.training.precision
    return "unknown" if chosen == "auto" else chosen


def check_free(directory: Path) -> None:
    """ExportError unless the folder is new or empty."""
    try:
        taken = directory.exists() and (not directory.is_dir() or any(directory.iterdir()))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ExportError(f"{str(directory)[:80]!r} cannot be a folder: {reason}") from None
    if taken:
        raise ExportError(f"{directory} exists and is not an empty folder; name another one")


def _whole_or_not(directory: Path, write: Callable[[Path], None]) -> None:
    """Gives the folder its name when all that `write` puts in it is there."""
    draft: Path | None = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}-"))
        write(draft)
        draft.chmod(0o755)
        draft.replace(directory)
    except OSError as error:
        raise ExportError(f"cannot write {directory}: {error.strerror or error}") from error
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)


def _write(
    folder: Path, dna: DNA, graph: Graph, task: Task, weights: Weights, card: Mapping[str, Any],
    cut: Sequence[Graph] | None = None,
) -> None:  # fmt: skip
    called, rows = _names(str(card["program"]), graph, task, cut), len(weights["embedding"])
    model = _model(module_source(dna, graph, task, rows, called, {}, cut), called, weights)
    card = {**card, "exported": exported_score(model, task, by_task(graph, task, called, cut))}
    whole = _whole_card(dna, graph, task, rows, card, cut)
    facts = facts_of(whole)
    for name, content in (
        (f"{called.module}.py", module_source(dna, graph, task, rows, called, facts, cut)),
        ("example.py", example_source(called, task)),
        ("README.md", readme(graph, task, called, whole, facts, cut)),
        ("card.json", json.dumps(whole, indent=2) + "\n"),
    ):
        (folder / name).write_text(content, encoding="utf-8")
    if task.data.tokenizer == "bpe":
        shutil.copy(_tokenizer_file(task), folder)
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")


def _names(
    title: str, graph: Graph, task: Task, cut: Sequence[Graph] | None = None
) -> Names:  # fmt: skip
    """What an export is called; the text is looked at where the program asks for its tasks."""
    called = names(title)
    if not by_task(graph, task, called, cut):
        return called
    return replace(called, tasks=tuple(load_tokens(task.data).tasks))


def _whole_card(
    dna: DNA, graph: Graph, task: Task, vocabulary: int, card: Mapping[str, Any],
    cut: Sequence[Graph] | None,
) -> dict[str, Any]:  # fmt: skip
    """What the caller knows, and all that follows from program and task."""
    from workers.model.shape import width_of

    cost = task_cost(graph, task, vocabulary)
    if cut is not None:
        learned = POSITIONS[task.model.positions].bounded
        options = lowering_options(task)
        width = width_of(cut, task.model.d_model)
        cost = layers_cost(cut, width, vocabulary, options, learned)
    return {
        **card,
        "hash": graph.hash,
        "generates": how_it_generates(graph, task),
        "static_cost": {**asdict(cost), "vocabulary": vocabulary},
        "task": task.model_dump(mode="json"),
        "versions": {
            "python": platform.python_version(),
            **BACKENDS["tensorflow"].versions(),  # those that are installed
            **BACKENDS[task.training.backend].versions(),
        },
        "text": render(dna),
        "dna": to_json(dna),
    }


def _model(source: str, called: Names, weights: Weights, folder: Path = Path()) -> Any:
    """The exported module's model, holding the weights; a tokenizer's file lies in the folder."""
    module = ModuleType(called.module)
    module.__file__ = str(folder / f"{called.module}.py")
    exec(compile(source, f"{called.module}.py", "exec"), module.__dict__)
    model = module.build_model(name=called.module)
    named = variables_of(model)
    if named.keys() != weights.keys():
        raise ValueError(f"the layer's weights differ: {sorted(named.keys() ^ weights.keys())}")
    for name, array in weights.items():
        named[name].assign(array)
    return model


def variables_of(model: Any) -> dict[str, Any]:
    """The variables of an exported model, named as `workers.model.model` names weights."""
    named = {"embedding": model.embedding.embeddings}
    if hasattr(model, "positions"):
        named["positions"] = model.positions.embeddings
    named |= dict(zip(("norm_scale", "norm_shift"), model.norm.weights, strict=True))
    for number, block in enumerate(model.blocks):
        if any(block is earlier for earlier in model.blocks[:number]):
            continue  # it has the weights of that one
        named |= {f"blocks/{number}/{variable.name}": variable for variable in block.weights}
    return named


def _loaded(path: Path) -> Weights:
    """The arrays of an .npz file. Nothing in it is unpickled."""
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not an .npz file")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _checked(name, arrays[name]) for name in arrays.files}
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise ExportError(f"cannot read the weights {path}: {error.strerror}") from error
    except Exception as error:  # of damaged files, numpy, zipfile and zlib make any kind
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ExportError(
            f"cannot read the weights {path}: damaged ({reason}); restore a copy of the file, or "
            "delete it: without it the program is trained once more"
        ) from error


def _checked(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array, if it holds real numbers or, under PRECISION, a word; a ValueError otherwise."""
    if name == PRECISION:
        if array.dtype.kind != "U" or array.shape:
            raise ValueError(f"'{name}' is not a word")
    elif array.dtype.kind != "f":
        raise ValueError(f"'{name}' holds {array.dtype}, not real numbers")
    return array


def _in_order(weights: Weights, graph: Graph, spec: ModelSpec) -> Weights:
    """The weights in the model's order; ExportError unless names and shapes are those it needs."""
    from workers.model.shape import model_shape

    shape = model_shape(graph, spec, len(weights.get("embedding", ())))
    needed = dict(zip(shape.names, shape.shapes, strict=True))
    given = {name: tuple(array.shape) for name, array in weights.items()}
    for name in [*needed, *given]:
        if needed.get(name) != given.get(name):
            raise ExportError(
                f"these are not the program's weights: '{name}' has shape {given.get(name)}, and "
                f"the model needs {needed.get(name)}; train it once more"
            )
    return {name: weights[name] for name in needed}


def _training(budget: Budget, seed: int, outcome: Outcome) -> dict[str, Any]:
    """The run that made the weights, for the card."""
    static = {row.name for row in METRICS.values() if row.where == "static"}
    scores = {name: value for name, value in all_scores(outcome).items() if name not in static}
    return {"seed": seed, "budget": asdict(budget), **scores}


def _tokenizer_file(task: Task) -> Path:
    """The BPE that the task's tokens were made with; it lies beside them."""
    tokens: Any = load_tokens(task.data).train
    return Path(tokens.filename).with_name("tokenizer.json")
