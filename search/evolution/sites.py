"""Where a program's instructions run, and on what types: what a mutation asks that looks before it
changes something."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from typing import NamedTuple

from primitives.graph.inline import Context, Inlined, Place
from primitives.graph.liveness import TRAITS, Step
from primitives.graph.typing import TypeFault, typed
from primitives.language.dna import DNA, INPUTS, ROUTED, SHARED, Instruction
from primitives.ops.state import Mismatch, StateType
from primitives.ops.types import concatenation, shared


class Run(NamedTuple):
    """One call of a subroutine: the branch axes around it, the types of its states that are known,
    by their indices, and whether a call around it shares weights. Types of dead states are not
    known."""

    context: Context
    types: dict[int, StateType]
    sharing: bool = False


class Sites(Inlined):
    """A program inlined, with a record of every call. `runs` holds those of each subroutine that
    main reaches, in order; a TypeFault is raised where the program has no type."""

    def __init__(self, dna: DNA, bidirectional: bool) -> None:
        super().__init__(dna, bidirectional)
        self.runs: defaultdict[int, list[Run]] = defaultdict(list)
        self.call(0, 0, 0, ())

    def call(self, index: int, x: int, y: int, context: Context) -> int:
        live = self.live[index]
        read = (state for state, reads in enumerate((live.reads1, live.reads2)) if reads)
        known = {s: self.types[(x, y)[s]] for s in read}
        self.runs[index].append(Run(context, known, self._sharing))
        return super().call(index, x, y, context)

    def _primitive(self, step: Step, x: int, y: int, context: Context, place: Place) -> int:
        node = super()._primitive(step, x, y, context, place)
        if step[4] == 1:  # a branched one is noted as the call that it is
            self._note(node, place)
        return node

    def _called(self, step: Step, x: int, y: int, context: Context, place: Place) -> int:
        node = super()._called(step, x, y, context, place)
        self._note(node, place)
        return node

    def _note(self, node: int, place: Place) -> None:
        """A subroutine does not call itself, so its last run is the one under way."""
        index, position = place
        self.runs[index][-1].types[INPUTS + position] = self.types[node]

    def edges(self, index: int) -> list[tuple[int, str]]:
        """The fields through which a subroutine's live instructions read a state, as (position,
        field)."""
        found = []
        for position, op, _, _, branch, *_ in self.live[index].steps:
            if isinstance(op, str):
                reads = not TRAITS[op].unread, TRAITS[op].binary
            elif branch == ROUTED:
                reads = True, True
            else:
                reads = self.live[op].reads1, self.live[op].reads2
            found += [(position, f) for f, r in zip(("in1", "in2"), reads, strict=True) if r]
        return found

    def type_of(self, row: Instruction, run: Run) -> StateType | None:
        """The type of what a primitive's instruction gives in a run; None where it has none, or one
        that is not known here."""
        x = run.types.get(row.in1)
        y = run.types.get(row.in2, x)
        if not isinstance(row.op, str) or x is None or y is None or row.branch == ROUTED:
            return None
        traits, dna = TRAITS[row.op], self.dna
        value = dna.dims[row.dim] if traits.sized else 0
        count = dna.counts[row.count] if traits.counted else 0
        inner = _weights_context(row, run)
        if isinstance(inner, Mismatch):
            return None
        around = inner if traits.weighted else ()
        made, _ = typed(row.op, value, count, around, x, y, self.bidirectional)
        if isinstance(made, StateType) and row.branch > 1:
            made = concatenation(made, len(run.context), row.branch)
        return made if isinstance(made, StateType) else None


def _weights_context(row: Instruction, run: Run) -> Context | Mismatch:
    """The branch axes of a primitive's weight in a run."""
    if row.branch == SHARED:
        return shared(run.context)
    if row.branch != 1 and run.sharing:
        return Mismatch("a call whose weights are shared cannot branch further")
    return run.context if row.branch == 1 else (*run.context, row.branch)


@lru_cache(maxsize=8)
def sites(dna: DNA) -> Sites | None:
    """Where the instructions of a program run; None where it has no type in any task. A parent is
    often mutated several times in a row."""
    for bidirectional in (False, True):
        try:
            return Sites(dna, bidirectional)
        except (TypeFault, RecursionError):
            continue
    return None
