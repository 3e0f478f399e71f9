"""Records as Python text: in one line, as candidates run it, or in lines of a length, broken as a
formatter breaks them, as exports print it.
"""

from __future__ import annotations

import json

from primitives.lowering.expression import (
    Assignment,
    Attribute,
    Call,
    Choice,
    Expression,
    Function,
    Hole,
    Keyword,
    Literal,
    Name,
    Operation,
    Slice,
    Subscript,
    Tuple,
)

INDENT = 4
"""Spaces by which the inside of a broken call lies deeper."""


def source(expression: Expression) -> str:
    """The expression in one line."""
    match expression:
        case Name(name) | Function(name):
            return name
        case Literal(value):
            return _literal(value)
        case Call(function, arguments):
            return f"{function}({_listed(arguments)})"
        case Keyword(name, value):
            return f"{name}={source(value)}"
        case Attribute(of, name):
            return f"{source(of)}.{name}"
        case Subscript(of, indices):
            return f"{source(of)}[{_listed(indices)}]"
        case Slice(start, stop):
            return ":".join("" if end is None else source(end) for end in (start, stop))
        case Tuple(items):
            return f"({_listed(items)}{',' if len(items) == 1 else ''})"
        case Operation(operator, left, right):
            return _operation(operator, left, right)
        case Choice(value, test, other):
            return f"{source(value)} if {source(test)} else {source(other)}"
        case Hole(name):
            raise ValueError(f"nothing was given for {{{name}}}")
    raise TypeError(f"{expression!r} is no expression that can be written")


def line(statement: Assignment) -> str:
    """The statement in one line."""
    return f"{_start(statement.target)}{_value(statement)}"


def lines(statement: Assignment, depth: int, length: int) -> list[str]:
    """The statement, indented by `depth`, in lines of at most `length` characters where names allow
    it:

        gate = ops.multiply(
            one,
            other,
        )
    """
    margin, inner = " " * depth, " " * (depth + INDENT)
    if len(margin + line(statement)) <= length:
        return [margin + line(statement)]
    start, value = _start(statement.target), statement.value
    if isinstance(value, Choice):
        return [f"{margin}{start}(", *_choice(value, depth + INDENT, length), f"{margin})"]
    if isinstance(value, Tuple) and start:
        return [f"{margin}{start}(", *_items(value.items, depth + INDENT, length), f"{margin})"]
    opening, _, _ = _brackets(value)
    if isinstance(statement.target, tuple) and len(margin + start + opening) > length:
        names = [f"{inner}{name}," for name in statement.target]
        first, *rest = _broken(value, depth, length, before=") = ")
        return [f"{margin}(", *names, first, *rest]
    return _broken(value, depth, length, before=start)


def _start(target: str | tuple[str, ...] | None) -> str:
    """What stands before the value: `a = `, `a, b = ` or `(a,) = `."""
    if target is None:
        return ""
    if isinstance(target, str):
        return f"{target} = "
    return f"({target[0]},) = " if len(target) == 1 else f"{', '.join(target)} = "


def _value(statement: Assignment) -> str:
    """The value in one line: several of them, such as values and their indices, need no brackets
    there."""
    value = statement.value
    if isinstance(value, Tuple) and len(value.items) > 1 and statement.target is not None:
        return _listed(value.items)
    return source(value)


def _broken(
    expression: Expression, depth: int, length: int, before: str = "", after: str = ""
) -> list[str]:
    """The expression in one line if it fits, else with what is inside its brackets in lines of its
    own: all in one, if that fits."""
    margin = " " * depth
    whole = f"{margin}{before}{source(expression)}{after}"
    opening, items, closing = _brackets(expression)
    if len(whole) <= length or not items:
        return [whole]
    inside = f"{margin}{' ' * INDENT}{_listed(items)}"
    one_line = len(inside) <= length and not isinstance(expression, Tuple)
    broken = [inside] if one_line else _items(items, depth + INDENT, length)
    return [f"{margin}{before}{opening}", *broken, f"{margin}{closing}{after}"]


def _items(items: tuple[Expression, ...], depth: int, length: int) -> list[str]:
    """Each item in lines of its own, with a comma."""
    return [each for item in items for each in _broken(item, depth, length, after=",")]


def _choice(choice: Choice, depth: int, length: int) -> list[str]:
    whole = " " * depth + source(choice)
    if len(whole) <= length:
        return [whole]
    return [
        *_broken(choice.value, depth, length),
        *_broken(choice.test, depth, length, before="if "),
        *_broken(choice.other, depth, length, before="else "),
    ]


def _brackets(expression: Expression) -> tuple[str, tuple[Expression, ...], str]:
    """An expression taken apart at its brackets: what opens them, the items inside, and what closes
    them; no items where it cannot be broken."""
    match expression:
        case Call(function, arguments):
            return f"{function}(", arguments, ")"
        case Tuple(items):
            return "(", items, ")"
        case Keyword(name, value):
            opening, inside, closing = _brackets(value)
            return f"{name}={opening}", inside, closing
        case Subscript(of, indices):
            opening, inside, closing = _brackets(of)
            return opening, inside, f"{closing}[{_listed(indices)}]"
        case Attribute(of, name):
            opening, inside, closing = _brackets(of)
            return opening, inside, f"{closing}.{name}"
    return source(expression), (), ""


def _listed(items: tuple[Expression, ...]) -> str:
    return ", ".join(map(source, items))


def _literal(value: object) -> str:
    if value is ...:
        return "..."
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _operation(operator: str, left: Expression | None, right: Expression) -> str:
    """Operands that are operations themselves stand in brackets. Formatters write a power of plain
    operands without spaces."""
    sides = [_operand(side) for side in (left, right) if side is not None]
    plain = not any(isinstance(side, (Operation, Call, Subscript)) for side in (left, right))
    if len(sides) == 1:
        return f"{operator}{sides[0]}"
    return f"{operator}".join(sides) if operator == "**" and plain else f" {operator} ".join(sides)


def _operand(expression: Expression) -> str:
    written = source(expression)
    return f"({written})" if isinstance(expression, (Operation, Choice)) else written
