"""What is fuzzed. A target takes bytes and gives what it was told: a refusal's text, or None where
the input was taken. Anything else that comes out, an exception of another kind, is a finding."""

from __future__ import annotations

import contextlib
import io
import json
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from primitives.errors import ProgramError
from primitives.graph.build import IllTyped, build
from primitives.graph.live import live_program
from primitives.language.constant import resolve
from primitives.language.jsonform import from_json, to_json
from primitives.language.text import parse, render
from primitives.programs.seeds import load_seed, seed_names, seed_text
from search.config import file as config_file
from search.config import parts as config_parts
from search.config import programfile
from search.errors import PrimevoError, UsageError


@dataclass(frozen=True, slots=True)
class Target:
    """`seeds` are inputs to begin with; `attempt` is given one of their mutants. A `slow` one takes
    more than some milliseconds."""

    name: str
    seeds: Callable[[], Sequence[bytes]]
    attempt: Callable[[bytes], str | None]
    slow: bool = False


@cache
def folder() -> Path:
    """Where targets write the files that they have read."""
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def _written(name: str, data: bytes) -> Path:
    path = folder() / name
    path.write_bytes(data)
    return path


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _programs() -> list[bytes]:
    return [seed_text(name).encode() for name in seed_names()]


def program_text(data: bytes) -> str | None:
    """What parses is well formed, reads back as itself, and has a type or a reason."""
    programfile.first_sentence(programfile.headline(_text(data)))
    try:
        dna = parse(_text(data), "fuzz", 64)
    except ProgramError as refusal:
        return str(refusal)
    assert parse(render(dna)) == dna
    assert from_json(json.loads(json.dumps(to_json(dna)))) == dna
    graph = build(dna, bidirectional=True)
    if isinstance(graph, IllTyped):
        return str(graph)
    assert build(live_program(dna), bidirectional=True).hash == graph.hash  # type: ignore[union-attr]
    return None


def program_file(data: bytes) -> str | None:
    """A program in a file, as text, as JSON, or as an export's card."""
    suffix = ".json" if data[:1] in (b"{", b"[", b'"') else ".dna"
    try:
        programfile.read_program(_written(f"program{suffix}", data), 64)
    except UsageError as refusal:
        return str(refusal)
    return None


def _program_files() -> list[bytes]:
    forms = [to_json(load_seed(name, 64)) for name in seed_names()]
    cards: list[Any] = [{"program": "a", "dna": forms[0]}, {"text": seed_text("switch")}]
    return [*_programs()[:5], *(json.dumps(one).encode() for one in [*forms, *cards])]


def constant(data: bytes) -> str | None:
    try:
        value = resolve(_text(data), (8, 1, 2), 64)
    except ProgramError as refusal:
        return str(refusal)
    assert isinstance(value, float)
    return None


def config(data: bytes) -> str | None:
    """A config file. Plug-ins that it names are not imported here: to import them is what they are
    named for."""
    first, _, override = _text(data).partition("\n--set ")
    path = _written("config.yaml", first.encode("utf-8", "surrogateescape"))
    with _replaced(config_parts, "load_plugins", _no_plugin):
        try:
            config_file.load(path, [override.partition("\n")[0]] if override else [])
        except UsageError as refusal:
            return str(refusal)
    return None


def _no_plugin(names: Sequence[str]) -> None:
    raise UsageError(f"no plug-in {names}")


def _configs() -> list[bytes]:
    from search.config.examples import names, text

    examples = [text(name).encode() for name in names()]
    keys = (b"search.budget.base=5", b"task.model.positions=rotary")
    return [*examples, *(one + b"\n--set " + key for one in examples for key in keys)]


def study_config(data: bytes) -> str | None:
    """A file that `primevo study` reads: a grid of programs, sizes, texts and budgets."""
    from search.config import gridfile

    first, _, override = _text(data).partition("\n--set ")
    path = _written("study.yaml", first.encode("utf-8", "surrogateescape"))
    with _replaced(config_parts, "load_plugins", _no_plugin):
        try:
            gridfile.load_study(path, [override.partition("\n")[0]] if override else [])
        except UsageError as refusal:
            return str(refusal)
    return None


def _study_configs() -> list[bytes]:
    from search.config.examples import folder as examples

    texts = [path.read_bytes() for path in sorted((examples() / "studies").glob("*.yaml"))]
    small = b"programs: {transformer: {}}\nbudget: {unit: steps, amounts: [1, 2]}\n"
    grid = b"grid: {d_model: [16, 32], layers: [1], data: [{source: sotu}]}\n"
    varied = b"programs: {switch: {vary: {n0: [2, 4]}}}\nbudget: {unit: flops, amounts: [1e9]}\n"
    keys = (b"budget.amounts=[5]", b"grid.d_model=[8]")
    return [*texts, small, small + grid, varied, *(small + b"\n--set " + key for key in keys)]


def weights(data: bytes) -> str | None:
    """A file of trained weights."""
    from workers.export.export import ExportError, _in_order, _loaded
    from workers.spec.task import ModelSpec

    try:
        arrays = dict(_loaded(_written("weights.npz", data)))
        arrays.pop("precision", None)
        _in_order(arrays, build(load_seed("transformer", 8)), ModelSpec(d_model=8))  # type: ignore[arg-type]
    except ExportError as refusal:
        return str(refusal)
    return None


def _weights() -> list[bytes]:
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


def _token_files() -> list[bytes]:
    arrays = (np.arange(100, dtype=np.uint8), np.ones((2, 2)), np.array([{}], object))
    meta = {"vocabulary": 256, "bytes_per_token": dict.fromkeys(_SPLITS, 1.0)}
    return [*map(_npy, arrays), json.dumps(meta).encode()]


def similar(data: bytes) -> str | None:
    """The file in which groups of similar text are kept beside a split."""
    from workers.data.corpora import DataError
    from workers.data.similar import similar_segments

    _written("split.npy", _npy(np.arange(100, dtype=np.uint8)))
    _written("split-similar-8-2.npy", data)
    split = np.load(folder() / "split.npy", mmap_mode="r")
    try:
        found = similar_segments(split, 8, 2)
    except DataError as refusal:
        return str(refusal).partition(" are damaged ")[2]
    assert all(len(split[start : start + 9]) == 9 for start in found.flat)
    return None


def _similar_files() -> list[bytes]:
    sound = np.arange(0, 80, 8).reshape(-1, 2)
    return [_npy(each) for each in (sound, sound + 50, sound.astype(float), sound[0])]


@cache
def _database() -> bytes:
    from search.campaign.controller import Controller
    from search.storage.store import Store
    from search.study.study import Subject
    from tests.search.instant import InstantEvaluator, launch
    from tests.study.known import SEED, SQUARED, study

    path = folder() / "sound.db"
    with Store.open(f"sqlite:///{path}") as store:
        campaign = launch(store, "first", candidates=12, seeds=("transformer", "switch"))
        Controller(store, campaign, InstantEvaluator(2)).run()
        made, _ = study(store)
        made.run(
            [Subject.of("a", parse(text, d_model=64), made.setting) for text in (SEED, SQUARED)]
        )
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    return path.read_bytes()


def database_row(data: bytes) -> str | None:
    """A value in a column of one row, and every way of looking at the campaign."""
    from search.campaign import queries
    from search.campaign.replay import replay
    from search.report.page import render as page
    from search.storage.store import Store
    from search.study import kept, prunings

    place, _, value = data.partition(b"|")
    rng = random.Random(place)
    path = _written("row.db", _database())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        table = rng.choice(TABLES)
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        stored: object = value
        if rng.random() < 0.7:
            stored = value.decode("utf-8", "replace")
        statement = f"UPDATE {table} SET {rng.choice(columns)} = ? WHERE rowid = ?"
        with contextlib.suppress(sqlite3.Error):
            connection.execute(statement, (stored, rng.randrange(1, 13)))
    told = []
    looks: list[Callable[[Store], object]] = [
        queries.campaigns, lambda store: queries.summary(store, "first"),
        lambda store: queries.top(store, "first"), lambda store: replay(store, "first"),
        lambda store: queries.lineage(store, "first", 9), _known_runs,
        lambda store: [kept.runs(store, each.study) for each in kept.studies(store)],
        lambda store: [each.record for each in prunings.prunings(store)],
        lambda store: [queries.stored_program(store, store.campaign("first"), id)
                       for id in range(1, 13)],
    ]  # fmt: skip
    if rng.random() < 0.2:
        looks.append(lambda store: page(store, "first"))
    for look in looks:
        try:
            with Store.open(f"sqlite:///{path}", create=False) as store, store.understanding():
                look(store)
        except PrimevoError as refusal:
            told.append(str(refusal))
    return told[0] if told else None


def _known_runs(store: Any) -> None:
    """The runs that a study asks for, as it asks."""
    from search.study.runs import known
    from search.study.setting import setting
    from tests.study.known import SEED, SQUARED, graph_of, small_config

    made = setting(small_config(), 3)
    hashes = [graph_of(parse(text, d_model=64)).hash for text in (SEED, SQUARED)]
    known(store, made, [(each, seed) for each in hashes for seed in made.seeds])


TABLES = ("campaigns", "candidates", "evaluations", "study_runs", "prunings")


def _row_values() -> list[bytes]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(_database())
        values = [value for table in TABLES
                  for row in connection.execute(f"SELECT * FROM {table} LIMIT 3")
                  for value in row if isinstance(value, str)]  # fmt: skip
    return [f"{number}|{value}".encode() for number, value in enumerate(dict.fromkeys(values))]


def database_file(data: bytes) -> str | None:
    """A database file, some of whose bytes are others."""
    from search.campaign import queries
    from search.storage.store import Store

    rng, made = random.Random(data), bytearray(_database())
    for _ in range(rng.choice((1, 5, 50))):
        at = rng.randrange(len(made))
        made[at : at + len(data)] = data[: len(made) - at] or b"\0"
        data = data[rng.randrange(len(data) + 1) :]
    path = _written("file.db", bytes(made))
    for beside in ("file.db-wal", "file.db-shm", "file.db-journal"):
        (folder() / beside).unlink(missing_ok=True)
    try:
        with Store.open(f"sqlite:///{path}", create=False) as store, store.understanding():
            queries.summary(store, "first")
            queries.top(store, "first")
    except PrimevoError as refusal:
        return str(refusal)
    return None


def exported(data: bytes) -> str | None:
    """A program with words from the input for its names, a kind of positions, and a title: its
    module's syntax tree is held against the list of what may be there."""
    from tests.reference.exported import faults
    from tests.workers.test_exported_code import random_programs, renamed
    from workers.export.source import module_source, names, plain
    from workers.spec.fit import task_graph
    from workers.spec.positions import POSITIONS
    from workers.spec.task import ModelSpec, Task

    rng, title = random.Random(data), _text(data)
    dna = renamed(rng.choice(random_programs()), rng)
    task = Task(model=ModelSpec(positions=rng.choice(list(POSITIONS))))
    graph, called = task_graph(dna, task), names(title)
    assert not isinstance(graph, IllTyped)
    source = module_source(dna, graph, task, 256, called, {"Program": plain(title)})
    source.encode()
    assert faults(source, called.module) == []
    return None


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _words() -> list[bytes]:
    return [b"a b", b'"""', b"rsqrt(d1)*d0/3.5", b"<script>", "\u2028".encode(), b"1e3*d2"]


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("program text", _programs, program_text),
        Target("program file", _program_files, program_file),
        Target("constant", lambda: [b"rsqrt(d1)*d0/3.5", b"1e3*d2", b"sqrt(d0)"], constant),
        Target("config", _configs, config),
        Target("study config", _study_configs, study_config),
        Target("weights", _weights, weights),
        Target("tokens", _token_files, tokens),
        Target("similar text", _similar_files, similar),
        Target("database row", _row_values, database_row, slow=True),
        Target("database file", _row_values, database_file, slow=True),
        Target("export", _words, exported, slow=True),
    )
}
