"""Verbs that only look work where nothing can be written, as on a mounted archive."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import ROOT, primevo
from tests.search.test_first_version import DUMP

VERBS = (
    ("list", "-o", "json"), ("status", "small", "-o", "json"), ("top", "small", "-o", "json"),
    ("show", "small", "2"), ("lineage", "small", "2"), ("curve", "small", "-o", "json"),
    ("db", "check"),
)  # fmt: skip

SCRIPT = """\
import json, sys
from typer.testing import CliRunner
from search.cli.app import app
answers = [CliRunner().invoke(app, verb) for verb in json.loads(sys.argv[1])]
print(json.dumps([[answer.exit_code, answer.stdout, answer.stderr] for answer in answers]))
"""


def without_writing(folder: Path, *verbs: tuple[str, ...]) -> list[Any]:
    """Exit code, stdout and stderr of verbs that see the folder as a read-only file system."""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a read-only mount needs root and util-linux")
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && cd "$0" && exec "$@"'
    return answers(["unshare", "--mount", "sh", "-c", mount, str(folder), *run(verbs)], folder)


def run(verbs: tuple[tuple[str, ...], ...]) -> list[str]:
    return [sys.executable, "-c", SCRIPT, json.dumps(verbs)]


def answers(command: list[str], folder: Path) -> list[Any]:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def archive(campaign: Path, tmp_path: Path) -> Path:
    """A folder with nothing but the database of a finished campaign."""
    folder = tmp_path / "archive"
    folder.mkdir()
    with (
        closing(sqlite3.connect(campaign / "primevo.db")) as source,
        closing(sqlite3.connect(folder / "primevo.db")) as target,
    ):
        source.backup(target)
        target.execute("PRAGMA journal_mode=WAL")
    return folder


def test_every_verb_that_looks(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    *found, (code, _, errors) = without_writing(
        archive, *VERBS, ("report", "small", "--to", str(page))
    )
    assert (code, errors) == (0, "") and "</html>" in page.read_text()
    assert os.listdir(archive) == ["primevo.db"]
    monkeypatch.chdir(archive)
    for verb, (code, output, errors) in zip(VERBS, found, strict=True):
        expected = primevo(*verb)
        assert (code, output, errors) == (0, expected.stdout, expected.stderr), verb


@pytest.mark.slow
def test_what_writes_says_so(archive: Path) -> None:
    verbs = (("resume", "small"), ("delete", "small", "--yes"), ("db", "upgrade", "--to", "0002"))
    for code, output, errors in without_writing(archive, *verbs[1:]):
        assert (code, output) == (1, "")
        assert "cannot be written" in errors and len(errors.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("index", [True, False])
def test_a_log_beside_the_database_is_read(archive: Path, tmp_path: Path, index: bool) -> None:
    """As after SIGKILL: the last rows are in the write-ahead log alone. Where its index is missing,
    as in a copy of the two files, SQLite cannot read it, and older rows are not shown as the last
    ones."""
    with closing(sqlite3.connect(archive / "primevo.db")) as writer:
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute("UPDATE campaigns SET name = 'renamed'")
        writer.commit()
        left = tmp_path / "left"
        shutil.copytree(archive, left)
    assert (left / "primevo.db-wal").stat().st_size > 0
    if not index:
        (left / "primevo.db-shm").unlink()
    ((code, output, errors),) = without_writing(left, ("list", "-o", "json"))
    if index:
        assert (code, errors) == (0, "")
        assert [line["name"] for line in json.loads(output)] == ["renamed"]
    else:
        assert (code, output) == (1, "")
        assert "what was recorded last is in primevo.db-wal" in errors


@pytest.mark.slow
def test_an_older_schema_says_what_to_do(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "primevo.db")) as connection:
        connection.executescript(DUMP.read_text(encoding="utf-8"))
    ((code, _, errors),) = without_writing(tmp_path, ("list",))
    assert code == 1
    assert "revision 0002" in errors and "copy the file to a folder that can" in errors


@pytest.mark.slow
def test_a_folder_of_somebody_else(archive: Path) -> None:
    """Permissions, where the other tests have a mount. The user is root without its privileges,
    since the interpreter may be in a folder that is root's alone."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("giving privileges up needs root and util-linux")
    for path, mode in ((archive / "primevo.db", 0o444), (archive, 0o555)):
        os.chown(path, 65534, 65534)
        path.chmod(mode)
    plain = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    code, output, errors = answers([*plain, *run((("list", "-o", "json"),))], archive)[0]
    assert (code, errors) == (0, "")
    assert [line["name"] for line in json.loads(output)] == ["small"]
