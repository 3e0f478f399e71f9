"""Databases with damage in them: every verb that reads tells so in one message."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from search.cli.app import app
from search.storage.schema import HEAD
from search.storage.store import Store
from tests.search.test_first_version import DUMP

VERBS = (
    ("list",),
    ("status", "first"),
    ("top", "first"),
    ("show", "first", "2"),
    ("show", "first", "2", "-o", "json"),
    ("lineage", "first", "3"),
    ("curve", "first", "2"),
    ("check", "--finalists", "first"),
    ("replay", "first"),
    ("studies", "list"),
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database file of the newest schema, with one campaign of 15 candidates."""
    path = tmp_path_factory.mktemp("sound") / "sound.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(DUMP.read_text(encoding="utf-8"))
    Store.open(f"sqlite:///{path}").close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    return path.read_bytes()


def told(path: Path, verb: tuple[str, ...]) -> tuple[int, str]:
    """Exit code and stderr of a verb, which does not end in an exception."""
    result = CliRunner().invoke(app, [*verb, "--storage", f"sqlite:///{path}"])
    assert result.exception is None or isinstance(result.exception, SystemExit), (
        verb, result.exception,
    )  # fmt: skip
    assert result.exit_code in (0, 1, 2, 3)
    found = verb[0] == "replay" and result.stdout  # a difference is no failure of the verb
    assert result.exit_code == 0 or found or "primevo: " in result.stderr
    return result.exit_code, result.stderr


def overwritten(content: bytes, rng: random.Random) -> bytes:
    """The content after accidents of one kind: bits turned over, stretches of noise, or characters
    that leave the text readable; in the whole file or in its first pages, where the schema is."""
    made = bytearray(content)
    reach = rng.choice((len(made), 8192))
    kind = rng.choice(("bit", "noise", "character"))
    for _ in range(rng.choice((1, 5, 40, 400))):
        at = rng.randrange(reach)
        if kind == "bit":
            made[at] ^= 1 << rng.randrange(8)
        elif kind == "noise":
            made[at : at + 40] = rng.randbytes(len(made[at : at + 40]))
        else:
            made[at] = rng.choice(b'0123456789abc"{}[],-')
    return bytes(made)


@pytest.mark.parametrize("seed", range(20))
def test_overwritten_bytes(sound: bytes, tmp_path: Path, seed: int) -> None:
    damaged = overwritten(sound, random.Random(seed))
    for number, verb in enumerate(VERBS):
        path = tmp_path / f"{number}.db"  # opening may leave files beside it
        path.write_bytes(damaged)
        told(path, verb)


VALUES = (
    b"\xff\x00", None, "", "x", 2**62, -1, float("inf"), "[]", "[[1]]", '{"a": 1}', "x\0y",
    "[" * 3000, "1" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("table", ["campaigns", "candidates", "evaluations"])
def test_values_of_the_wrong_kind(sound: bytes, tmp_path: Path, table: str) -> None:
    """Each column of a row holds in turn what no campaign records."""
    rng = random.Random(table)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(sound)
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    for number, column in enumerate(columns * 2):
        path = tmp_path / f"{number}.db"
        path.write_bytes(sound)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            update = f"UPDATE OR IGNORE {table} SET {column} = ? WHERE rowid <= 2"
            with suppress(sqlite3.IntegrityError):
                connection.execute(update, (rng.choice(VALUES),))
        told(path, rng.choice(VERBS))


@pytest.mark.parametrize(
    ("statement", "verb", "parts"),
    [
        ("UPDATE campaigns SET config = substr(config, 1, 90)", ("status", "first"),
         ("campaign 'first'", "stored config", "restore a copy")),
        ("UPDATE campaigns SET config = replace(config, '\"population\"', '\"populaxion\"')",
         ("top", "first"), ("campaign 'first'", "search.populaxion", "restore a copy")),
        ("UPDATE candidates SET dna = replace(dna, 'ADD', 'A=D')", ("show", "first", "2"),
         ("candidate 2 of first:", "cannot read", "restore a copy")),
        ("UPDATE evaluations SET candidate_id = 9 WHERE candidate_id = 3",
         ("top", "first", "--pareto", "--by", "step_time_s"),
         ("x.db", "damaged", "restore a copy")),
        ("UPDATE candidates SET rejections = 'nothing'", ("status", "first"),
         ("x.db", "damaged", "restore a copy")),
        ("UPDATE evaluations SET curve = 'nothing'", ("curve", "first", "2"),
         ("x.db", "damaged (JSONDecodeError", "restore a copy")),
        ("UPDATE campaigns SET created_at = 'noon'", ("list",),
         ("x.db", "damaged (TypeError", "restore a copy")),
    ],
)  # fmt: skip
def test_what_is_damaged_is_named(
    sound: bytes, tmp_path: Path, statement: str, verb: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(sound)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute(statement)
    code, message = told(path, verb)
    assert code == 1
    assert all(part in message for part in parts), message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_truncated_and_foreign_files(sound: bytes, tmp_path: Path, verb: tuple[str, ...]) -> None:
    contents = [sound[:size] for size in (1, 50, 100, 4096, 5000, len(sound) // 2, len(sound) - 1)]
    for number, content in enumerate([*contents, b"PK\3\4" * 500, b"\0" * 9000, b"text " * 900]):
        path = tmp_path / f"{number}.db"
        path.write_bytes(content)
        code, message = told(path, verb)
        assert code == 0 or "Traceback" not in message


@pytest.mark.parametrize("metrics", ["[1]", '"x"', "x"])
def test_a_schema_that_goes_back_over_damaged_metrics(
    sound: bytes, tmp_path: Path, metrics: str
) -> None:
    """The step back takes metrics apart; where it cannot, the database stays as it is."""
    path = tmp_path / "a.db"
    path.write_bytes(sound)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE evaluations SET metrics = ?", (metrics,))
    code, said = told(path, ("db", "upgrade", "--to", "0002"))
    assert code == 1 and "a.db: its content is damaged" in said
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone()[0] == HEAD
