"""The wheel and the source distribution are the same files wherever and whenever they are built."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEFT_OUT = shutil.ignore_patterns(
    ".git", "__pycache__", ".*_cache", ".hypothesis", "dist", "*.db*", "primevo-weights", ".venv"
)


def copied(folder: Path, epoch: int) -> Path:
    """A copy of this checkout whose files were all changed at the same moment."""
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
    for path in folder.rglob("*"):
        os.utime(path, (epoch, epoch))
    return folder


def built(folder: Path, umask: str = "022") -> dict[str, str]:
    """SHA-256 of what hatchling builds there, by file name."""
    subprocess.run(
        ["sh", "-c", f'umask {umask}; exec "$@"', "sh", sys.executable, "-m", "hatchling", "build"],
        cwd=folder, env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}, check=True,
        capture_output=True,
    )  # fmt: skip
    files = sorted((folder / "dist").iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.slow
def test_two_builds_are_equal(tmp_path: Path) -> None:
    first = built(copied(tmp_path / "one", 1_500_000_000))
    second = built(copied(tmp_path / "another" / "place", 1_600_000_000), "077")
    assert len(first) == 2
    assert first == second
    (tmp_path / "one" / "search" / "new.py").touch()
    shutil.rmtree(tmp_path / "one" / "dist")
    assert built(tmp_path / "one") != first, "the check itself sees a difference"
