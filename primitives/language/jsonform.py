"""The JSON form of a program: the same content as the text form, for other programs to read."""

from __future__ import annotations

from typing import Any

from primitives.errors import ProgramError
from primitives.language.dna import DNA, Instruction, Subroutine, verify


def to_json(dna: DNA) -> dict[str, Any]:
    """Plain dicts and lists. Fields are those of DNA, Subroutine and Instruction."""
    return {
        "dims": list(dna.dims),
        "constants": list(dna.constants),
        "counts": list(dna.counts),
        "every": dna.every,
        "subroutines": [
            {
                "name": subroutine.name,
                "states": list(subroutine.states),
                "instructions": [row._asdict() for row in subroutine.instructions],
            }
            for subroutine in dna.subroutines
        ],
    }


def from_json(data: dict[str, Any]) -> DNA:
    """The DNA that `to_json` wrote. ProgramError where a field is missing or not well formed.

    Constants are numbers here: only the text form has expressions of dims.
    """
    try:
        dna = DNA(
            tuple(_checked(value, int) for value in data["dims"]),
            tuple(float(_checked(value, int, float)) for value in data["constants"]),
            tuple(
                Subroutine(
                    _checked(row["name"], str),
                    tuple(_instruction(fields) for fields in row["instructions"]),
                    tuple(_checked(state, str) for state in row["states"]),
                )
                for row in data["subroutines"]
            ),
            tuple(_checked(value, int) for value in data.get("counts", ())),
            _checked(data.get("every", 1), int),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as fault:
        raise ProgramError(f"not a program in JSON form: {fault!r}") from None
    return verify(dna)


def _instruction(fields: dict[str, Any]) -> Instruction:
    op, *numbers = Instruction(**fields)
    return Instruction(_checked(op, str, int), *(_checked(number, int) for number in numbers))


def _checked(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise TypeError(f"{value!r} is not {' or '.join(kind.__name__ for kind in kinds)}")
    if type(value) is int and value.bit_length() > 63:
        raise OverflowError("a whole number is too large")
    return value
