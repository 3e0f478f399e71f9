"""How a model says where a token stands: a part of the model around a block, and no gene of the
block's.

Attention alone cannot tell the order of what it attends to. Convolutions and running sums can, and
so can layers of causal attention to some extent, since each position sees another number of earlier
ones (Haviv et al. 2022): there are models with no positions at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["learned", "sinusoidal", "rotary", "none"]


@dataclass(frozen=True, slots=True)
class Positions:
    """One way.

    Attributes:
        about: what the documentation of an exported model says of it.
        bounded: whether there are positions only up to the trained length: a weight for each.
        rotary: whether products of two sequences see how far apart positions are
            (`primitives.lowering.rotary`).
    """

    about: str
    bounded: bool = False
    rotary: bool = False


POSITIONS: dict[Kind, Positions] = {
    "learned": Positions("learned positions", bounded=True),
    "sinusoidal": Positions("sines and cosines of the position added to it"),
    "rotary": Positions(
        "rotary positions in every product of two sequences, such as attention's", rotary=True
    ),
    "none": Positions("no positions"),
}
"""Each by the name that it has in a config. To learn positions is what all earlier versions did."""
