"""Programs as text, as files and as generated code."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from primitives.errors import ProgramError
from primitives.graph.build import Graph, IllTyped, build
from primitives.graph.live import live_program
from primitives.language.constant import resolve
from primitives.language.dna import DNA
from primitives.language.jsonform import from_json, to_json
from primitives.language.text import parse, render
from primitives.programs.seeds import load_seed, seed_names, seed_text
from search.config import programfile
from search.errors import UsageError
from search.evolution.marking import remember
from tests.fuzz.inputs import as_text, written
from workers.spec.positions import POSITIONS
from workers.spec.task import ModelSpec, Task, TrainingSpec


def texts() -> list[bytes]:
    marked = render(remember(load_seed("transformer", 64), random.Random(0)))
    return [*(seed_text(name).encode() for name in seed_names()), marked.encode()]


def program_text(data: bytes) -> str | None:
    """What parses is well formed, reads back as itself, and has a type or a reason."""
    programfile.first_sentence(programfile.headline(as_text(data)))
    try:
        dna = parse(as_text(data), "fuzz", 64)
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
        programfile.read_program(written(f"program{suffix}", data), 64)
    except UsageError as refusal:
        return str(refusal)
    return None


def files() -> list[bytes]:
    forms = [to_json(load_seed(name, 64)) for name in seed_names()]
    cards: list[Any] = [{"program": "a", "dna": forms[0]}, {"text": seed_text("switch")}]
    return [*texts()[:5], *(json.dumps(one).encode() for one in [*forms, *cards])]


def constant(data: bytes) -> str | None:
    try:
        value = resolve(as_text(data), (8, 1, 2), 64)
    except ProgramError as refusal:
        return str(refusal)
    assert isinstance(value, float)
    return None


def exported(data: bytes) -> str | None:
    """A program with words from the input for its names, a kind of positions, and a title: its
    module's syntax tree is held against the list of what may be there. Some programs mark what
    contexts are remembered by, some models were cut."""
    from tests.reference.exported import faults
    from tests.workers.test_exported_code import renamed
    from workers.export.source import module_source, names, plain
    from workers.spec.fit import task_graph

    rng, title = random.Random(data), as_text(data)
    dna, task, cut = rng.choice((_plain, _remembering, _cut))(rng)
    dna, called = renamed(dna, rng), names(title)
    graph = task_graph(dna, task)
    assert not isinstance(graph, IllTyped)
    source = module_source(dna, graph, task, 256, called, {"Program": plain(title)}, cut)
    source.encode()
    assert faults(source, called.module) == []
    return None


Exportable = tuple[DNA, Task, Sequence[Graph] | None]
"""A program, its task, and what is left of each layer where the model was cut."""


def _plain(rng: random.Random) -> Exportable:
    from tests.workers.test_exported_code import random_programs

    positions = rng.choice(list(POSITIONS))
    return rng.choice(random_programs()), Task(model=ModelSpec(positions=positions)), None


def _remembering(rng: random.Random) -> Exportable:
    name, objective = rng.choice(("transformer", "primer_ez", "hash_layer")), rng.choice(_TRIME)
    dna = remember(load_seed(name, 64), rng)
    return dna, Task(training=TrainingSpec(objective=objective)), None


_TRIME = ("trime", "trime_long", "trime_ext")


def _cut(rng: random.Random) -> Exportable:
    from tests.workers.test_pruning import TASK, made, masks_of
    from workers.pruning.plan import smaller

    name = rng.choice(("transformer", "switch"))
    found, _ = made(name)
    return load_seed(name, 16), TASK, smaller(found, masks_of(found, rng.randrange(1 << 30))).graphs


def words() -> list[bytes]:
    return [b"a b", b'"""', b"rsqrt(d1)*d0/3.5", b"<script>", "\u2028".encode(), b"1e3*d2"]
