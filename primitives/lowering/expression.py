"""Python code as records: what a lowered program says before it is written out.

`relu_gate = ops.multiply(x, gate[:, None])` is

    Assignment("relu_gate", Call("ops.multiply", (Name("x"), Subscript(Name("gate"), ...))))

Whoever wants to know or change something of the code, such as which functions it calls, looks at
the records; `render` writes them as text, last of all. A primitive's `code` is read once, by
`template`, into an expression with a Hole for each {name}, which `filled` replaces.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from string import Formatter
from typing import NamedTuple, get_args


class Name(NamedTuple):
    """A variable, such as `x`, or an attribute of one, such as `self.up_kernel`."""

    name: str


class Function(NamedTuple):
    """A function that is handed to another one."""

    name: str


class Literal(NamedTuple):
    """A number, a string, a truth value, a tuple of numbers, None or `...`."""

    value: object


class Hole(NamedTuple):
    """A place in a template, to be filled."""

    name: str


class Call(NamedTuple):
    """`function(*arguments)`; keyword arguments are Keywords."""

    function: str
    arguments: tuple[Expression, ...] = ()

    @property
    def parts(self) -> tuple[Expression, ...]:
        return self.arguments

    def with_parts(self, *parts: Expression) -> Expression:
        return Call(self.function, parts)


class Keyword(NamedTuple):
    """`name=value` in a call."""

    name: str
    value: Expression

    @property
    def parts(self) -> tuple[Expression, ...]:
        return (self.value,)

    def with_parts(self, *parts: Expression) -> Expression:
        return Keyword(self.name, parts[0])


class Attribute(NamedTuple):
    """`of.name`, of something that is no plain name."""

    of: Expression
    name: str

    @property
    def parts(self) -> tuple[Expression, ...]:
        return (self.of,)

    def with_parts(self, *parts: Expression) -> Expression:
        return Attribute(parts[0], self.name)


class Subscript(NamedTuple):
    """`of[indices]`."""

    of: Expression
    indices: tuple[Expression, ...]

    @property
    def parts(self) -> tuple[Expression, ...]:
        return (self.of, *self.indices)

    def with_parts(self, *parts: Expression) -> Expression:
        return Subscript(parts[0], parts[1:])


class Slice(NamedTuple):
    """`start:stop` as an index; None for an end that is not written."""

    start: Expression | None = None
    stop: Expression | None = None

    @property
    def parts(self) -> tuple[Expression, ...]:
        return tuple(end for end in (self.start, self.stop) if end is not None)

    def with_parts(self, *parts: Expression) -> Expression:
        start = None if self.start is None else parts[0]
        return Slice(start, None if self.stop is None else parts[-1])


class Tuple(NamedTuple):
    """`(a, b)`."""

    items: tuple[Expression, ...]

    @property
    def parts(self) -> tuple[Expression, ...]:
        return self.items

    def with_parts(self, *parts: Expression) -> Expression:
        return Tuple(parts)


class Operation(NamedTuple):
    """`left operator right`, or `-right` where `left` is None."""

    operator: str
    left: Expression | None
    right: Expression

    @property
    def parts(self) -> tuple[Expression, ...]:
        return (self.right,) if self.left is None else (self.left, self.right)

    def with_parts(self, *parts: Expression) -> Expression:
        return Operation(self.operator, None if self.left is None else parts[0], parts[-1])


class Choice(NamedTuple):
    """`value if test else other`."""

    value: Expression
    test: Expression
    other: Expression

    @property
    def parts(self) -> tuple[Expression, ...]:
        return (self.value, self.test, self.other)

    def with_parts(self, *parts: Expression) -> Expression:
        return Choice(parts[0], parts[1], parts[2])


class Assignment(NamedTuple):
    """`target = value`. A tuple of targets unpacks the value, even one of a single name; a target
    of None leaves the value alone, which is then called for its effect. `nodes` are the positions,
    among the nodes that are lowered, of those that the statement computes."""

    target: str | tuple[str, ...] | None
    value: Expression
    nodes: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        if self.target is None:
            return ()
        return (self.target,) if isinstance(self.target, str) else self.target

    def without(self, unread: frozenset[str]) -> Assignment:
        """The statement with _ in place of names that nobody reads, if it unpacks several."""
        if not isinstance(self.target, tuple) or len(self.target) == 1:
            return self
        return self._replace(target=tuple("_" if n in unread else n for n in self.target))


Leaf = Name | Function | Literal | Hole
Inner = Call | Keyword | Attribute | Subscript | Slice | Tuple | Operation | Choice
Expression = Leaf | Inner
"""A node of the tree. The inner ones have `parts`, the expressions that they are made of, and
`with_parts` gives the same node made of others, in the same order."""

_KINDS = frozenset(get_args(Expression))


def call(function: str, *arguments: object, **keywords: object) -> Call:
    """A call; arguments that are no expressions are literals."""
    named = (Keyword(name, _expression(value)) for name, value in keywords.items())
    return Call(function, (*map(_expression, arguments), *named))


def _expression(value: object) -> Expression:
    return value if value.__class__ in _KINDS else Literal(value)  # type: ignore[return-value]


class Mentioned(NamedTuple):
    """What code calls and reads by name: of `y = run.scale(gate(x, w))`, the function gate and the
    variables run, x and w. Functions of `ops` are not among them."""

    functions: frozenset[str]
    variables: frozenset[str]


def mentioned(*expressions: Expression) -> Mentioned:
    """The names in these expressions."""
    dotted: set[str] = set()
    functions: set[str] = set()
    pending = list(expressions)
    while pending:
        each = pending.pop()
        if isinstance(each, Name):
            dotted.add(each.name)
        elif isinstance(each, Call):
            (dotted if "." in each.function else functions).add(each.function)
            pending.extend(each.arguments)
        elif isinstance(each, Function):
            functions.add(each.name)
        elif not isinstance(each, (Literal, Hole)):
            pending.extend(each.parts)
    roots = {name.partition(".")[0] for name in dotted}
    return Mentioned(frozenset(functions), frozenset(roots - {"ops", ""}))


def filled(expression: Expression, values: Mapping[str, Expression]) -> Expression:
    """A template with its holes filled."""
    if isinstance(expression, Hole):
        return values[expression.name]
    if isinstance(expression, (Name, Function, Literal)):
        return expression
    return expression.with_parts(*[filled(part, values) for part in expression.parts])


def with_functions(expression: Expression, others: Mapping[str, str]) -> Expression:
    """The expression with other functions in place of those named: with {"project":
    "project_entries"}, what was `project(x, w)` is `project_entries(x, w)`."""
    if not others or isinstance(expression, (Name, Function, Literal, Hole)):
        return expression
    parts = tuple(with_functions(part, others) for part in expression.parts)
    if isinstance(expression, Call):
        return Call(others.get(expression.function, expression.function), parts)
    return expression.with_parts(*parts)


@cache
def template(code: str) -> Expression:
    """The expression that `code` writes, with a Hole for each {name}, in quotes or not:
    `clip({x}, "{name}")` is Call("clip", (Hole("x"), Hole("name")))."""
    text = "".join(
        literal + (_MARK + name if name else "") for literal, name, *_ in Formatter().parse(code)
    )
    return _read(ast.parse(text, mode="eval").body, code)


_MARK = "hole_"
"""What a hole's name begins with while Python's parser reads a template."""


def _read(node: ast.AST, code: str) -> Expression:
    """The records of a syntax tree of Python's own."""
    match node:
        case ast.Name(id=name):
            return Hole(name.removeprefix(_MARK)) if name.startswith(_MARK) else Name(name)
        case ast.Constant(value=str(text)) if text.startswith(_MARK):
            return Hole(text.removeprefix(_MARK))
        case ast.Constant(value=value):
            return Literal(value)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return Literal(-value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return Operation("-", None, _read(operand, code))
        case (
            ast.BinOp(left=left, op=operator, right=right)
            | ast.Compare(left=left, ops=[operator], comparators=[right])
        ) if type(operator) in _OPERATORS:
            symbol = _OPERATORS[type(operator)]
            return Operation(symbol, _read(left, code), _read(right, code))
        case ast.Attribute(value=of, attr=name):
            made = _read(of, code)
            return Name(f"{made.name}.{name}") if isinstance(made, Name) else Attribute(made, name)
        case ast.Tuple(elts=items):
            return Tuple(tuple(_read(item, code) for item in items))
        case ast.Slice(lower=start, upper=stop, step=None):
            ends = [None if end is None else _read(end, code) for end in (start, stop)]
            return Slice(*ends)
        case ast.Subscript(value=of, slice=index):
            indices = index.elts if isinstance(index, ast.Tuple) else [index]
            return Subscript(_read(of, code), tuple(_read(each, code) for each in indices))
        case ast.IfExp(test=test, body=value, orelse=other):
            return Choice(_read(value, code), _read(test, code), _read(other, code))
        case ast.Call(func=function, args=arguments, keywords=keywords):
            called = _read(function, code)
            if isinstance(called, Name) and all(keyword.arg for keyword in keywords):
                named = (Keyword(str(each.arg), _read(each.value, code)) for each in keywords)
                return Call(called.name, (*(_read(each, code) for each in arguments), *named))
    raise ValueError(
        f"a primitive's code cannot have '{ast.unparse(node)}', as {code!r} has; put it into a "
        "function that the code calls"
    )


_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%",
    ast.Pow: "**", ast.Gt: ">", ast.GtE: ">=", ast.Lt: "<", ast.LtE: "<=", ast.Eq: "==",
    ast.NotEq: "!=",
}  # fmt: skip
