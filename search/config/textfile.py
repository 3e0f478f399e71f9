"""A text file that a person names."""

from __future__ import annotations

from pathlib import Path

from search.errors import UsageError


def read_text(path: Path, kind: str) -> str:
    """The file's UTF-8 text, or a UsageError. A pipe is refused: reading one might never end."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UsageError(f"cannot read the {kind} {shown(path)}: it is not a regular file")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = str(error.strerror)
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except ValueError as error:  # a NUL in the path, or what no path may hold
        reason = str(error)
    raise UsageError(f"cannot read the {kind} {shown(path)}: {reason}")


def shown(path: Path) -> str:
    """The path as a message shows it, cut where it is long."""
    text = str(path)
    return text if len(text) <= 300 else f"{text[:297]}..."
