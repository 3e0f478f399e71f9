"""One node as an expression: what its row of the table says, of the states that it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from primitives.graph.build import CONCAT, Node
from primitives.lowering.dispatch import LoweringOptions
from primitives.lowering.expression import (
    Expression,
    Literal,
    Name,
    Slice,
    Subscript,
    call,
    filled,
    template,
)
from primitives.lowering.rewrite import ATTENTION, CENTRED, OVER_RMS, RELU, SOFTMAX
from primitives.lowering.rotary import ROTATED
from primitives.ops.state import KEYS, StateType
from primitives.ops.table import PRIMITIVES, Primitive


def operation(
    nodes: Sequence[Node],
    node: Node,
    variables: Sequence[str],
    weight: Expression | None = None,
    weight_name: str = "",
    ids_by_node: Mapping[int, str] | None = None,
    options: LoweringOptions | None = None,
) -> Expression:
    """The keras.ops expression of a node that is no part of a routed call's way.

    `variables` are what the states of `nodes` are called; `ids_by_node` what the indices of sparse
    states are called, by the node that made them; `weight` is how the node's weight is read, and
    `weight_name` what it is called, for a state that training moves.
    """
    options = options or LoweringOptions()
    inputs = [nodes[child] for child in node.inputs]
    read: list[Expression] = [Name(variables[child]) for child in node.inputs]
    if node.op in _PATTERNS:
        return _PATTERNS[node.op](node, read, options)
    if node.op == CONCAT:
        return side_by_side(inputs[0].type, node, read[0])
    row = PRIMITIVES[node.op]
    for place, child in enumerate(inputs):
        read[place] = _prepared(row, place, child, read[place], node.type)
    rounded = options.mixed_precision and row.bfloat16
    if rounded:
        read = [_cast(each, "bfloat16") for each in read]
        weight = None if weight is None else _cast(weight, "bfloat16")
    values = holes(nodes, node, read, weight, weight_name, ids_by_node)
    made = filled(template(row_code(row, inputs[0].type)), values)
    return _cast(made, "float32") if rounded else made


def holes(
    nodes: Sequence[Node],
    node: Node,
    read: Sequence[Expression],
    weight: Expression | None,
    weight_name: str,
    ids_by_node: Mapping[int, str] | None,
) -> dict[str, Expression]:
    """What stands for the holes in the code of a node's row, whose inputs are `read`."""
    inputs = [nodes[child] for child in node.inputs]
    values = {
        "x": read[0],
        "y": read[-1],
        "n": Literal(inputs[0].type.domain or inputs[0].type.size),
        "m": Literal(inputs[-1].type.domain or inputs[-1].type.size),
        "c": Literal(float(node.value)),
        "k": Literal(node.count),
    }
    for hole, child in (("xi", inputs[0]), ("yi", inputs[-1])):
        if child.support >= 0:
            ids = Name((ids_by_node or {})[child.support])
            values[hole] = with_axes(nodes[child.support].type, node.type.branches, ids)
    if weight is not None:
        row, missing = PRIMITIVES[node.op], len(node.type.branches) - len(node.context)
        if missing > 0 and row.aligned:  # branches share it
            weight = Subscript(weight, (*[_ALL] * len(node.context), *[_NEW] * missing))
        values["w"], values["name"] = weight, Literal(weight_name)
        values["v"] = Subscript(weight, _PER_CHANNEL) if node.type.branches else weight
    return values


_ALL = Slice()
_NEW = Literal(None)
_PER_CHANNEL = (Literal(...), _NEW, _ALL)
"""`[..., None, :]`: a weight [*branches, n] for states [batch, *branches, T, n]."""


def _softmax(node: Node, values: Sequence[Expression], options: LoweringOptions) -> Expression:
    if node.type.axis == KEYS and node.type.closed:
        return call("masked_softmax", values[0])
    return call("ops.softmax", values[0], axis=-1)


def _attention(node: Node, values: Sequence[Expression], options: LoweringOptions) -> Expression:
    function = "flash_attention" if options.flash else "attention"
    rounded = {"bfloat16": True} if options.mixed_precision else {}
    return call(function, *values, causal=bool(node.value), **rounded)


_PATTERNS: dict[str, Callable[[Node, Sequence[Expression], LoweringOptions], Expression]] = {
    SOFTMAX: _softmax,
    ATTENTION: _attention,
    RELU: lambda node, values, options: call("ops.relu", values[0]),
    CENTRED: lambda node, values, options: call("centred", values[0]),
    OVER_RMS: lambda node, values, options: call("over_rms", values[0], float(node.value)),
    ROTATED: lambda node, values, options: call("rotated", values[0]),
}
"""What `rewrite` finds or adds, and no row of the table says."""


def side_by_side(child: StateType, node: Node, value: Expression) -> Expression:
    """What a CONCAT does: it joins branches if the child has them, and else repeats the child."""
    joins = len(child.branches) > len(node.type.branches)
    return call("merge_branches" if joins else "repeat_features", value, int(node.value))


def with_axes(state: StateType, branches: tuple[int, ...], value: Expression) -> Expression:
    """A state with an axis of size 1 for each branch axis that it lacks: `x[:, None]` for x
    [batch, T, n] that is to meet [batch, 4, T, n]."""
    missing = len(branches) - len(state.branches)
    if missing <= 0:
        return value
    return Subscript(value, (*[_ALL] * (1 + len(state.branches)), *[_NEW] * missing))


def row_code(row: Primitive, state: StateType) -> str:
    """The row's code for a first input of this type. Over key positions that are open, each
    position reads all of them, so that they are features like any others."""
    if state.axis == KEYS and not state.closed:
        return row.code
    return row.variants.get(state.axis, row.code)


def _prepared(
    row: Primitive, place: int, child: Node, value: Expression, made: StateType
) -> Expression:
    """Input number `place` of a row, with its invisible entries filled and the branch axes of the
    result."""
    fill = fill_of(row, place, child)
    if fill is not None:
        value = call("hide", value, fill)
    return with_axes(child.type, made.branches, value) if row.aligned else value


def fill_of(row: Primitive, place: int, child: Node) -> float | None:
    """What the invisible entries of input number `place` have to be set to, if to anything."""
    fill = row.hidden[place]
    zeroed = child.op in ("MASK", SOFTMAX)
    return None if not child.type.closed or (zeroed and fill == 0) else fill


def _cast(value: Expression, dtype: str) -> Expression:
    return call("ops.cast", value, dtype)
