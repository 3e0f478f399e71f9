"""The mutation that moves the mark of what contexts are remembered by, for objectives with
memories."""

from __future__ import annotations

from random import Random

from primitives.language.dna import DNA, INPUTS, Instruction, Subroutine
from primitives.ops.state import BLOCK
from search.evolution.editing import put, with_instruction, without
from search.evolution.sites import sites

MARK = "REMEMBER"


def remember(dna: DNA, rng: Random) -> DNA:
    """Takes the program's marks away, and marks another state of the block's type, among those that
    run, or none: then the model's own rule says what is remembered. All are equally likely."""
    plain = unmarked(dna)
    found = sites(plain)
    if found is None:
        return dna
    places: dict[tuple[int, int], tuple[int, str]] = {}  # of each state the first that reads it
    for index, runs in sorted(found.runs.items()):
        rows = plain.subroutines[index].instructions
        for position, field in found.edges(index):
            state = getattr(rows[position], field)
            if index and state < INPUTS:
                continue  # the caller has it, too: one state, one program
            if all(run.types.get(state) == BLOCK for run in runs):
                places.setdefault((index, state), (position, field))
    rows = plain.subroutines[0].instructions
    places.setdefault((0, INPUTS + len(rows) - 1), (len(rows), ""))
    chosen = rng.choice([None, *sorted(places)])
    if chosen is None:
        return plain
    index, state = chosen
    subroutine, (position, field) = plain.subroutines[index], places[chosen]
    new = Instruction(MARK, state)
    return put(plain, index, with_instruction(plain, subroutine, position, field, new))


def unmarked(dna: DNA) -> DNA:
    """The program without marks; it computes the same."""
    for index, subroutine in enumerate(dna.subroutines):
        dna = put(dna, index, _unmarked(subroutine))
    return dna


def _unmarked(subroutine: Subroutine) -> Subroutine:
    for position in reversed(range(len(subroutine.instructions))):
        row = subroutine.instructions[position]
        if row.op == MARK and len(subroutine.instructions) > 1:
            subroutine = without(subroutine, position, row.in1)
    return subroutine
