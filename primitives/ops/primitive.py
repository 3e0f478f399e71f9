"""What is known of a primitive: a row of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from primitives.ops.state import Inferred, StateType

Rule = Callable[[StateType, StateType, int, tuple[int, ...]], Inferred]
"""(type of input 1, type of input 2, dim in units or count, branch axes around) -> type or why
there is none. A primitive of one input ignores the second type."""

Init = Literal["fan_in", "causal", "ones", "zeros", "table"]


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight that a primitive owns, one for each branch and each place that calls it, or one for
    all branches where an instruction says `branch=shared`.

    Attributes:
        shape: (feature size of input 1, feature size of the result) in scalars -> the shape under
            the branch axes. CONV 3X1 from 64 channels to 32 has (3, 64, 32).
        init: how it starts. "fan_in" is normal with variance 1/(product of all axes but the last);
            "causal" is 1/2 on the current position and 1/(2 taps) on each earlier one, as in
            Primer's published layer; "ones" and "zeros" are what they say. A "table" is no start:
            it is set when a graph is cut, and 0 before.
        trainable: False for a weight that keeps its start value, and for a state that the
            primitive's function moves by itself, such as a balancing bias.
    """

    shape: Callable[[int, int], tuple[int, ...]]
    init: Init
    trainable: bool = True


@dataclass(frozen=True, slots=True)
class Stepwise:
    """How a primitive computes the results at a few new positions, in evaluation, from its inputs
    there and from what was kept of earlier positions. The results are those of a pass over all
    positions at once. One that works on each position by itself keeps nothing: `EACH`.

    Attributes:
        code: the expression, like `Primitive.code`, of arrays [batch, *branches, N, feature] that
            hold the N new positions alone, but for the inputs named below. It may also read
            {start}, how many positions came before the new ones. None: it is the row's own.
        variants: other expressions than `code`, by the feature axis of input 1.
        every: the inputs, "x" and "y", whose array holds every position so far:
            [batch, *branches, length, feature], with zeros after the newest one.
        before: how many positions before the new ones {x} begins; zeros stand for those before the
            first: [batch, *branches, before + N, feature].
        carried: what {carried} is at the first position, a finite number. Later on it is the result
            at the last position: [batch, *branches, 1, feature]. None where it is not read.
    """

    code: str | None = None
    variants: Mapping[str, str] = field(default_factory=dict)
    every: tuple[str, ...] = ()
    before: int = 0
    carried: float | None = None

    @property
    def looks_back(self) -> bool:
        """Whether a result depends on earlier positions of an input."""
        return bool(self.every or self.before or self.carried is not None)


EACH = Stepwise()
"""Each position by itself."""


@dataclass(frozen=True, slots=True)
class Primitive:
    """One row of the table.

    Attributes:
        name: what programs call it.
        tf: the TF function that it is, for people and for the conformance tests.
        reads: the fields of an instruction that it reads, of "in1", "in2", "constant", "dim" and
            "count"; the others are silent. One that reads "in2" is binary.
        meaning: what it computes, in one line.
        rule: its type rule.
        flops: (feature size of input 1, elements of input 1, elements of the result) -> forward
            FLOPs of one token. Elements include the branches.
        code: the keras.ops expression that it lowers to. {x} and {y} are the inputs, arrays
            [batch, *branches, T, feature]; {c} and {k} the bank's constant and count; {w} the
            weight, {v} the weight with an axis for T, {name} the weight's name; {xi} and {yi} the
            indices of sparse inputs; {n} and {m} the domains of the inputs' indices, or the sizes
            of dense inputs; `run` the pass under way (`kernels.balancing.Run`: whether it trains,
            its tokens and random numbers, and what it leaves beside the value).
        hidden: for each input, the number that its invisible entries are set to where it is a
            closed state over key positions; None where their value does not matter. RED SUM has
            (0.0, None) and RED MIN the largest float, so that what MASK hides adds nothing, or is
            never the smallest. SQUARE has (None, None): what it makes of them stays invisible.
        weight: the weight that it owns, if any.
        commutative: whether its inputs may be exchanged.
        aligned: whether inputs that lack branch axes of the result, and a weight that branches
            share, get them, of size 1, before `code` reads them.
        bfloat16: whether the product may be computed in bfloat16.
        variants: other expressions than `code`, by the feature axis of input 1. That of KEYS is for
            closed states; an open state has `code`.
        unmasked: its type rule in bidirectional tasks, where a state over key positions need not be
            masked; None where it is `rule`.
        bidirectional: whether only bidirectional tasks may have it, because it compares a token
            with later ones.
        random: whether each instruction is a random draw of its own. Equal instructions without
            weights are computed once; equal draws are not. A draw has the shape of what it reads:
            heads that read a state without a head axis share it.
        makes_indices: whether a sparse result has indices of its own. That of any other primitive
            has those of the input that it reads.
        reads_indices: whether it reads nothing of input 2 but the indices.
        routing: whether mutation gives it only to programs with a count bank.
        marks: whether it computes nothing, and marks what it reads for the model around the block.
            It is never drawn among the operations: a mutation of its own moves the mark.
        training: what it does in training alone, if anything.
        functions: the functions, beside those of `primitives.kernels`, that its expressions call.
        stepwise: how it computes a few new positions from what was kept of earlier ones. None where
            that is not known: then exported models generate text by passes over the whole of it.
    """

    name: str
    tf: str
    reads: tuple[str, ...]
    meaning: str
    rule: Rule
    flops: Callable[[int, float, float], float]
    code: str
    hidden: tuple[float | None, float | None] = (None, None)
    weight: Weight | None = None
    commutative: bool = False
    aligned: bool = True
    bfloat16: bool = False
    variants: Mapping[str, str] = field(default_factory=dict)
    unmasked: Rule | None = None
    bidirectional: bool = False
    random: bool = False
    makes_indices: bool = False
    reads_indices: bool = False
    routing: bool = False
    marks: bool = False
    training: str = ""
    functions: tuple[Callable[..., Any], ...] = ()
    stepwise: Stepwise | None = None

    @property
    def binary(self) -> bool:
        return "in2" in self.reads
