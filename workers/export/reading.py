"""An exported folder read again: its model, ready to write text."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

from workers.export.export import ExportError, dense_weights, variables_of

MODEL = "model.keras"


def is_exported(folder: Path) -> bool:
    """Whether a folder holds a saved model, as `export` writes it."""
    return (folder / MODEL).is_file()


def exported_model(folder: Path) -> Any:
    """The language model of an exported folder. Its module is imported, which runs the code that
    stands in it. Raises ExportError where the folder is not a whole export."""
    import keras

    modules = [path for path in folder.glob("*.py") if path.name != "example.py"]
    if not is_exported(folder) or len(modules) != 1:
        raise ExportError(
            f"{folder} is not an exported folder: it has to hold {MODEL} and one module beside "
            "example.py; write it again by primevo export"
        )
    (path,) = modules
    try:
        spec = spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        spec.loader.exec_module(module_from_spec(spec))
        return keras.saving.load_model(folder / MODEL)
    except Exception as error:  # of damaged files, Keras and Python make any kind
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ExportError(
            f"cannot load {folder}: {reason}; write it again by primevo export"
        ) from error


def dense_file(source: Path, folder: Path) -> Path:
    """The weights file of a trained model that another one can start from: `source` itself, or, of
    an exported folder, a file that is written into `folder`. ExportError where it is neither."""
    if not source.is_dir():
        dense_weights(source)
        return source
    named = variables_of(exported_model(source))
    path = folder / "dense.npz"
    arrays: dict[str, Any] = {name: np.asarray(each.value) for name, each in named.items()}
    np.savez(path, **arrays)
    return path


def trained_length(model: Any) -> tuple[int, bool]:
    """How many positions a model was trained with, and whether it has only these."""
    return int(model.sequence_length), hasattr(model, "positions")


def prompt_length(model: Any, prompt: str) -> int:
    """Tokens of a prompt, by the `encode` of the exported module; 0 where the model writes none."""
    return len(model.generate.__globals__["encode"](prompt)) if hasattr(model, "generate") else 0


def continued(model: Any, prompt: str, count: int, *, sliding: bool = True, **options: Any) -> str:
    """The prompt and `count` tokens after it, by `generate` with these options; in windows of the
    trained length if `sliding`. Raises ExportError where the model writes no text or refuses these
    options."""
    if not hasattr(model, "generate"):
        raise ExportError(
            "this model writes no text: it was trained for another objective than next_token, or "
            "exported by a version that knew no generate; export it again"
        )
    try:
        return str(model.generate(prompt, count, sliding=sliding, **options))
    except ValueError as error:
        raise ExportError(str(error)) from error
