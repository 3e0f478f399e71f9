"""What one version of a program has that another has not, in words.

Programs are compared as they run, subroutine by subroutine, with the values of their banks in
place: what is in the genome without effect is no change, nor is another name of a bank's entry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from primitives.errors import ProgramError
from primitives.graph.build import Graph, build
from primitives.graph.live import live_program
from primitives.graph.reach import receptive_field
from primitives.language.dna import DNA, INPUTS, MIDDLE, ROUTED, SHARED, Instruction
from primitives.language.text import parse
from primitives.ops.state import KEYS, UNITS_PER_WIDTH
from primitives.ops.table import PRIMITIVES

_MAIN = "main"
_CALL = ("in1", "in2")
"""What a call of a subroutine may read."""


@dataclass(frozen=True, slots=True)
class _Line:
    """An instruction by the names of what it reads, its bank values in place."""

    op: str
    reads: tuple[str, ...]
    constant: float | None
    dim: int | None
    count: int | None
    branch: int


@dataclass(frozen=True)
class _Body:
    """A subroutine: its lines by the states that they make, in order. `inputs` are its own."""

    name: str
    inputs: tuple[str, ...]
    lines: Mapping[str, _Line]

    @property
    def value(self) -> str:
        return list(self.lines)[-1] if self.lines else self.inputs[0]

    @cached_property
    def readers(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for state, line in self.lines.items():
            for read in dict.fromkeys(line.reads):
                found.setdefault(read, []).append(state)
        return found


def changes(dna: DNA, before: DNA) -> list[str]:
    """A phrase for each change from the program `before` to `dna`, both of which type-check:
    "attention removed", "main: new 15x1 depthwise convolution of x, before normed". The last one
    says the receptive field. A program that computes the same has no other."""
    graphs = _graphs(before, dna)
    return [] if graphs is None else [*_computed(before, dna, graphs), _field(*graphs)]


def step_changes(dna: DNA, before: DNA) -> list[str]:
    """`changes` of one step of a lineage, without a receptive field that is as it was."""
    graphs = _graphs(before, dna)
    if graphs is None:
        return []
    old, new = map(receptive_field, graphs)
    return [*_computed(before, dna, graphs), *([_field(*graphs)] if old != new else [])]


def _graphs(before: DNA, dna: DNA) -> tuple[Graph, Graph] | None:
    """Those of both programs; None where one does not type-check."""
    old, new = (build(each, bidirectional=True) for each in (before, dna))
    return (old, new) if isinstance(old, Graph) and isinstance(new, Graph) else None


def _computed(before: DNA, dna: DNA, graphs: tuple[Graph, Graph]) -> list[str]:
    """A phrase for each change in what is computed."""
    old, new = graphs
    if old.hash == new.hash:
        return []
    bodies = _bodies(before), _bodies(dna)
    return [*_attention(old, new), *_every(before, dna), *_all(*bodies)]


def changes_of_texts(after: str, before: str) -> list[str]:
    """`changes` of two programs' texts; none where one is no program."""
    try:
        return changes(parse(after), parse(before))
    except ProgramError:
        return []


def _bodies(dna: DNA) -> dict[str, _Body]:
    live = live_program(dna)
    return {
        subroutine.name: _Body(
            subroutine.name,
            subroutine.states[:INPUTS],
            {
                state: _line(live, subroutine.states, row)
                for state, row in zip(
                    subroutine.states[INPUTS:], subroutine.instructions, strict=True
                )
            },
        )
        for subroutine in live.subroutines
    }


def _line(dna: DNA, states: Sequence[str], row: Instruction) -> _Line:
    op = str(row.op)
    fields: tuple[str, ...] = PRIMITIVES[row.op].reads if isinstance(row.op, str) else _CALL
    if isinstance(row.op, int):
        op = dna.subroutines[row.op].name
    places = [place for name, place in (("in1", row.in1), ("in2", row.in2)) if name in fields]
    if isinstance(row.op, int) and row.in1 == row.in2 and row.branch != ROUTED:
        places = places[:1]
    return _Line(
        op,
        tuple(states[place] for place in places),
        dna.constants[row.constant] if "constant" in fields else None,
        dna.dims[row.dim] if "dim" in fields else None,
        dna.counts[row.count] if "count" in fields else None,
        row.branch,
    )


def _attention(before: Graph, after: Graph) -> Iterator[str]:
    """Whether positions are still, or newly, mixed by products over key positions."""
    had, has = (any(_mixes(graph, place) for place in range(len(graph.nodes)))
                for graph in (before, after))  # fmt: skip
    if had != has:
        yield "attention added" if has else "attention removed"


def _mixes(graph: Graph, place: int) -> bool:
    node = graph.nodes[place]
    return node.op == "MAT MUL" and graph.nodes[node.inputs[0]].type.axis == KEYS


def _every(before: DNA, after: DNA) -> Iterator[str]:
    if before.every != after.every:
        yield f"it runs in {_blocks(after.every)} of the model instead of {_blocks(before.every)}"


def _blocks(every: int) -> str:
    names = {1: "every block", MIDDLE: "the middle block"}
    return names.get(every, f"every {'second' if every == 2 else 'fourth'} block")


def _all(old: Mapping[str, _Body], new: Mapping[str, _Body]) -> Iterator[str]:
    """Changes in subroutines that both have, then what only one of them calls."""
    for name, body in new.items():
        if name in old:
            yield from (f"{name}: {text}" for text in _body(old[name], body))
    for names, word in (
        ([name for name in old if name not in new], "no longer called"),
        ([name for name in new if name not in old], "newly called"),
    ):
        if names:
            yield f"{word}: {', '.join(names)}"


def _body(old: _Body, new: _Body) -> Iterator[str]:
    gone = [state for state in old.lines if state not in new.lines]
    added = [state for state in new.lines if state not in old.lines]
    replaced = dict(_replacements(old, new, gone, added))  # the old state by the new one
    for state in added:
        if state in replaced:
            was = old.lines[replaced[state]]
            yield f"{_noun(new.lines[state])} in place of {_noun(was)}{_place(new, state)}"
        else:
            yield f"new {_bare(new.lines[state])}{_place(new, state)}"
    left = [state for state in gone if state not in replaced.values()]
    if left:
        yield "removed " + ", ".join(f"{state} ({_bare(old.lines[state])})" for state in left)
    for state, line in new.lines.items():
        if state in old.lines:
            yield from _line_changes(state, old.lines[state], line)
    if told := [*_rewired(old, new, replaced)]:
        yield ", ".join(told)


def _replacements(
    old: _Body, new: _Body, gone: Sequence[str], added: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """New states that are read where one that is gone was, or are the value as it was."""
    left = list(gone)
    for state in added:
        for other in left:
            same = set(new.readers.get(state, ())) & set(old.readers.get(other, ()))
            if same or (state == new.value and other == old.value):
                left.remove(other)
                yield state, other
                break


def _line_changes(state: str, old: _Line, new: _Line) -> Iterator[str]:
    """What a line does otherwise than the one that made the same state before."""
    if old.op != new.op:
        yield f"{state} is {_noun(new)} instead of {_noun(old)}"
        return
    if old.dim != new.dim:
        yield f"{state} has {_width(new.dim)} channels instead of {_width(old.dim)}"
    if old.constant != new.constant:
        yield f"the constant of {state} is {new.constant:g} instead of {old.constant:g}"
    if old.count != new.count:
        yield f"the count of {state} is {new.count} instead of {old.count}"
    if {old.branch, new.branch} == {1, SHARED}:
        shares = "share its weights" if new.branch == SHARED else "have weights of their own"
        yield f"{state}: the branches around it {shares}"
    elif old.branch != new.branch:
        yield f"{state} runs in {_branches(new.branch)} instead of {_branches(old.branch)}"


def _rewired(old: _Body, new: _Body, replaced: Mapping[str, str]) -> Iterator[str]:
    """Lines that read other states than before. That one reads a new state which was put between,
    or what a removed one had read, was said where that state was named."""
    for state, line in new.lines.items():
        was = old.lines.get(state)
        if was is None or _explained(old, new, replaced, (was, line)):
            continue
        yield f"{state} reads {_several(line.reads)} instead of {_several(was.reads)}"
    if old.value != new.value and new.value in old.lines:
        yield f"its value is {new.value} instead of {old.value}"


def _explained(
    old: _Body, new: _Body, replaced: Mapping[str, str], pair: tuple[_Line, _Line]
) -> bool:
    """Whether the second line of a pair reads what the first one did, but for states that only one
    of the bodies has."""
    was, line = pair
    if len(was.reads) != len(line.reads):
        return False
    row = PRIMITIVES.get(line.op)
    if row is not None and row.commutative and sorted(was.reads) == sorted(line.reads):
        return True
    for before, now in zip(was.reads, line.reads, strict=True):
        found = _sources(new, now, old)
        found |= {replaced[state] for state in found if state in replaced}
        if not found & _sources(old, before, new):
            return False
    return True


def _sources(body: _Body, state: str, other: _Body) -> set[str]:
    """A state; and where the other body has none of that name, what it was made from."""
    if state not in body.lines or state in other.lines:
        return {state}
    return {state}.union(*(_sources(body, read, other) for read in body.lines[state].reads))


def _several(names: Sequence[str]) -> str:
    return " and ".join(dict.fromkeys(names))


def _place(body: _Body, state: str) -> str:
    """Of what a new line is, and what comes after it."""
    line = body.lines[state]
    reads = _several([_read(body, name) for name in line.reads])
    text = f" of {reads}" if reads else ""
    readers = body.readers.get(state, [])
    if state == body.value:
        return f"{text}, as the block's output" if body.name == _MAIN else f"{text}, as its value"
    if readers:
        return f"{text}, before {_several(readers)}"
    return text


def _read(body: _Body, name: str) -> str:
    if name in body.inputs:
        return "the block's input" if body.name == _MAIN else f"its input {name}"
    return name


def _noun(line: _Line) -> str:
    bare = _bare(line)
    return bare if line.op not in PRIMITIVES or bare[0].isupper() else f"a {bare}"


def _bare(line: _Line) -> str:
    """What an operation is called, without an article: `linear map to 4 d_model channels`, `15x1
    depthwise convolution`, `RED SUM`; a subroutine has its name."""
    kind, _, taps = line.op.partition(" ")
    if line.op not in PRIMITIVES:
        text = line.op
    elif line.op == "CONV 1X1":
        text = f"linear map to {_width(line.dim)} channels"
    elif kind in ("CONV", "DCONV") and taps:
        text = f"{taps.lower()} {'depthwise ' * (kind == 'DCONV')}convolution"
        text += "" if line.dim is None else f" to {_width(line.dim)} channels"
    else:
        text = line.op
        text += "" if line.constant is None else f" with {line.constant:g}"
        text += "" if line.count is None else f" with {line.count}"
    if line.branch == SHARED:
        return f"{text} with weights that branches share"
    return text if line.branch == 1 else f"{text} in {_branches(line.branch)}"


def _branches(branch: int) -> str:
    if branch == ROUTED:
        return "a branch for each expert"
    if branch == SHARED:
        return "each branch around it, with shared weights,"
    return "one branch" if branch == 1 else f"{branch} branches"


def _width(dim: int | None) -> str:
    part = Fraction(dim or 0, UNITS_PER_WIDTH)
    return "d_model" if part == 1 else f"{part} d_model"


def _field(before: Graph, graph: Graph) -> str:
    """The receptive field of a block, and what it was where that differs."""
    other, own = (_positions(receptive_field(each)) for each in (before, graph))
    return f"receptive field of a block: {own}" + ("" if own == other else f" instead of {other}")


def _positions(field: float) -> str:
    if field == math.inf:
        return "the whole sequence"
    return "one token" if field == 1 else f"{field:.0f} tokens"
