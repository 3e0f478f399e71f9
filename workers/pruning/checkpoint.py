"""What a pruning has come to, in a folder of its own, so that a killed one goes on.

Each part of the work, such as training under gates, leaves a file when it ends. The part under way
leaves all that its next steps depend on now and then. A file is there whole or not at all.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from workers.machine import arrays
from workers.pruning.failure import PruningError

if TYPE_CHECKING:  # those who only look need no arrays
    import numpy.typing as npt

    Array = npt.NDArray[Any]

Result = TypeVar("Result")

INTERVAL_S = 5.0
"""Seconds between two files of the part under way."""

_RUNNING = "under way"
_LOCK = "lock"


def held(folder: Path) -> bool:
    """Whether a process of this machine is at work in the folder."""
    try:
        with (folder / _LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class Checkpoint:
    """The files of one pruning; without a folder nothing is kept, and nothing found."""

    def __init__(self, folder: Path | None = None, interval_s: float = INTERVAL_S) -> None:
        self._folder, self._interval_s = folder, interval_s
        self._next = time.monotonic() + interval_s
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """The right to write here, which the system takes back from a process that dies. A
        PruningError where another process has it."""
        if self._folder is None:
            yield
            return
        with (self._folder / _LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PruningError(
                    f"another process does this already (its files are in {self._folder}); wait "
                    "for it, or end it"
                ) from None
            yield

    def part(self, name: str) -> list[Array] | None:
        """What a part has left at its end; None where it has not ended."""
        found = self._read(name)
        return None if found is None else found[1]

    def finish(self, name: str, kept: Sequence[Array]) -> None:
        """The part has ended, with this."""
        self._write(name, {"part": name}, kept)
        self._remove(_RUNNING)

    def go_on(self, name: str, restore: Callable[[list[Array]], None]) -> int:
        """Hands to `restore` what the part's next steps depend on, and gives the number of those
        before; 0 where nothing was kept. A PruningError where `restore` cannot use it, such as what
        another version has kept."""
        found = self._read(_RUNNING)
        if found is None or found[0].get("part") != name:
            return 0
        with _damage_told(self._path(_RUNNING)):
            restore(found[1])
        return int(found[0]["steps"])

    def keep(self, name: str, steps: int, kept: Callable[[], Sequence[Array]]) -> None:
        """Keeps what the part's next steps depend on, unless that was done a moment ago."""
        if time.monotonic() >= self._next:
            self.keep_now(name, steps, kept)

    def keep_now(self, name: str, steps: int, kept: Callable[[], Sequence[Array]]) -> None:
        """Keeps it however long ago that was done."""
        if self._folder is not None:
            self._write(_RUNNING, {"part": name, "steps": steps}, kept())
        self._next = time.monotonic() + self._interval_s

    def said(self, read: Callable[[Any], Result]) -> Result | None:
        """What `read` makes of the JSON data that `say` was given; None before."""
        if self._folder is None or not (file := self._folder / "result.json").is_file():
            return None
        with _damage_told(file):
            return read(json.loads(file.read_text(encoding="utf-8")))

    def say(self, result: Any) -> None:
        """Keeps the result of the end, JSON data."""
        if self._folder is not None:
            text = json.dumps(result)
            arrays.replace(self._folder / "result.json", lambda file: file.write(text.encode()))

    def _read(self, name: str) -> tuple[dict[str, Any], list[Array]] | None:
        if self._folder is None:
            return None
        with _damage_told(self._path(name)):
            found = arrays.read(self._path(name))
            if found is not None:
                found[0]["steps"] = int(found[0].get("steps", 0))
            return found

    def _write(self, name: str, about: dict[str, Any], kept: Sequence[Array]) -> None:
        if self._folder is not None:
            arrays.write(self._path(name), about, kept)

    def _remove(self, name: str) -> None:
        if self._folder is not None:
            with suppress(FileNotFoundError):
                self._path(name).unlink()

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{name.replace(' ', '-')}.npz"


@contextmanager
def _damage_told(file: Path) -> Iterator[None]:
    """A PruningError for whatever reading the file, or using what it holds, raises."""
    try:
        yield
    except Exception as error:
        raise PruningError(
            f"{file} is damaged ({arrays.damage(error)}): delete it, and that part is done again"
        ) from error
