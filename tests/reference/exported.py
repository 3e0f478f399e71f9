"""What exported Python may consist of, as a list to check a syntax tree against.

Two parts of a module are copies of files of this project, and have to be exactly that: the kernels
and the fixed parts of the templates. All else, the statements that follow from a program, may use
the node types, names, attributes, calls and string constants listed here, and no others.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Iterator
from functools import cache
from inspect import getsource
from itertools import product
from textwrap import dedent
from types import SimpleNamespace

import keras

from primitives.kernels import kernel_modules, kernels
from tests.reference.blank import Blank, is_docstring
from workers.export.asking import _ASKED, _passes, asking_parts
from workers.export.code import template
from workers.export.positions import position_parts, step_embedded
from workers.spec.positions import POSITIONS, Kind
from workers.spec.task import ModelSpec, Task, TrainingSpec

IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]*\Z")
MODULE = re.compile(r"(?:[a-z][a-z0-9_]*_)?block\Z|block_[a-z0-9_]+\Z")
LAYER = re.compile(r"(?:[A-Z][A-Za-z0-9]*)?Block[0-9]*\Z|Block[A-Za-z0-9]+\Z")

IMPORTS = {
    "import math", "import keras", "from keras import ops", "from __future__ import annotations",
    "from pathlib import Path", "import functools",
}  # fmt: skip
TYPING = {"Any", "NamedTuple", "Callable", "Sequence"}

STATEMENTS = (
    ast.Assign, ast.Expr, ast.Return, ast.For, ast.If, ast.Raise, ast.Call, ast.keyword, ast.Name,
    ast.Attribute, ast.Subscript, ast.Slice, ast.Tuple, ast.Constant, ast.BinOp, ast.UnaryOp,
    ast.IfExp, ast.BoolOp, ast.Compare, ast.JoinedStr, ast.FormattedValue, ast.FunctionDef,
    ast.arguments, ast.arg, ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
"""Of the layers: nothing is imported, deleted, awaited, yielded, or defined but methods."""

METHODS = {"build", "cache", "call", "compute_output_shape", "step"}
"""Of a layer, beside those that its template has whole."""
OPS = {
    "abs", "add", "cast", "cos", "cumprod", "cumsum", "divide", "exp", "log", "matmul", "max",
    "maximum", "mean", "min", "minimum", "multiply", "ones", "prod", "relu", "sigmoid", "sign",
    "sin", "softmax", "sqrt", "square", "stop_gradient", "subtract", "sum", "swapaxes", "tanh",
    "zeros",
}  # fmt: skip
"""Of keras.ops, what a program's own statements call."""

CALLED = {"keras.initializers.RandomNormal", "keras.random.SeedGenerator", "Run", "getattr",
          "ValueError"}  # fmt: skip
"""What else they call by name."""

OF_SELF = {"add_weight", "add_loss", "compute_dtype", "d_model", "dropout", "seeds", "step"}
OF_RUN = {
    "losses", "updates", "loads", "policies", "baselines", "seed", "training", "tokens", "items",
    "append",
}  # fmt: skip
NAMES = {
    "x", "ops", "self", "run", "d_model", "training", "tokens", "input_shape", "loss", "name",
    "value", "keras", "causal_taps", "None", "Tensor", "tuple", "int", "bool", "Any", "batch",
    "cache", "length", "start", "remember", "ask", "moves",
}  # fmt: skip
WORDS = {
    "bfloat16", "float32", "int32", "zeros", "ones",
    "d_model must be a multiple of 8, got inputs ",
}  # fmt: skip
"""String constants of statements, beside names of weights where weights are named, and WIDTH."""
WIDTH = re.compile(r"d_model must be \d+, got inputs \Z")


def faults(source: str, module: str) -> list[str]:
    """What in an exported module should not be there; nothing where all is as it may be."""
    return list(_module_faults(ast.parse(source), module))


def example_faults(source: str, module: str) -> list[str]:
    """The same of an example script, of which only the module's name is not fixed."""
    tree = ast.parse(source)
    if MODULE.match(module) is None or keyword.iskeyword(module):
        return [f"module {module!r}"]
    allowed = {_dumped(ast.parse(text)) for text in _examples(module)}
    return [] if _dumped(tree) in allowed else ["the script is not its template"]


def _module_faults(tree: ast.Module, module: str) -> Iterator[str]:
    if MODULE.match(module) is None:
        yield f"module {module!r}"
    fixed = _fixed()
    first, *body = tree.body
    if not is_docstring(first):
        yield "no docstring"
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from _import_faults(node)
        elif isinstance(node, ast.ClassDef) and node.name == "LanguageModel":
            yield from _model_faults(node, module)
        elif isinstance(node, ast.ClassDef) and _is_layer(node):
            yield from _layer_faults(node, module)
        elif _dumped(node) not in fixed:
            yield f"line {node.lineno}: {ast.unparse(node)[:80]!r} is no part of this project"


def _import_faults(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    text = ast.unparse(node)
    if isinstance(node, ast.ImportFrom) and node.module == "typing":
        if not {alias.name for alias in node.names} <= TYPING:
            yield f"import: {text}"
    elif text not in IMPORTS:
        yield f"import: {text}"


def _is_layer(node: ast.ClassDef) -> bool:
    return [ast.unparse(base) for base in node.bases] == ["keras.layers.Layer"]


def _layer_faults(layer: ast.ClassDef, module: str) -> Iterator[str]:
    if LAYER.match(layer.name) is None:
        yield f"class {layer.name!r}"
    yield from _decorator_faults(layer, module)
    first, *methods = layer.body
    if not is_docstring(first):
        yield f"{layer.name}: no docstring"
    for method in methods:
        if _dumped(method) in _whole_methods():
            continue
        if not isinstance(method, ast.FunctionDef) or method.name not in METHODS:
            yield f"{layer.name}: {ast.unparse(method)[:60]!r}"
            continue
        local = {node.id for node in ast.walk(method)
                 if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}  # fmt: skip
        for name in local:
            if IDENTIFIER.match(name) is None or name in ("self", "ops", "keras", "x"):
                yield f"{layer.name}: assigns {name!r}"
        for node in ast.walk(method):
            for fault in _node_faults(node, local):
                yield f"{layer.name}.{method.name}: {fault}"
        yield from (f"{layer.name}: {fault}" for fault in _string_faults(method))


def _decorator_faults(node: ast.ClassDef, module: str) -> Iterator[str]:
    said = [ast.unparse(one) for one in node.decorator_list]
    if said != [f"keras.saving.register_keras_serializable(package={module!r})"]:
        yield f"{node.name}: decorators {said}"


def _node_faults(node: ast.AST, local: set[str]) -> Iterator[str]:
    if not isinstance(node, STATEMENTS):
        yield type(node).__name__
    elif isinstance(node, ast.Name):
        if node.id not in local | NAMES | CALLED | kernels().keys():
            yield f"name {node.id!r}"
    elif isinstance(node, ast.Attribute):
        yield from _attribute_faults(node, local)
    elif isinstance(node, ast.Call):
        yield from _call_faults(node)
    elif isinstance(node, ast.Constant):
        if not (
            node.value is None or node.value is ... or isinstance(node.value, (int, float, str))
        ):
            yield f"constant {node.value!r}"
    elif isinstance(node, ast.FunctionDef) and node.decorator_list:
        yield "a decorated method"


def _attribute_faults(node: ast.Attribute, local: set[str]) -> Iterator[str]:
    text = ast.unparse(node)
    root, *rest = text.split(".") if isinstance(node.value, (ast.Name, ast.Attribute)) else ["", ""]
    own = rest[0] if len(rest) == 1 else ""
    known = (
        (root == "ops" and own in OPS)
        or text in CALLED
        or (root == "keras" and any(name.startswith(f"{text}.") for name in CALLED))
        or (root == "run" and set(rest) <= OF_RUN)
        or (root == "self" and own in OF_SELF)
        or (root == "self" and IDENTIFIER.match(own) is not None and not hasattr(_LAYER, own))
        or text == "getattr(self, name).assign"
        or (own == "dtype" and root in {*local, "x"})
    )  # fmt: skip
    if not known:
        yield f"attribute {text!r}"


def _call_faults(node: ast.Call) -> Iterator[str]:
    text = ast.unparse(node.func)
    if text == "getattr" and ast.unparse(node) != "getattr(self, name)":
        yield f"call {ast.unparse(node)!r}"
    root = text.partition(".")[0]
    known = text in CALLED | {"getattr(self, name).assign"} or text in kernels()
    if not known and root not in ("ops", "self", "run"):
        yield f"call of {text!r}"
    methods = ("self.add_weight", "self.add_loss", "self.dropout", "self.step")
    if root == "self" and text not in methods:
        yield f"call of {text!r}"


def _string_faults(method: ast.FunctionDef) -> Iterator[str]:
    """String constants that are neither words nor, where one is named, a weight's name."""
    named = set()
    for node in ast.walk(method):
        if isinstance(node, ast.Call):
            text, given = ast.unparse(node.func), [*node.args, *(k.value for k in node.keywords)]
            if text == "self.add_weight" or any(ast.unparse(one) == "run" for one in node.args):
                named |= {id(one) for one in given}
    for node in ast.walk(method):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            weight = id(node) in named and IDENTIFIER.match(node.value)
            said = node.value in WORDS | _method_docstrings() or WIDTH.match(node.value)
            if not said and not weight:
                yield f"string {node.value!r}"


@cache
def _method_docstrings() -> frozenset[str]:
    """What the template of a layer's methods says of them."""
    return frozenset(re.findall(r'"""(.*?)"""', template("layer_step.py").template, re.DOTALL))


@cache
def _whole_methods() -> frozenset[str]:
    """Dumps of the methods of a layer in which its template leaves nothing open."""
    parts = re.split(r"\n(?=    def )", template("layer.py").template)
    whole = [dedent(part) for part in parts if part.startswith("    def ") and "$" not in part]
    return frozenset(_dumped(ast.parse(text).body[0]) for text in whole)


def _model_faults(model: ast.ClassDef, module: str) -> Iterator[str]:
    """The class of the template, but for its numbers, its blocks, and what is passed to them."""
    yield from _decorator_faults(model, module)
    blank = Blank(LAYER)
    text = ast.unparse(model)
    made = _dumped(blank.visit(ast.parse(text).body[0]))
    shared, remembers = "dict.fromkeys" in text, "def remember" in text
    cut = "of a model that was cut" in text
    asks = "def compute_loss" in text
    if not any(made in _models(kind, shared, remembers, cut, asks) for kind in POSITIONS):
        yield "LanguageModel is not its template"
    for name in blank.blocks:
        if LAYER.match(name) is None:
            yield f"LanguageModel makes {name!r}"


@cache
def _models(kind: Kind, shared: bool, remembers: bool, cut: bool, asks: bool) -> frozenset[str]:
    """The dumps of every LanguageModel that the template makes, blank, with positions of this kind:
    one whose layers share their weights, that remembers contexts, that was cut, or that asks for
    something in training."""
    from workers.export.source import _each, _remember

    made = set()
    objective = "trime" if remembers else "next_token"
    task = Task(
        model=ModelSpec(positions=kind, share_layers=shared),
        training=TrainingSpec(objective=objective),
    )
    for blocks, (tokens, by_task) in product(_blocks(shared, cut), _TOKENS):
        around = position_parts(kind, by_task)
        embedded = around.pop("embedded")
        passes = _asking(embedded, tokens) if asks else [asking_parts([], embedded, tokens)]
        for writing, pass_ in product(_writing(kind, by_task), passes):
            writing = {**writing, "remember": _remember(tokens, task, by_task)}
            source = template("block.py").substitute(
                **around, **writing, **pass_, module="a_block",
                sizes="", title="", tasks="", facts="", tokens="", imports="", definitions="",
                model="", blocks=blocks, registered="", program="", block="ABlock",
                each=_each(shared),
                vocabulary=256, d_model=8, layers=1, sequence_length=2,
            )  # fmt: skip
            model = next(node for node in ast.parse(source).body
                         if isinstance(node, ast.ClassDef))  # fmt: skip
            made.add(_dumped(Blank(LAYER).visit(model)))
    return frozenset(made)


def _blocks(shared: bool, cut: bool) -> list[str]:
    """The statements with which a model makes its blocks."""
    from workers.export.source import Names, _cut_blocks, _made_blocks

    if cut:
        one = SimpleNamespace(graph=SimpleNamespace(hash=""), name="ABlock1", width=8)
        return [_cut_blocks([one], [one.graph])]  # type: ignore[list-item]
    return [_made_blocks(every, Names("a_block", "ABlock"), shared) for every in (0, 1, 2, 4)]


_TOKENS = (("", False), (", tokens=tokens", False), (", tokens=tokens", True))
"""What blocks are told of tokens: nothing, their ids, or these with their documents' tasks."""


def _asking(embedded: str, passed: str) -> list[dict[str, str]]:
    """The passes of models that ask for something: rewards, agreement of two passes, or both, where
    states may follow one of them."""
    kinds = [(0.0, True, False), *product([0.5, -0.5], [False, True], [False, True])]
    return [{"asked": _ASKED, "passes": _passes(embedded, passed, *kind)} for kind in kinds]


def _writing(kind: Kind, by_task: bool) -> Iterator[dict[str, str]]:
    """The ways in which a LanguageModel writes text: not at all; by steps, which read a prompt at
    once or in parts; by passes over the whole text."""
    from workers.export.generation import _generate

    holes = ("codec", "generate", "step", "write", "writer", "writes")
    none = dict.fromkeys(holes, "")
    writes = {**none, "write": "        self.passes = None\n"}
    yield none
    for tokens in ("", ", tokens=tokens"):
        step = template("step.py").substitute(tokens=tokens, embedded=step_embedded(kind, by_task))
        for copied in (0, 1 << 24):
            yield {**writes, "step": step, "generate": _generate("", copied, 512, kind, by_task)}
    yield {**writes, "generate": _generate("it cannot", 0, 512, kind, by_task)}


@cache
def _fixed() -> frozenset[str]:
    """Dumps of what modules copy: kernels, the templates' functions and classes."""
    texts = [*(getsource(module) for module in kernel_modules()), "Tensor = Any"]
    copied = ("bytes", "bpe", "writer.py", "causal_taps.py", "dropout.py")
    texts += [template(name).template for name in copied]
    texts.append(template("block.py").template.partition("def build_model")[2])
    texts[-1] = "def build_model" + texts[-1].partition("$writer")[0]
    nodes = [node for text in texts for node in ast.parse(text).body]
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Assign)
    return frozenset(_dumped(node) for node in nodes if isinstance(node, kinds))


def _examples(module: str) -> Iterator[str]:
    from workers.export.source import _CONTINUED

    ends = ((" continues it,", _CONTINUED), ("", ""))
    for name in ("example.py", "example_memory.py"):
        for goes_on, continued in ends:
            yield template(name).substitute(
                module=module, codec="encode", goes_on=goes_on, continued=continued
            )
    yield template("example_masked.py").substitute(module=module, codec="decode, encode")


def _dumped(node: ast.AST) -> str:
    return ast.dump(node)


_LAYER = keras.layers.Layer()
"""A program's weights must not hide what every layer has."""
