"""Arrays in a file with a note about them, which is there whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:  # those who only look need no arrays
    import numpy.typing as npt

    Array = npt.NDArray[Any]

Note = dict[str, Any]
"""JSON data."""


class Damaged(Exception):
    """A file that is there and cannot be read; the message says why, in one line."""


def write(path: Path, note: Note, arrays: Sequence[Array]) -> None:
    """Writes an .npz file, in the place of an earlier one."""
    import numpy as np

    named: dict[str, Any] = {f"array_{number}": each for number, each in enumerate(arrays)}
    named["about"] = json.dumps({**note, "count": len(arrays)})
    replace(path, lambda file: np.savez(file, **named))


def read(path: Path) -> tuple[Note, list[Array]] | None:
    """The note and the arrays of a file; None where there is none. Raises Damaged."""
    found: tuple[Note, list[Array]] | None = _read(path, _all)
    return found


def read_note(path: Path) -> Note | None:
    """The note alone, which is read in a moment."""
    found: Note | None = _read(path, lambda file, note: note)
    return found


def _all(file: Any, note: Note) -> tuple[Note, list[Array]]:
    return note, [file[f"array_{number}"] for number in range(note["count"])]


def _read(path: Path, take: Callable[[Any, Note], Any]) -> Any:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as found:
            if any(each.compress_type for each in found.zip.infolist()):
                raise Damaged("it is compressed: what is in it may be larger than the memory")
            return take(found, dict(json.loads(str(found["about"]))))
    except FileNotFoundError:
        return None
    except Exception as error:  # of damaged files, numpy, zipfile and zlib make any kind
        raise damage(error) from error


def damage(error: Exception) -> Damaged:
    """What an exception that reading a file has raised says of it."""
    if isinstance(error, Damaged):
        return error
    return Damaged(" ".join(f"{type(error).__name__}: {error}".split())[:200])


def replace(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file that is there whole or not at all, even where the power fails."""
    draft = path.with_suffix(".draft")
    try:
        with draft.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:  # the disk may be full, or somebody presses Ctrl-C
        with suppress(OSError):
            draft.unlink()
        raise
    draft.replace(path)
