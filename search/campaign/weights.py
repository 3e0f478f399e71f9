"""A campaign's folder of weights: those of its finalists, and the checkpoints of its paused
candidates, as far as this machine sees them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from search.config.schema import PAUSED
from search.errors import UsageError


def refuse_others(folder: Path) -> None:
    """Raises a UsageError where the folder of a campaign that begins holds a finalist's weights:
    they are of an earlier campaign of its name, or of one in another database, and would be
    exported as those of its own candidates."""
    if any(folder.glob("*.npz")):
        raise UsageError(
            f"{folder} holds weights of another campaign '{folder.name}', which this one would "
            "overwrite; choose another name, or another folder by the key weights of the config, "
            "or remove that folder"
        )


def discard(folder: Path) -> None:
    """Removes all checkpoints, and the folder if nothing else is in it: no candidate goes on any
    more. The folder's path may come from somebody else's database, so nothing goes that is no
    checkpoint by its name."""
    paused = folder / PAUSED
    with suppress(OSError):
        for file in paused.iterdir():
            if file.stem.isdecimal() and file.suffix in (".npz", ".draft"):
                file.unlink()
        paused.rmdir()
    with suppress(OSError):
        folder.rmdir()
