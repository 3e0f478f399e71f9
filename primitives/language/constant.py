"""A constant written as an expression of dims: it becomes a number when a width is known.

    expression = factor, then any number of *factor or /factor, without spaces
    factor     = a number, dN, sqrt(dN) or rsqrt(dN)

`dN` is the size in channels that dim N of the program's bank has at the width d_model: where d1=1,
`rsqrt(d1)` is 1/sqrt(d_model/8), the scale of attention in a head of d_model/8 channels.
"""

from __future__ import annotations

import math
import re

from primitives.errors import ProgramError, unknown
from primitives.language.dna import DIM_VOCABULARY

_DIM = re.compile(r"(?:(?P<function>sqrt|rsqrt)\(d(?P<inner>[0-9]{1,9})\)|d(?P<bare>[0-9]{1,9}))\Z")
_FORM = "allowed: numbers, dN, sqrt(dN) and rsqrt(dN), with * and / between them"


def resolve(text: str, dims: tuple[int, ...], d_model: int | None) -> float:
    """The value of a constant's text at a width of d_model channels.

    `dims` is the program's bank, in multiples of d_model/8. A ProgramError says what cannot be
    read, or that the text needs a width and there is none.
    """
    first, *rest = re.split(r"([*/])", text)
    value = _factor(text, first, dims, d_model)
    for operator, word in zip(rest[::2], rest[1::2], strict=True):
        factor = _factor(text, word, dims, d_model)
        if operator == "/" and factor == 0:
            raise ProgramError(f"'{text}' divides by 0")
        value = value * factor if operator == "*" else value / factor
    return value


def _factor(text: str, word: str, dims: tuple[int, ...], d_model: int | None) -> float:
    match = _DIM.match(word)
    if match is None:
        try:
            return float(word)
        except ValueError:
            raise ProgramError(f"cannot read the constant '{text}'; {_FORM}") from None
    index = int(match["inner"] or match["bare"])
    if index >= len(dims):
        known = f"d0 to d{len(dims) - 1}" if dims else "none"
        raise ProgramError(f"'{text}': the bank has no dim d{index}; allowed: {known}")
    if dims[index] not in DIM_VOCABULARY:
        raise ProgramError(unknown("dim", str(dims[index]), map(str, DIM_VOCABULARY)))
    if d_model is None:
        raise ProgramError(f"'{text}' depends on the width: give a d_model, or write a number")
    channels = dims[index] * d_model / 8
    if match["function"] is None:
        return channels
    return math.sqrt(channels) if match["function"] == "sqrt" else 1 / math.sqrt(channels)
