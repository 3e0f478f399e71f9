"""A lineage as a list of edits, each of which can be applied to another program of the lineage.

A step of a lineage changes a few instructions of a genome. Here an instruction is told apart by an
identity that it keeps along the lineage, and reads states by identity, not by place: then what a
step changed (instructions gone, new ones, fields with other values, bank values) can be applied
where other steps were left out. A state that is not there is stood in for by the state that it read
itself, as when a mutation deletes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from primitives.language.dna import DNA, INPUTS, Instruction, Subroutine, first_fault
from primitives.language.naming import fresh
from primitives.ops.table import PRIMITIVES

Id = int
"""What an instruction is told apart by; -1 and -2 are a subroutine's inputs."""

_INPUTS: tuple[Id, ...] = (-1, -2)


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why an edit cannot be applied to a program."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Line:
    """An instruction that reads states by identity."""

    id: Id
    name: str
    row: Instruction
    reads: tuple[Id, Id]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A program whose instructions have identities: `lines` of each subroutine, in its order. The
    last one makes the subroutine's value."""

    dna: DNA
    lines: tuple[tuple[_Line, ...], ...]


@dataclass(frozen=True, slots=True)
class Edit:
    """One step of a lineage, from the program `before` to the program `after`."""

    before: Labelled
    after: Labelled


def edits(lineage: Sequence[DNA]) -> tuple[Labelled, tuple[Edit, ...]]:
    """The first program of a lineage, and an edit for each step to the next one."""
    first, count = _labelled(lineage[0], (), 0)
    programs = [first]
    for dna in lineage[1:]:
        made, count = _labelled(dna, programs[-1].lines, count)
        programs.append(made)
    return first, tuple(Edit(before, after) for before, after in pairwise(programs))


def applied(program: Labelled, edit: Edit) -> Labelled | Misfit:
    """The program with what the edit changed, well formed; whether it type-checks is not asked.

    Applied to the edit's own `before`, it computes what `after` computes."""
    before, after = edit.before.dna, edit.after.dna
    shapes = [
        [subroutine.name for subroutine in dna.subroutines]
        for dna in (before, after, program.dna)
    ]  # fmt: skip
    if shapes[0] != shapes[1] or shapes[0] != shapes[2]:
        return Misfit("it adds or removes a subroutine")
    banks = _with_banks(program.dna, before, after)
    if isinstance(banks, Misfit):
        return banks
    made: list[tuple[_Line, ...]] = []
    for old, new, own in zip(edit.before.lines, edit.after.lines, program.lines, strict=True):
        lines = own if old == new else _patched(own, old, new)
        if isinstance(lines, Misfit):
            return lines
        made.append(lines)
    dna = replace(banks, subroutines=tuple(map(_written, banks.subroutines, made)))
    fault = first_fault(dna)
    return Misfit(fault.text) if fault else Labelled(dna, tuple(made))


def all_applied(program: Labelled, steps: Sequence[Edit]) -> Labelled | Misfit:
    """The program with several edits, one after another; a Misfit where one cannot be applied."""
    made: Labelled | Misfit = program
    for step in steps:
        if isinstance(made, Misfit):
            return made
        made = applied(made, step)
    return made


def _labelled(
    dna: DNA, parent: Sequence[tuple[_Line, ...]], count: int
) -> tuple[Labelled, int]:  # fmt: skip
    """The program with its parent's identities where an instruction is the parent's, else new ones
    from `count` on; and the next free identity."""
    whole: list[tuple[_Line, ...]] = []
    for index, subroutine in enumerate(dna.subroutines):
        known = _same(subroutine, parent[index] if index < len(parent) else ())
        ids: list[Id] = list(_INPUTS)
        lines: list[_Line] = []
        for position, row in enumerate(subroutine.instructions):
            if position in known:
                id = known[position]
            else:
                id, count = count, count + 1
            name = subroutine.states[INPUTS + position]
            lines.append(_Line(id, name, row, (ids[row.in1], ids[row.in2])))
            ids.append(id)
        whole.append(tuple(lines))
    return Labelled(dna, tuple(whole)), count


def _same(subroutine: Subroutine, parent: tuple[_Line, ...]) -> dict[int, Id]:
    """By position, the parent's instructions that a subroutine still has: those of one name, and
    those that stand at the same place where neither's name is in the other program (an op was
    drawn again, which renames the state)."""
    names = subroutine.states[INPUTS:]
    by_name = {line.name: line.id for line in parent}
    found = {place: by_name[name] for place, name in enumerate(names) if name in by_name}
    for place, line in enumerate(parent):
        here = len(names) == len(parent) and place not in found
        if here and line.name not in names:
            found[place] = line.id
    return found


def _with_banks(own: DNA, before: DNA, after: DNA) -> DNA | Misfit:
    """The program with the bank values that the edit changed."""
    values: dict[str, tuple[int | float, ...]] = {}
    for bank in ("dims", "constants", "counts"):
        old, new, mine = (getattr(dna, bank) for dna in (before, after, own))
        if not len(old) == len(new) == len(mine):
            return Misfit(f"it changes how many {bank} there are")
        # Compared by their text, as 0.0 and -0.0 are equal and not the same.
        values[bank] = tuple(
            c if repr(a) == repr(b) else b for a, b, c in zip(old, new, mine, strict=True)
        )
    every = own.every if before.every == after.every else after.every
    return replace(own, every=every, **values)  # type: ignore[arg-type]


def _patched(
    own: tuple[_Line, ...], old: tuple[_Line, ...], new: tuple[_Line, ...]
) -> tuple[_Line, ...] | Misfit:
    """A subroutine's lines with what changed from `old` to `new`."""
    was, now = ({line.id: line for line in lines} for lines in (old, new))
    lines = {line.id: line for line in own}
    for id, line in was.items():
        changed = id in now and not _alike(line, now[id])
        if id not in lines and changed and not _follows(line, now[id], now):
            return Misfit(f"it changes '{line.name}', which another change brought")
        if id in lines and changed and (lost := _lost(line, now[id], was, now, lines)):
            return Misfit(f"it lets '{line.name}' read '{lost}', which another change brought")
        if id in lines and id not in now:
            del lines[id]
        elif id in lines and changed:
            lines[id] = _changed(lines[id], line, now[id])
    lines |= {id: _on_edge(line, own, was, now) for id, line in now.items() if id not in was}
    if not lines:
        return Misfit("it removes the only instruction of a subroutine")
    everywhere = {line.id: line for line in (*own, *old, *new)}
    lines = {id: _standing(line, lines, everywhere) for id, line in lines.items()}
    last = _last(own, old, new, lines, everywhere)
    return _ordered(lines, _places(own, new), last)


def _lost(
    old: _Line,
    new: _Line,
    was: Mapping[Id, _Line],
    now: Mapping[Id, _Line],
    there: Mapping[Id, _Line],
) -> str:
    """The name of a state that a line comes to read by the edit's own choice, and that is not
    there; empty where there is none."""
    for before, after in zip(old.reads, new.reads, strict=True):
        chosen = before != after and (before in _INPUTS or before in now)
        if chosen and after in was and after not in there:
            return was[after].name
    return ""


def _on_edge(
    new: _Line, own: tuple[_Line, ...], was: Mapping[Id, _Line], now: Mapping[Id, _Line]
) -> _Line:
    """A new line that was put on the edge between a state and its reader, on the reader's edge of
    this program: the reader may read another state here."""
    for line in own:
        if line.id in was and line.id in now:
            before, after = was[line.id].reads, now[line.id].reads
            for slot in (0, 1):
                if after[slot] == new.id and before[slot] == new.reads[0]:
                    return replace(new, reads=(line.reads[slot], new.reads[1]))
    return new


def _follows(old: _Line, new: _Line, now: Mapping[Id, _Line]) -> bool:
    """Whether the line changed only because states that it read were removed."""
    pairs = zip(old.reads, new.reads, strict=True)
    gone = all(before == after or before not in (*_INPUTS, *now) for before, after in pairs)
    return gone and _fields(old.row) == _fields(new.row)


def _alike(one: _Line, other: _Line) -> bool:
    """Whether two lines do the same, whatever places their inputs have."""
    return one.reads == other.reads and _fields(one.row) == _fields(other.row)


def _fields(row: Instruction) -> tuple[object, ...]:
    return row.op, row.constant, row.dim, row.branch, row.count


def _changed(own: _Line, old: _Line, new: _Line) -> _Line:
    """The line with the fields that changed from `old` to `new`."""
    values = {
        name: getattr(new.row, name)
        for name in ("op", "constant", "dim", "branch", "count")
        if getattr(new.row, name) != getattr(old.row, name)
    }
    first, second = (
        mine if before == after else after
        for mine, before, after in zip(own.reads, old.reads, new.reads, strict=True)
    )
    name = new.name if new.name != old.name else own.name
    return _Line(own.id, name, own.row._replace(**values), (first, second))


def _standing(line: _Line, there: Mapping[Id, _Line], known: Mapping[Id, _Line]) -> _Line:
    """The line with a stand-in for each state that is not there."""
    first, second = (_stand_in(id, there, known) for id in line.reads)
    return replace(line, reads=(first, second))


def _stand_in(id: Id, there: Mapping[Id, _Line], known: Mapping[Id, _Line]) -> Id:
    """The state itself, or the nearest one that it came from by way of first inputs."""
    seen: set[Id] = set()
    while id not in _INPUTS and id not in there:
        if id in seen or id not in known:
            return _INPUTS[0]
        seen.add(id)
        id = known[id].reads[0]
    return id


def _last(
    own: tuple[_Line, ...],
    old: tuple[_Line, ...],
    new: tuple[_Line, ...],
    lines: Mapping[Id, _Line],
    known: Mapping[Id, _Line],
) -> Id:
    """Which line makes the subroutine's value. An instruction that was put after the last one reads
    whatever is last here."""
    wanted = own[-1].id if old[-1].id == new[-1].id else new[-1].id
    return _stand_in(wanted, lines, known)


def _places(own: tuple[_Line, ...], new: tuple[_Line, ...]) -> dict[Id, tuple[int, int]]:
    """Where lines would stand: its own at their places, new ones after the line that they follow
    in the edited program."""
    places: dict[Id, tuple[int, int]] = {line.id: (place, 0) for place, line in enumerate(own)}
    at, after = -1, 0
    for line in new:
        if line.id in places:
            at, after = places[line.id][0], 0
        else:
            after += 1
            places[line.id] = (at, after)
    return places


def _ordered(
    lines: Mapping[Id, _Line], places: Mapping[Id, tuple[int, int]], last: Id
) -> tuple[_Line, ...] | Misfit:
    """The lines, each after what it reads and the value last, otherwise in the order of places."""
    if last not in lines:
        return Misfit("nothing is left that makes a subroutine's value")
    order: list[_Line] = []
    done: set[Id] = set(_INPUTS)
    waiting = sorted(lines, key=lambda id: (id == last, places[id]))
    while waiting:
        ready = next((id for id in waiting if done.issuperset(lines[id].reads)), None)
        if ready is None:  # what an op does not read may come later
            ready = next((id for id in waiting if done.issuperset(_read(lines[id]))), None)
        if ready is None:
            return Misfit("its instructions would read each other in a circle")
        waiting.remove(ready)
        done.add(ready)
        order.append(lines[ready])
    return _value_last(order, last)


def _read(line: _Line) -> tuple[Id, ...]:
    """The states that the op reads."""
    op = line.row.op
    return line.reads[:1] if isinstance(op, str) and not PRIMITIVES[op].binary else line.reads


def _value_last(order: list[_Line], last: Id) -> tuple[_Line, ...]:
    """The lines up to the one that makes the value: later ones cannot be read by it."""
    end = next(place for place, line in enumerate(order) if line.id == last)
    return tuple(order[: end + 1])


def _written(subroutine: Subroutine, lines: tuple[_Line, ...]) -> Subroutine:
    """The subroutine with these lines; where two states have one name, the later gets another."""
    places = {id: place for place, id in enumerate(_INPUTS)}
    states = list(subroutine.states[:INPUTS])
    rows: list[Instruction] = []
    for line in lines:
        first, second = (places.get(id, 0) for id in line.reads)
        rows.append(line.row._replace(in1=first, in2=second))
        places[line.id] = INPUTS + len(rows) - 1
        states.append(fresh(line.name, states))
    return Subroutine(subroutine.name, tuple(rows), tuple(states))
