"""What may differ between a LanguageModel and its template, taken out of its syntax tree."""

from __future__ import annotations

import ast
import re
from typing import Any


class Blank(ast.NodeTransformer):
    """Takes out of a LanguageModel what may differ: the decorator, docstrings, the names of tasks,
    whole numbers, how much two passes are to agree, and the names of layers, which are kept in
    `blocks`; of a list of layers one is left. `layer` is what such a name looks like."""

    def __init__(self, layer: re.Pattern[str]) -> None:
        self._layer = layer
        self.blocks: list[str] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        node.decorator_list = []
        node.body = node.body[1:] if is_docstring(node.body[0]) else node.body
        node.body = node.body[1:] if _tasks(node.body[0]) else node.body
        self.generic_visit(node)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        node.body = node.body[1:] if is_docstring(node.body[0]) else node.body
        self.generic_visit(node)
        return node

    def visit_Constant(self, node: ast.Constant) -> Any:
        return ast.Constant(0) if type(node.value) is int else node

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        self.generic_visit(node)
        if _is_float(node.left) and "disagreement" in ast.unparse(node.right):
            node.left = ast.Constant(0)
        return node

    def visit_List(self, node: ast.List) -> Any:
        self.generic_visit(node)
        named = [each.id if isinstance(each, ast.Name) else "" for each in node.elts]
        return ast.List(node.elts[:1], node.ctx) if set(named) == {"Block"} else node

    def visit_Name(self, node: ast.Name) -> Any:
        if self._layer.match(node.id) is not None:
            self.blocks.append(node.id)
            return ast.Name("Block", node.ctx)
        return node


def is_docstring(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _tasks(node: ast.AST) -> bool:
    """Whether a statement is the names of tasks, as constants."""
    return (
        isinstance(node, ast.Assign)
        and [ast.unparse(target) for target in node.targets] == ["tasks"]
        and isinstance(node.value, ast.Tuple)
        and all(isinstance(each, ast.Constant) for each in node.value.elts)
    )


def _is_float(node: ast.AST) -> bool:
    """Whether an expression is a number with a point, maybe below zero."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and type(node.value) is float
