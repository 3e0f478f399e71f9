"""What an exported model's positions are, in its module: fillings for the holes of the templates.

A model that learned positions has a vector for each of `sequence_length`, and refuses a longer
text. Any other takes texts of any length.
"""

from __future__ import annotations

from workers.export.code import LINE
from workers.spec.positions import POSITIONS, Kind

SINUSOIDS = "with_sinusoids"
"""The kernel that adds the waves of sinusoidal positions."""


def position_calls(positions: Kind) -> frozenset[str]:
    """Names of the kernels that the model itself calls."""
    return frozenset({SINUSOIDS} if positions == "sinusoidal" else ())


def position_parts(positions: Kind, by_task: bool = False) -> dict[str, str]:
    """What the holes of the module's template that deal with positions are filled with; `by_task`
    where token ids say to which task they belong."""
    if POSITIONS[positions].bounded:
        return {
            "lengths": "T up to sequence_length",
            "made": _MADE,
            "built": "        self.positions.build()\n",
            "bound": _BOUND,
            "embedded": _embedded(positions, "ops.arange(ops.shape(tokens)[1])", by_task),
        }
    return {
        "lengths": "for any T",
        "made": "",
        "built": "",
        "bound": "",
        "embedded": _embedded(positions, "0", by_task),
    }


def step_embedded(positions: Kind, by_task: bool = False) -> str:
    """The embeddings of new tokens that come after `start` others."""
    if POSITIONS[positions].bounded:
        return _embedded(positions, "start + ops.arange(ops.shape(tokens)[1])", by_task)
    return _embedded(positions, "start", by_task)


def _embedded(positions: Kind, place: str, by_task: bool) -> str:
    x = f"self.embedding({'ids_of(tokens)' if by_task else 'tokens'})"
    if positions == "learned":
        line = f"{x} + self.positions({place})"
        long = len(line) + len("        x = ") > LINE
        return f"{x} + self.positions(\n            {place}\n        )" if long else line
    if positions == "sinusoidal":
        return f"{SINUSOIDS}({x}{'' if place == '0' else f', {place}'})"
    return x


def longer_texts(positions: Kind) -> dict[str, str]:
    """What `generate` says of texts that are longer than those of training, and how it refuses
    them."""
    if POSITIONS[positions].bounded:
        return {"longer": _REFUSED, "refused": _REFUSES}
    return {"longer": _TAKEN, "refused": ""}


_MADE = """\
        self.positions = keras.layers.Embedding(
            sequence_length, d_model, normal, name="positions", dtype=policy
        )
"""

_BOUND = """\
        length = tokens.shape[1]
        if length is not None and length > self.sequence_length:
            raise ValueError(f"{length} tokens, but only {self.sequence_length} positions")
"""

_REFUSED = """\
        The model has learned `sequence_length` positions. A text that needs more is a ValueError,
        unless it may be `sliding`: whenever all positions are taken, the model begins anew with the
        last half of them, and forgets what came before."""

_TAKEN = """\
        The model has no learned positions, so a text may be longer than the `sequence_length` that
        it was trained with; how well it is continued there, training has not seen to. A `sliding`
        one stays within: whenever so many positions are taken, the model begins anew with the last
        half of them, and forgets what came before."""

_REFUSES = """\
        needed = tokens.shape[1] + max_new_tokens - 1
        if needed > self.sequence_length and not sliding:
            raise ValueError(
                f"{tokens.shape[1]} tokens and {max_new_tokens} new ones need {needed} positions, "
                f"and the model was trained with {self.sequence_length}; ask for fewer, or pass "
                "sliding=True to go on from the last half of them whenever they are full"
            )
"""
