"""Files of arrays: weights, tokens, groups of similar text, and what prunings go on from."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from primitives.graph.build import build
from primitives.programs.seeds import load_seed
from tests.fuzz.inputs import folder, written


def weights(data: bytes) -> str | None:
    """A file of trained weights."""
    from workers.export.export import ExportError, _in_order, _loaded
    from workers.spec.task import ModelSpec

    try:
        arrays = dict(_loaded(written("weights.npz", data)))
        arrays.pop("precision", None)
        _in_order(arrays, build(load_seed("transformer", 8)), ModelSpec(d_model=8))  # type: ignore[arg-type]
    except ExportError as refusal:
        return str(refusal)
    return None


def weight_files() -> list[bytes]:
    from workers.model.shape import initial_model, model_shape
    from workers.spec.task import ModelSpec

    graph = build(load_seed("transformer", 8))
    shape = model_shape(graph, ModelSpec(d_model=8), 4)  # type: ignore[arg-type]
    sound = dict(zip(shape.names, initial_model(shape, 1), strict=True))
    files = []
    for arrays in (
        {**sound, "precision": np.array("float32")},
        {"embedding": np.ones((4, 8), np.float32), "precision": np.array("float32")},
        {"embedding": np.array([{}], object)},
        {"a" * 300: np.zeros(0)},
    ):
        for save in (np.savez, np.savez_compressed):
            made = io.BytesIO()
            save(made, **arrays)  # type: ignore[arg-type]
            files.append(made.getvalue())
    plain = io.BytesIO()
    np.save(plain, np.ones(3))
    return [*files, plain.getvalue()]


def tokens(data: bytes) -> str | None:
    """A folder of the token cache, one of whose files is not what was written."""
    from workers.data.corpora import DataError
    from workers.data.tokens import _open

    place = folder() / "tokens"
    place.mkdir(exist_ok=True)
    array = _npy(np.arange(100, dtype=np.uint8))
    meta = json.dumps({"vocabulary": 256, "bytes_per_token": dict.fromkeys(_SPLITS, 1.0)})
    for split in _SPLITS:
        (place / f"{split}.npy").write_bytes(array)
    (place / "meta.json").write_text(meta)
    (place / ("meta.json" if data[:1] == b"{" else "train.npy")).write_bytes(data)
    try:
        _open(place)
    except DataError as refusal:
        return str(refusal)
    return None


_SPLITS = ("train", "validation", "test")


def _npy(array: Any) -> bytes:
    made = io.BytesIO()
    np.save(made, array, allow_pickle=True)
    return made.getvalue()


def token_files() -> list[bytes]:
    arrays = (np.arange(100, dtype=np.uint8), np.ones((2, 2)), np.array([{}], object))
    meta = {"vocabulary": 256, "bytes_per_token": dict.fromkeys(_SPLITS, 1.0)}
    return [*map(_npy, arrays), json.dumps(meta).encode()]


def similar(data: bytes) -> str | None:
    """The file in which groups of similar text are kept beside a split."""
    from workers.data.corpora import DataError
    from workers.data.similar import similar_segments

    written("split.npy", _npy(np.arange(100, dtype=np.uint8)))
    written("split-similar-8-2.npy", data)
    split = np.load(folder() / "split.npy", mmap_mode="r")
    try:
        found = similar_segments(split, 8, 2)
    except DataError as refusal:
        return str(refusal).partition(" are damaged ")[2]
    assert all(len(split[start : start + 9]) == 9 for start in found.flat)
    return None


def similar_files() -> list[bytes]:
    sound = np.arange(0, 80, 8).reshape(-1, 2)
    return [_npy(each) for each in (sound, sound + 50, sound.astype(float), sound[0])]


def pruning(data: bytes) -> str | None:
    """A pruning's folder, one of whose files is not what was written: a part that has ended, the
    one under way, or the table."""
    from workers.pruning.checkpoint import Checkpoint
    from workers.pruning.failure import PruningError
    from workers.pruning.table import from_json

    kept = Checkpoint(folder() / "pruning")
    written("pruning/gates.npz", data)
    written("pruning/under-way.npz", data)
    written("pruning/result.json", data)
    said = list[str]()
    for look in (
        lambda: kept.part("gates"),
        lambda: kept.go_on("gates", lambda arrays: None),
        lambda: kept.said(from_json),
    ):
        try:
            look()
        except PruningError as refusal:
            said.append(str(refusal).partition(" is damaged ")[2])
    return said[0] if len(said) == 3 else None


def pruning_files() -> list[bytes]:
    """Those of a real pruning's kinds."""
    from primitives.lowering.cost import Cost
    from workers.pruning.checkpoint import Checkpoint
    from workers.pruning.table import Row, as_json

    place = folder() / "sound-pruning"
    kept = Checkpoint(place)
    kept.finish("pruned", [np.ones(3), np.zeros((2, 0), np.float32)])
    kept.keep_now("gates", 32, lambda: [np.arange(4), np.float32(1)])
    row = Row("pruned", 2, Cost(1, 2, 3, 4, 5), 32, 2.5, 2.5, (10.0, 20.0))
    kept.say(as_json([row]))
    (place / "lock").unlink(missing_ok=True)
    return [file.read_bytes() for file in sorted(place.iterdir())]
