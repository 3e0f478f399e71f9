"""Inlining: a program's calls run through once for each place that calls, into one list of nodes.

Silent genes and dead instructions are never visited; equal nodes without weights are one node. A
branched call is inlined once, under one more branch axis, and so is a routed one, between the
DISPATCH of its tokens and the COMBINE of its results.
"""

from __future__ import annotations

from primitives.graph.canonical import MASK64, Tag, tag
from primitives.graph.liveness import TRAITS, Step, Traits, liveness
from primitives.graph.typing import TypeFault, fitting, typed
from primitives.language.dna import DNA, INPUTS, ROUTED, SHARED
from primitives.ops.state import BLOCK, ENTRIES, Mismatch, StateType
from primitives.ops.types import combine, concatenation, dispatch, shared

INPUT = "INPUT"
CONCAT = "CONCAT"
DISPATCH = "DISPATCH"
COMBINE = "COMBINE"
"""The ops that a graph has beside the primitives: the block's input; the results of a branched
instruction side by side on the feature axis; and around what a routed call's subroutine does,
tokens to their experts' buffers and the experts' results back, summed by gate."""

MAX_STEPS = 4096
"""Calls and instructions that inlining may run: nested calls can grow exponentially. A step makes
two nodes at most."""

Context = tuple[int, ...]
"""The branch axes of the calls around an instruction, outermost first: (8, -4) is inside one of 4
experts in each of 8 heads."""

Place = tuple[int, int]
"""The instruction that made a node: the subroutine's index, and the position in it."""


class Inlined:
    """Nodes in the order in which inlining makes them, as parallel lists; node 0 is the input.

    This is the hot path of a search: a child is inlined and hashed before anything else is known of
    it, thousands of times a second.

    Attributes:
        inputs: the nodes that each node reads.
        tags: what each node is apart from its inputs.
        types: its type.
        structure: a number for each node that follows from what it computes, but not from which of
            several equal weights it has. Commutative inputs are ordered by it.
        places: the instruction that made it.
        supports: for each sparse node, the node that made its indices.
    """

    def __init__(self, dna: DNA, bidirectional: bool) -> None:
        self.dna, self.bidirectional = dna, bidirectional
        self.live = liveness(dna)
        self.inputs: list[tuple[int, ...]] = [()]
        self.tags: list[Tag] = [tag(INPUT, 0, ())]
        self.types: list[StateType] = [BLOCK]
        self.structure: list[int] = [0]
        self.places: list[Place] = [(-1, -1)]
        self.supports: dict[int, int] = {}
        self._known: dict[tuple[object, ...], int] = {}
        self._steps = 0
        self._sharing = False

    def call(self, index: int, x: int, y: int, context: Context) -> int:
        """Inlines subroutine `index` on nodes x and y; gives the node of its value."""
        length = len(self.dna.subroutines[index].instructions)
        self._steps += 1 + length
        if self._steps > MAX_STEPS:
            kind = f"inlining takes more than {MAX_STEPS} steps"
            raise TypeFault(Mismatch(kind, "; call fewer subroutines"))
        states = [x, y] + [0] * length
        place = (index, -1)
        try:
            for step in self.live[index].steps:
                position, _, in1, in2, branch, _, _, traits = step
                place = (index, position)
                if branch == 1 and traits is not None:
                    node = self._primitive(step, states[in1], states[in2], context, place)
                else:
                    node = self._called(step, states[in1], states[in2], context, place)
                states[INPUTS + position] = node
        except TypeFault as fault:
            fault.places.append(place)
            raise
        return states[-1]

    def _called(self, step: Step, x: int, y: int, context: Context, place: Place) -> int:
        """A call, or a primitive that runs in branches."""
        op, branch = step[1], step[4]
        if branch == SHARED and context:
            return self._shared(step, x, y, context, place)
        if branch == SHARED:  # no call around is branched
            branch = 1
        elif branch != 1 and self._sharing:
            kind = "a call whose weights are shared cannot branch further"
            raise TypeFault(Mismatch(kind, "; branch outside of it"))
        if branch == ROUTED:
            return self._routed(op, x, y, context, place)
        inner = context if branch == 1 else (*context, branch)
        if isinstance(op, str):
            node = self._primitive(step, x, y, inner, place)
        else:
            made = len(self.places)
            node = self.call(op, x, y, inner)
            if node >= made and branch == 1:
                self.places[node] = place  # the caller's name says more than the callee's
        return node if branch == 1 else self._concatenated(node, len(context), branch, place)

    def _shared(self, step: Step, x: int, y: int, context: Context, place: Place) -> int:
        """An instruction whose weights lack the innermost branch axis around it."""
        outside, self._sharing = self._sharing, True
        inner = shared(context)
        if isinstance(inner, Mismatch):
            raise TypeFault(inner)
        alone: Step = (*step[:4], 1, *step[5:])
        node = self._called(alone, x, y, inner, place)
        self._sharing = outside
        return node

    def _primitive(self, step: Step, x: int, y: int, context: Context, place: Place) -> int:
        """The node of a primitive on nodes x and y: one that is there already where it can be."""
        name: str
        traits: Traits
        _, name, _, _, _, value, count, traits = step  # type: ignore[assignment]
        binary, single = traits.binary, traits.single
        if binary:
            if traits.reads_indices:
                y = self.supports.get(y, y)
            inputs: tuple[int, ...] = (y, x) if y < x and traits.commutative else (x, y)
        else:
            x = y = 0 if traits.unread else x
            inputs = (x,)
        if single:
            key = (name, inputs, value, count)
            node = self._known.get(key)
            if node is not None:
                return node
        types, around = self.types, context if traits.weighted else ()
        made, tag = typed(name, value, count, around, types[x], types[y], self.bidirectional)
        if isinstance(made, Mismatch):
            raise TypeFault(made)
        if binary and types[x].axis == types[y].axis == ENTRIES:
            self._check_indices(name, x, y)
        again = made is types[x] and name == "MASK"  # a closed state stays as it is
        node = x if again else self._add(inputs, tag, made, place)
        if single:
            self._known[key] = node
        return node

    def _check_indices(self, name: str, x: int, y: int) -> None:
        """Sparse states that are joined entry by entry must have the same indices."""
        traits = TRAITS[name]
        if traits.makes_indices or traits.reads_indices:
            return
        if self.supports[x] != self.supports[y]:
            kind = "sparse states of different indices"
            raise TypeFault(Mismatch(kind, f": {name} cannot join them; TAKE reads at indices"))

    def _routed(self, op: str | int, x: int, gates: int, context: Context, place: Place) -> int:
        """Inlines a routed call of subroutine `op` on tokens x."""
        if isinstance(op, str):
            raise TypeFault(Mismatch("only a call of a subroutine can be routed", f", not {op}"))
        tokens = self._dispatched(x, gates, context, place)
        experts = self.types[tokens].branches
        value = self.call(op, tokens, tokens, experts)
        return self._combined(value, gates, experts, place)

    def _dispatched(self, x: int, gates: int, context: Context, place: Place) -> int:
        """Tokens in their experts' buffers. Of sparse gates this reads the indices alone, of gates
        for all experts nothing: calls that send tokens the same way share it."""
        kind = self.types[gates]
        made = fitting(dispatch(self.types[x], kind, context))
        inputs = (x, self.supports[gates]) if kind.axis == ENTRIES else (x,)
        key = (DISPATCH, inputs, made)
        node = self._known.get(key)
        if node is None:
            own = tag(DISPATCH, 0, made.branches)
            node = self._known[key] = self._add(inputs, own, made, place)
        return node

    def _combined(self, value: int, gates: int, experts: Context, place: Place) -> int:
        """The experts' results at their tokens, summed by gate."""
        key = (COMBINE, value, gates)
        node = self._known.get(key)
        if node is None:
            made = fitting(combine(self.types[value], experts))
            own = tag(COMBINE, 0, experts)
            node = self._known[key] = self._add((value, gates), own, made, place)
        return node

    def _concatenated(self, x: int, depth: int, branch: int, place: Place) -> int:
        """The results of a branched instruction that stands `depth` branched calls deep."""
        key = (CONCAT, x, depth, branch)
        node = self._known.get(key)
        if node is None:
            made = fitting(concatenation(self.types[x], depth, branch))
            own = tag(CONCAT, branch, made.branches)
            node = self._known[key] = self._add((x,), own, made, place)
        return node

    def _add(self, inputs: tuple[int, ...], tag: Tag, made: StateType, place: Place) -> int:
        structure = self.structure
        node = len(structure)
        if len(inputs) == 1:
            mixed = tag.number + structure[inputs[0]] * 1_000_003
        else:
            first, second = structure[inputs[0]], structure[inputs[1]]
            if first > second and tag.commutative:
                inputs, first, second = (inputs[1], inputs[0]), second, first
            mixed = tag.number + first * 1_000_033 + second * 998_244_353
        structure.append(mixed & MASK64)
        self.inputs.append(inputs)
        self.tags.append(tag)
        self.types.append(made)
        self.places.append(place)
        if made.axis == ENTRIES:
            self.supports[node] = self._support(node, tag.op, inputs)
        return node

    def _support(self, node: int, op: str, inputs: tuple[int, ...]) -> int:
        """The node that made a sparse node's indices: itself, or the support of what it reads."""
        if op == CONCAT or TRAITS[op].makes_indices:
            return node
        if TRAITS[op].reads_indices:
            return self.supports[inputs[1]]
        return next(self.supports[read] for read in inputs if read in self.supports)
