"""Programs, configs, cards, weights and databases are data: reading hostile ones imports no module
of theirs, runs no code and no program, and writes no file. Watched by an audit hook, which sees
every import, `exec`, `open` and process that Python makes."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import re
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from primitives.language.jsonform import to_json
from primitives.programs.seeds import load_seed, seed_text
from tests.cli.command import CONFIG, ROOT

WATCHED = """
import json, os, sys
sys.path[:0] = json.loads(sys.argv[1])
kind, own, paths = sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
import search.cli.app  # what the verbs need is imported before anybody looks
from pathlib import Path
import numpy, sqlalchemy, yaml, pydantic, alembic.command, alembic.config, alembic.script
import search.campaign.queries, search.campaign.replay, search.config.file, search.report.page
import search.storage.store, workers.data.tokens, workers.export.export, workers.model.model
import search.config.examples
from search.errors import PrimevoError
from search.storage.store import Store
from workers.data.corpora import DataError
from workers.export.export import ExportError
from primitives.graph.build import build
from primitives.programs.seeds import load_seed


def attempt(path):
    if kind == "program":
        from search.config.programfile import headline, read_program
        headline(path.read_text(errors="replace"))
        read_program(path, 64)
    elif kind == "config":
        search.config.file.load(path)
    elif kind == "weights":
        workers.export.export._loaded(path)
    elif kind == "tokens":
        workers.data.tokens._open(path)
    else:
        with Store.open(f"sqlite:///{path}", create=False) as store, store.understanding():
            search.campaign.queries.campaigns(store)
            search.campaign.queries.summary(store, "first")
            search.campaign.queries.stored_program(store, store.campaign("first"), 2)
            search.campaign.replay.replay(store, "first")
            search.report.page.render(store, "first")


def tried(path):
    try:
        attempt(Path(path))
    except (PrimevoError, DataError, ExportError) as refusal:
        return str(refusal)
    return "taken"


tried(own)  # a sound one first: lazy imports are not the input's doing
seen, watching = [], True
HARMFUL = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn",
           "os.remove", "os.rename", "os.chmod", "os.symlink", "shutil.rmtree", "socket.connect",
           "pickle.find_class", "ctypes.dlopen", "marshal.loads")


def watch(event, arguments):
    if not watching:
        return
    if event in HARMFUL:
        seen.append([event, repr(arguments)[:200]])
    elif event == "import":
        seen.append([event, arguments[0]])
    elif event in ("exec", "compile"):
        code = arguments[0]
        name = getattr(code, "co_filename", None) or (arguments[1] if event == "compile" else "?")
        seen.append([event, str(name)])
    elif event == "open" and isinstance(arguments[0], (str, bytes)):
        mode, flags = arguments[1] or "", arguments[2] or 0
        if set(str(mode)) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            seen.append([event, os.fsdecode(arguments[0])])


sys.addaudithook(watch)
told = [tried(path) for path in paths]
watching = False
print(json.dumps({"told": told, "seen": seen}))
"""

EVIL = "open('HARMED', 'w').close()"


class Pickled:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch HARMED",)


def program_files(folder: Path) -> list[Path]:
    text = seed_text("transformer")
    forms = {
        "expression.dna": text.replace("rsqrt(d1)", "__import__('os').system('touch')"),
        "lambda.dna": text.replace("rsqrt(d1)", "(lambda:1)()"),
        "header.dna": f'# """\n# {EVIL}\n# coding: utf-7\n{text}',
        "op.dna": text.replace("ADD(", "eval("),
        "card.json": json.dumps({"text": text.replace("ADD(", "exec(")}),
        "names.json": json.dumps(to_json(load_seed("switch", 64))).replace("main", "__import__"),
        "object.json": json.dumps({"__reduce__": "os.system", "dna": {"$ref": "file:///etc"}}),
    }
    for name, form in forms.items():
        (folder / name).write_text(form)
    return [folder / name for name in forms]


def config_files(folder: Path) -> list[Path]:
    evil = ("!!python/object/apply:os.system ['touch HARMED']", "!!python/name:os.system",
            "!!python/module:antigravity", "!!binary aGk=", "{__class__: os}",
            "${oc.env:PATH}", "{{ 7*7 }}", "!include /etc/passwd")  # fmt: skip
    paths = []
    for number, value in enumerate(evil):
        for place in ("task: {model: {d_model: %s}}", "name: %s", "search: %s", "weights: %s",
                      "plugins: [%s]", "task: {data: {source: %s}}", "%s: 1"):  # fmt: skip
            path = folder / f"{number}{len(paths)}.yaml"
            if "plugins" in place and number > 3:
                continue
            path.write_text(CONFIG + place % value + "\n")
            paths.append(path)
    return paths


def weights_files(folder: Path) -> list[Path]:
    np.savez(folder / "object.npz", embedding=np.array([Pickled()], object))
    (folder / "pickle.npz").write_bytes(pickle.dumps(Pickled()))
    with zipfile.ZipFile(folder / "escape.npz", "w") as archive:
        archive.writestr("../../HARMED.npy", b"x")
        archive.writestr("embedding.npy", pickle.dumps(Pickled()))
    made = io.BytesIO()
    np.save(made, np.array([Pickled()], object), allow_pickle=True)
    (folder / "single.npz").write_bytes(made.getvalue())
    return sorted(folder.glob("*.npz"))


def tokens_folders(folder: Path) -> list[Path]:
    made = []
    for number, harm in enumerate(("train.npy", "meta.json")):
        place = folder / f"cache{number}"
        place.mkdir()
        for split in ("train", "validation", "test"):
            np.save(place / f"{split}.npy", np.arange(9, dtype=np.uint8))
        meta = {"vocabulary": 256, "bytes_per_token": dict.fromkeys(("train", "test"), 1.0)}
        (place / "meta.json").write_text(json.dumps(meta))
        content = io.BytesIO()
        np.save(content, np.array([Pickled()], object), allow_pickle=True)
        (place / harm).write_bytes(content.getvalue())
        made.append(place)
    return made


def databases(folder: Path, sound: Path) -> list[Path]:
    statements = {
        "config.db": "UPDATE campaigns SET config = replace(config, '\"sotu\"', '\"__import__\"')",
        "pickle.db": "UPDATE candidates SET dna = x'80049528000000'",
        "dna.db": f'UPDATE candidates SET dna = "{EVIL}"',
        "mutation.db": "UPDATE candidates SET mutation = '__import__(\"os\")' WHERE id > 2",
        "json.db": 'UPDATE candidates SET rejections = \'{"__class__": "os"}\'',
        "name.db": "UPDATE evaluations SET worker = '$(touch HARMED)', reason = '{{7*7}}'",
        "beat.db": 'UPDATE campaigns SET heartbeat = \'{"at": "x"}\'',
        "versions.db": "UPDATE campaigns SET versions = '[\"os\"]'",
    }
    for name, statement in statements.items():
        (folder / name).write_bytes(sound.read_bytes())
        with closing(sqlite3.connect(folder / name, isolation_level=None)) as connection:
            connection.execute(statement)
    return [folder / name for name in statements]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each kind that nobody has tampered with."""
    from search.campaign.controller import Controller
    from search.storage.store import Store
    from tests.search.instant import InstantEvaluator, launch

    folder = tmp_path_factory.mktemp("sound")
    (folder / "a.dna").write_text(seed_text("transformer"))
    (folder / "a.yaml").write_text(CONFIG)
    np.savez(folder / "a.npz", embedding=np.ones(3, np.float32))
    with Store.open(f"sqlite:///{folder}/a.db") as store:
        launch(store, "first", candidates=6)
        Controller(store, store.campaign("first"), InstantEvaluator()).run()
    with closing(sqlite3.connect(folder / "a.db")) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    return {"program": folder / "a.dna", "config": folder / "a.yaml",
            "weights": folder / "a.npz", "tokens": folder, "database": folder / "a.db"}  # fmt: skip


HARMLESS_IMPORTS = (
    "encodings", "zlib", "zipfile", "numpy", "_strptime", "dateutil", "pytz", "unicodedata",
    "linecache", "tokenize", "token", "sqlite3", "difflib",
)  # fmt: skip


def watched(folder: Path, kind: str, sound: Path, files: list[Path]) -> Any:
    """What was told of each file by a process in the folder, and what the hook saw meanwhile."""
    paths = json.dumps([str(path) for path in files])
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, json.dumps([str(ROOT)]), kind, str(sound), paths],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_hook_sees_the_plug_in_that_a_config_names(
    tmp_path: Path, sound: dict[str, Path]
) -> None:
    """The one thing that is imported; and proof that the hook would see others. What importlib
    imports shows as the `exec` of its file."""
    (tmp_path / "primevo_seen.py").write_text(
        "import os, subprocess\nopen('harmed', 'w').close()\nos.system('true')\n"
        "eval('1')\ndef register(): pass\n"
    )
    (tmp_path / "a.yaml").write_text("plugins: [primevo_seen]\n" + CONFIG)
    made = watched(tmp_path, "config", sound["config"], [tmp_path / "a.yaml"])
    assert made["told"] == ["taken"]
    events = {event for event, _ in made["seen"]}
    assert events >= {"exec", "compile", "open", "os.system"}
    assert ["exec", str(tmp_path / "primevo_seen.py")] in made["seen"]


RUNS_TEXT = {
    ("primitives/lowering/layer.py", "exec"),
    ("primitives/lowering/behaviour.py", "eval"),
    ("primitives/lowering/numeric.py", "eval"),
    ("workers/export/export.py", "exec"),
    ("workers/engines/jax_steps.py", "pickle.loads"),
    ("workers/plugins.py", "importlib.import_module"),
    ("workers/machine/backends.py", "pkgutil.resolve_name"),
    ("workers/pool/worker.py", "resolve_name"),
    ("primitives/kernels/__init__.py", "import_module"),
    ("primevo/__init__.py", "import_module"),
}
"""The places that docs/security.md names, and what they call."""


def test_only_named_places_run_text() -> None:
    """Every call in the product's source that runs, imports or unpickles what it is given."""
    calls = re.compile(
        r"(builtins\.)?(eval|exec|__import__)|(importlib|pickle|marshal|shelve|dill|cloudpickle)"
        r"\.(?!dumps|invalidate_caches)\w+|import_module|(pkgutil\.)?resolve_name|os\.(system|popen|exec\w*|"
        r"spawn\w*)|yaml\.(load|unsafe_load|full_load)"
    )
    found = set()
    for package in ("primevo", "search", "primitives", "workers"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                name = ast.unparse(node.func)
                shell = any(each.arg == "shell" for each in node.keywords)
                if shell or calls.fullmatch(name):
                    found.add((path.relative_to(ROOT).as_posix(), name))
    assert found <= RUNS_TEXT, found - RUNS_TEXT
    assert ("primitives/lowering/layer.py", "exec") in found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["program", "config", "weights", "tokens", "database"])
def test_reading_runs_nothing(tmp_path: Path, sound: dict[str, Path], kind: str) -> None:
    files = {
        "program": program_files, "config": config_files, "weights": weights_files,
        "tokens": tokens_folders, "database": lambda folder: databases(folder, sound["database"]),
    }[kind](tmp_path)  # fmt: skip
    before = sorted(path.name for path in tmp_path.rglob("*"))
    made = watched(tmp_path, kind, sound[kind], files)
    assert len(made["told"]) == len(files) > 1
    assert sum(told != "taken" for told in made["told"]) > len(files) // 3
    for event, what in made["seen"]:
        if event == "import":
            assert what.partition(".")[0] in (*HARMLESS_IMPORTS, "search", "workers"), made["seen"]
        elif event == "open":  # SQLite's own files beside a database are no `open` of Python's
            raise AssertionError(f"{what} was opened for writing")
        else:
            assert event in ("exec", "compile") and what.startswith(("<", str(ROOT), sys.prefix)), (
                event, what,
            )  # fmt: skip
            assert what not in ("<string>",) or event == "compile", what
    left = sorted(path.name for path in tmp_path.rglob("*"))
    assert [name for name in left if not name.endswith(("-wal", "-shm", ".lock"))] == before
    assert "HARMED" not in left and not list(tmp_path.parent.glob("HARMED*"))
