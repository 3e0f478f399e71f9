"""Exported code holds what the generator may emit and nothing else, whatever words a program, a
title, a card or a corpus brings. Every module's syntax tree is held against a list."""

from __future__ import annotations

import ast
import json
import os
import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from primitives import DNA, parse
from primitives.graph.build import Graph
from primitives.language.dna import Subroutine
from primitives.programs.seeds import load_seed, seed_names
from tests.reference.exported import example_faults, faults
from tests.reference.random_programs import programs, routed_programs
from tests.reference.seeds import objective_of
from tests.workers.exports import load_module, weights_of
from tests.workers.test_pruning import TASK as CUT_TASK
from tests.workers.test_pruning import made, masks_of
from workers.export.code import template
from workers.export.export import ExportError, export
from workers.export.facts import facts_of
from workers.export.source import example_source, metadata, module_source, names, plain, readme
from workers.pruning.plan import smaller
from workers.spec.fit import task_graph
from workers.spec.positions import POSITIONS, Kind
from workers.spec.task import DataSpec, ModelSpec, Task, TrainingSpec

HOSTILE = (
    '"""', "'''", '"""\nimport os\n"""', "\\", '\\"""', "\n", "\r", "\x00", "\x0c", "\x85",
    "\u2028", "\u2029", "\u202e", "\ufeff", "\ud800", "{}", "{0}", "{x.__class__}", "${module}",
    "$block", "%s", "# noqa", "<script>alert(1)</script>", "</script>", "`rm -rf`", "|",
    "[x](javascript:y)",
    "#!/usr/bin/python", "class", "None", "../../etc/passwd", "/etc/passwd", "é", "\U0001d538",
    "a" * 5000, " ", "",
)  # fmt: skip
WORDS = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=8), max_size=5).map("".join)
STATE_NAMES = (
    "class", "lambda", "self", "ops", "keras", "run", "x", "y", "d_model", "training", "tokens",
    "eval", "__import__", "__class__", "__init__", "__x", "_", "__", "call", "build", "add_weight",
    "attention", "getattr", "none", "true", "loss", "name", "value", "input_shape", "causal_taps",
    "dropout", "dropped",
    "a" * 300,
)  # fmt: skip


def renamed(dna: DNA, rng: random.Random) -> DNA:
    """The program with names of states and subroutines that mean something to Python, to Keras or
    to the lines around them."""

    def fresh(count: int) -> tuple[str, ...]:
        chosen = rng.sample(STATE_NAMES, min(count, len(STATE_NAMES)))
        return (*chosen, *(f"s{i}" for i in range(count - len(chosen))))

    called = fresh(len(dna.subroutines))
    return replace(
        dna,
        subroutines=tuple(
            Subroutine(name, each.instructions, fresh(len(each.states)))
            for name, each in zip(called, dna.subroutines, strict=True)
        ),
    )


def module_faults(
    dna: DNA, task: Task, title: str, facts: dict[str, str], vocabulary: int = 256
) -> list[str]:
    graph, called = task_graph(dna, task), names(title)
    assert isinstance(graph, Graph)
    source = module_source(dna, graph, task, vocabulary, called, facts)
    compile(source, "module.py", "exec")
    lines = source.partition("# The program that this module was generated from.")[2].splitlines()
    assert all(line.startswith("#") or not line for line in lines[1:])
    return faults(source, called.module) + example_faults(
        example_source(called, task), called.module
    )


def task_of(name: str) -> Task:
    objective = objective_of(name)
    return Task(training=TrainingSpec(objective=objective))


@pytest.mark.parametrize("title", ["1m3\nd22", "", "9", "block", "x" * 300, "OtherBlock"])
def test_titles(title: str) -> None:
    dna = replace(load_seed("switch", 64), every=2)
    assert module_faults(dna, Task(), title, {}) == []


@pytest.mark.parametrize("name", seed_names())
def test_every_seed_program(name: str) -> None:
    task = task_of(name)
    assert module_faults(load_seed(name, 64), task, name, {"Program": name}) == []
    spaced = replace(load_seed(name, 64), every=2)
    assert module_faults(renamed(spaced, random.Random(name)), task, name, {}) == []


@pytest.mark.parametrize("kind", POSITIONS)
@pytest.mark.parametrize("name", ["hash_layer", "primer", "expert_choice"])
def test_every_kind_of_positions(name: str, kind: Kind) -> None:
    task = task_of(name)
    task = task.model_copy(update={"model": ModelSpec(d_model=64, positions=kind)})
    assert module_faults(load_seed(name, 64), task, name, {}) == []


@pytest.mark.parametrize(
    ("name", "objective"),
    [("transformer", "trime"), ("hash_layer", "trime_long"), ("campaign_pp", "trime_ext")],
)
def test_models_that_remember(name: str, objective: str) -> None:
    task = Task(training=TrainingSpec(objective=objective))
    dna = load_seed(name, 64)
    assert module_faults(dna, task, name, {}) == []
    assert module_faults(renamed(dna, random.Random(name)), task, name, {}) == []


@pytest.mark.parametrize(("every", "tokenizer"), [(1, "bytes"), (2, "bpe"), (0, "bytes")])
def test_layers_that_share_weights_and_tokenizers(every: int, tokenizer: str) -> None:
    task = Task(data=DataSpec(tokenizer=tokenizer), model=ModelSpec(d_model=64, share_layers=True))
    dna = renamed(replace(load_seed("switch", 64), every=every), random.Random(every))
    assert module_faults(dna, task, "a", {}, 512) == []


@pytest.mark.parametrize("name", ["transformer", "switch"])
def test_models_that_were_cut(name: str) -> None:
    """Heads and hidden channels, or experts and their channels, that were taken out of each layer;
    names that mean something to Python."""
    found, _ = made(name)
    cut = smaller(found, masks_of(found, seed=4)).graphs
    dna = renamed(load_seed(name, 16), random.Random(name))
    graph, called = task_graph(dna, CUT_TASK), names(name)
    assert isinstance(graph, Graph)
    source = module_source(dna, graph, CUT_TASK, 256, called, {}, cut)
    assert faults(source, called.module) == []
    assert "were cut" in source
    added = source.replace("        kinds = [", "        kinds = [open('x'),")
    assert faults(added, called.module) != []


@cache
def random_programs() -> list[DNA]:
    return programs(60, seed=7) + routed_programs(40, seed=7)


@settings(max_examples=12, deadline=None)
@given(which=st.integers(0, 99), seed=st.integers(0, 2**32), title=WORDS, fact=WORDS,
       kind=st.sampled_from(list(POSITIONS)))  # fmt: skip
def test_random_programs_with_hostile_names(
    which: int, seed: int, title: str, fact: str, kind: Kind
) -> None:
    made = renamed(random_programs()[which], random.Random(seed))
    facts = {"Program": plain(fact), "In the search": plain(title)}
    task = Task(model=ModelSpec(positions=kind))
    assert module_faults(made, task, title, facts) == []


def test_names_that_python_changes_inside_a_class() -> None:
    """`self.__x` in a class is another attribute than the one that `getattr(self, "__x")` reads."""
    dna = load_seed("expert_threshold", 16)
    renamed = [replace(each, name=f"__{each.name}") for each in dna.subroutines]
    dna, task, called = replace(dna, subroutines=tuple(renamed)), Task(), names("a")
    graph = task_graph(dna, task)
    assert isinstance(graph, Graph)
    module = load_module(module_source(dna, graph, task, 256, called, {}))
    layer = module.ABlock()
    x = np.random.default_rng(1).random((2, 16, 16), "float32")
    layer(x)
    before = [np.array(weight) for weight in layer.non_trainable_variables]
    layer(x, training=True)
    after = [np.array(weight) for weight in layer.non_trainable_variables]
    moved = [not np.array_equal(*pair) for pair in zip(before, after, strict=True)]
    assert any(moved), "training moves the running quantiles"


@settings(max_examples=100, deadline=None)
@given(WORDS)
def test_a_plain_text_is_one_harmless_line(text: str) -> None:
    made = plain(text)
    assert made.isprintable() and len(made.splitlines()) <= 1
    assert not set(made) & set('\\"`|<>')
    tree = ast.parse(f'"""{made}\n"""')
    assert len(tree.body) == 1
    called = names(text)
    assert called.module.isidentifier() and called.block.isidentifier()
    assert called.module.isascii() and len(called.module) <= 80


@pytest.mark.parametrize(
    "source",
    [
        'x = 1', "import os", "from os import path", "from typing import IO", "import keras as k",
        "def f(): return eval('1')", "class Evil:\n    pass", "print(1)", "'more text'",
        "__import__('os')", "exec('1')", "Tensor = open",
    ],
)  # fmt: skip
def test_the_list_finds_what_is_added_to_a_module(source: str) -> None:
    dna, task, called = load_seed("switch", 64), Task(), names("a")
    graph = task_graph(dna, task)
    assert isinstance(graph, Graph)
    text = module_source(dna, graph, task, 256, called, {})
    assert faults(text, called.module) == []
    assert faults(f"{text}\n{source}\n", called.module) != []
    kernel = next(line for line in text.splitlines() if line.startswith("def "))
    added = f"{kernel}\n{indent(source, '    ')}"
    assert faults(text.replace(kernel, added, 1), called.module) != []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return ", "return ops.open(1) or "), ("return ", "open('x'); return "),
        ("return ", "self.__class__; return "), ("return ", "x.save('y'); return "),
        ("return ", "keras.utils.get_file('x', 'y'); return "), ("return ", "lambda: 1; return "),
        ("return ", "run.__globals__; return "), ("return ", "getattr(self, 'call'); return "),
        ("return ", "self.save_weights('x'); return "), ("return ", "'a string'; return "),
        ("return ", "import os; return "), ("return ", "[y for y in x]; return "),
        ("return ", "self.dtype = 1; return "), ("return ", "f'{open}'; return "),
        ('package="a_block"', 'package=open("x")'),
        ("(keras.layers.Layer)", "(keras.layers.Dense)"),
        ("def build(", "def __del__("), ("**super().get_config()", "**self.evil"),
        ("self.supports_masking = True", "self.supports_masking = open('x')"),
        ("self.dropout(", "self.evil("),
    ],
)  # fmt: skip
def test_the_list_finds_what_is_added_to_a_layer(old: str, new: str) -> None:
    dna, task, called = load_seed("switch", 64), Task(), names("a")
    graph = task_graph(dna, task)
    assert isinstance(graph, Graph)
    text = module_source(dna, graph, task, 256, called, {})
    head, decorator, layer = text.partition("@keras.saving.register")
    changed = layer.replace(old, new, 1)
    assert changed != layer
    assert faults(head + decorator + changed, called.module) != []
    head, model, rest = text.partition("class LanguageModel")
    if old in rest:
        assert faults(head + model + rest.replace(old, new, 1), called.module) != []


def test_the_list_finds_what_is_added_to_an_example() -> None:
    called = names("a")
    text = example_source(called, Task())
    assert example_faults(text, called.module) == []
    assert example_faults(text + "import os\n", called.module) != []
    assert example_faults(text.replace("a_block", "os", 1), called.module) != []


@settings(max_examples=10, deadline=None)
@given(title=WORDS, hash=WORDS, trained=WORDS)
def test_facts_of_a_card(title: str, hash: str, trained: str) -> None:
    """The card's words reach the module's docstring and the README."""
    cost = {"parameters": 10, "active_parameters": 5, "flops_per_token": 3}
    card: dict[str, Any] = {
        "program": title, "hash": hash, "static_cost": cost, "trained_in": trained,
        "exported": {"precision": "float32", "val_loss": 1.0, "val_bpb": 1.0},
        "verdict": title, "changes": [hash, trained],
    }  # fmt: skip
    dna, task = load_seed("transformer", 64), Task()
    graph = task_graph(dna, task)
    assert isinstance(graph, Graph)
    facts = facts_of(card)
    assert module_faults(dna, task, title, facts) == []
    card["versions"] = {"keras": "3", "tensorflow": "2"}
    page = readme(graph, task, names(title), card, facts)
    fixed = template("README.md").template.count("\n") + metadata(task, names(title), card).count(
        "\n"
    )
    assert "<" not in page and len(page.splitlines()) < fixed + 12


@pytest.fixture(scope="module")
def hostile_export(tmp_path_factory: pytest.TempPathFactory, token_cache: None) -> Path:
    """A real export: hostile title, names, other program, and a corpus whose file is called and
    filled so."""
    folder = tmp_path_factory.mktemp("hostile")
    corpus = folder / '"""\n{import os} <script>\u2028.txt'
    corpus.write_text('"""\nimport os\n</script>\u2028\x00' * 500)
    for name in ("b.txt", "c.txt"):
        (folder / name).write_text("some more text of no harm at all. " * 200)
    other = """dims d0=8
constants c0=0.5
main(self, ops):
  __class__ = CONV 1X1(self) dim=d0
  eval = ADD(self, __class__)
"""
    task = Task(
        data=DataSpec(source="text", files=(str(folder / "*.txt"),)),
        model={"d_model": 16, "layers": 2, "sequence_length": 16, "other": other},
        training=TrainingSpec(batch_size=2, eval_batches=1),
    )
    dna = renamed(replace(load_seed("switch", 16), every=2), random.Random(5))
    card = {
        "program": '"""\nimport os\n$block {x} </script> \u2028\x00\u202e',
        "extra": HOSTILE[:14],
    }
    target = folder / "out"
    export(dna, target, task=task, weights=weights_of(dna, task.model), card=card)
    return target


def test_an_exported_folder(hostile_export: Path) -> None:
    module = "import_os_block_x_script_block"
    assert sorted(path.name for path in hostile_export.iterdir()) == [
        "README.md", "card.json", "example.py", f"{module}.py", "model.keras", "model.weights.h5",
    ]  # fmt: skip
    assert faults((hostile_export / f"{module}.py").read_text(), module) == []
    assert example_faults((hostile_export / "example.py").read_text(), module) == []
    card = json.loads((hostile_export / "card.json").read_text())
    assert card["extra"] == list(HOSTILE[:14])
    assert parse(card["text"]) is not None
    assert "<" not in (hostile_export / "README.md").read_text()


@pytest.mark.parametrize("kind", ["file", "folder", "nothing", "loop"])
def test_a_link_is_not_followed(tmp_path: Path, tiny_task: Task, kind: str) -> None:
    """`--to` that is a link to something else: refused, and what it leads to stays as it is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    link = tmp_path / "to"
    target = {"file": outside / "kept", "folder": outside, "nothing": outside / "new",
              "loop": link}[kind]  # fmt: skip
    os.symlink(target, link)
    dna = load_seed("transformer", 16)
    with pytest.raises(ExportError):
        export(dna, link, task=tiny_task, weights=weights_of(dna, tiny_task.model),
               card={"program": "a"})  # fmt: skip
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert (outside / "kept").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "to"]
    assert link.is_symlink()
