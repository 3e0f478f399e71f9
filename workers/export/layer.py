"""The text of one exported layer: its weights, the lines that a candidate runs in float32, and what
its users must know.

Sizes that follow the width are written in terms of d_model, so that the layer serves any.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from textwrap import fill

from primitives.graph.build import Graph, Node
from primitives.kernels.tasks import SPAN
from primitives.lowering.emit import Body
from primitives.lowering.expression import (
    Assignment,
    Expression,
    Literal,
    Name,
    Operation,
    Tuple,
    call,
    mentioned,
)
from primitives.lowering.render import lines, source
from primitives.lowering.stepwise import Kept, Step
from primitives.lowering.weights import WeightSpec, weight_specs
from primitives.ops.state import CHANNELS, ENTRIES, KEYS, UNITS_PER_WIDTH, StateType, buffer
from primitives.ops.table import PRIMITIVES
from workers.export.blocks import Asked, Block
from workers.export.code import LINE, plain, template
from workers.spec.objectives import OBJECTIVES
from workers.spec.task import Task


def layer_source(block: Block, module: str, inputs: str, task: Task, asked: Asked) -> str:
    """The source of one layer class."""
    body, graph = block.body, block.graph
    weights = list(zip(*(weight_specs(graph, width) for width in (8, 16)), strict=True))
    made = [text for pair in weights for text in lines(_weight(*pair), INDENT, LINE)]
    if block.uses("seed"):
        made.append("        self.seeds = keras.random.SeedGenerator()")
    code = _body(body, block.nodes)
    if body.runs:
        given = {"training": "training", "tokens": "tokens", "seed": "self.seeds"}
        read = ", ".join(f"{name}={it}" for name, it in given.items() if block.uses(name))
        code.insert(0, f"        run = Run({read})")
    code += _left(block, asked)
    paragraphs = [" ".join(_about(block, task)), " ".join(notes(block, task))]
    remembers = OBJECTIVES[task.training.objective].remembers
    return template("layer.py").substitute(
        module=module,
        block=block.name,
        **_widths_of(block),
        about="\n\n".join(paragraph(text) for text in paragraphs if text),
        weights="".join(f"\n{each}" for each in made),
        call=_signature(
            inputs
            + _TAKES * (block.step is not None)
            + _REMEMBER * remembers
            + _MOVES * asked.moves
            + _ASK * asked.trainer,
            "Any" if block.step or remembers or asked.trainer else "Tensor",
        ),
        cached=_CACHED.format(", tokens" * ("tokens" in inputs)) if block.step else "",
        body="\n".join(code),
        result=_REMEMBERED.format(_DROPPED, body.memory) if remembers else _DROPPED,
        step="" if block.step is None else step_source(block.step, block.nodes, inputs),
    )


def _left(block: Block, asked: Asked) -> list[str]:
    """The statements that end a layer's call: they pass on what the pass has left in `run`."""
    body, code = block.body, list[str]()
    if block.uses("losses"):
        code += ["        for loss in run.losses:", "            self.add_loss(loss)"]
    if block.uses("baselines"):
        code += ["        for loss in foreseen_losses(run):", "            self.add_loss(loss)"]
    if block.uses("updates"):
        moving = ["        for name, value in run.updates.items():",
                  "            getattr(self, name).assign(value)"]  # fmt: skip
        if asked.moves:
            moving = ["        if moves:", *(f"    {each}" for each in moving)]
        code += moving
    code += lines(_dropped(body.result), INDENT, LINE)
    if asked.trainer:
        both = "run.policies, run.baselines" if body.runs else "(), ()"
        code += ["        if ask:", f"            return {_DROPPED}, {both}"]
    return code


def _signature(inputs: str, gives: str) -> str:
    """The first line of a layer's `call`, or several where it is too long, as ruff breaks it."""
    line = f"    def call(self, x: Tensor{inputs}) -> {gives}:"
    if len(line) <= LINE:
        return line
    inner = f"{' ' * INDENT}self, x: Tensor{inputs}"
    if len(inner) > LINE:
        inner = inner.replace(", ", f",\n{' ' * INDENT}") + ","
    return f"    def call(\n{inner}\n    ) -> {gives}:"


def _dropped(result: str) -> Assignment:
    """The statement that drops, in training, some of what the block changes of its input."""
    what = call("self.dropout", Name(result), Name("x"), training=Name("training"))
    return Assignment(_DROPPED, what)


def _widths_of(block: Block) -> dict[str, str]:
    """Which d_model a layer takes, as its docstring and its check say it."""
    if block.width is None:
        any_width = "any d_model that 8 divides"
        return {"widths": any_width, "unfit": " is None or d_model % 8", "fit": "a multiple of 8"}
    only = str(block.width)
    return {"widths": f"a d_model of {only}", "unfit": f" != {only}", "fit": only}


def _about(block: Block, task: Task) -> list[str]:
    """What a layer's docstring says of positions and of the comments."""
    text = []
    if OBJECTIVES[task.training.objective].remembers:
        text.append("With `remember` it gives the state [T, d_model] by which contexts are "
                    "remembered, too.")  # fmt: skip
    if not OBJECTIVES[task.training.objective].bidirectional:
        text.append("Position t of the output depends on positions up to t of the input alone.")
    heads = "and for several heads an axis of that size in front."
    axes = [n for node in block.nodes for n in node.type.branches]
    if min(axes, default=1) < 0:
        heads = (
            "for several heads or experts an axis of that size in front. Experts work on slots, "
            "which hold the tokens that were sent to them."
        )
    text.append("Comments give the shapes of hidden states without the batch axis: T positions, "
                f"S key positions, {heads}")  # fmt: skip
    if any(node.type.axis == ENTRIES for node in block.nodes):
        text.append("`k of n` are the k entries of a sparse state over n, values and indices.")
    return text


def notes(block: Block, task: Task) -> list[str]:
    """What users and trainers of a layer that routes must know."""
    found = []
    if block.by_task:
        found.append("It routes by the task that a token's document belongs to: call it with "
                     f"tokens=[batch, T], ids plus {SPAN:,} times the number of the task"
                     f"{_numbered(block.tasks)}.")  # fmt: skip
    elif block.uses("tokens"):
        found.append("It routes by token ids: call it with tokens=[batch, T].")
    if any(note.startswith("in training") for note in _training(block.graph)):
        found.append("In training a choice depends on the whole batch, later tokens included.")
    if "to_buffers" in block.body.mentioned.functions:
        factor = task.training.capacity_factor
        found.append(f"In training an expert has room for {factor:g} times its even share of a "
                     "sequence; what comes when it is full is dropped.")  # fmt: skip
    if block.uses("seed"):
        found.append("Training draws random numbers.")
    if block.uses("losses"):
        found.append("Training adds auxiliary losses by `add_loss`.")
    if block.states:
        names = ", ".join(f"`{state.name}`" for state in block.states)
        found.append(f"Training moves its states, which no gradient reaches: {names}.")
    if any(weight.init == "table" for weight in block.body.weights):
        found.append("Weights named `..._places` say which experts are left; they come with the "
                     "trained weights, and are not to be trained.")  # fmt: skip
    if block.uses("policies") or block.uses("baselines"):
        ops = " and ".join(sorted({"REINFORCE", "BASELINE"} & block.graph.ops, reverse=True))
        found.append(f"Its choices are rewarded token by token ({ops}), which takes a trainer that "
                     "knows the tokens' losses: `LanguageModel.fit` does it. With `ask` a call "
                     "gives what another trainer has to reward, too.")  # fmt: skip
    if "CONSISTENCY" in block.graph.ops:
        found.append("In training each batch passes twice, and the predictions are to agree "
                     "(CONSISTENCY): `LanguageModel.fit` does it, other trainers pass "
                     "once.")  # fmt: skip
    if "JOINT_SPARSITY_LOSS" in block.graph.ops:
        found.append("In the search all layers steered one weight of their sparsity loss; by `fit` "
                     "each layer steers its own.")  # fmt: skip
    return found


def _numbered(names: Sequence[str]) -> str:
    """The numbers of the tasks of these names."""
    told = ", ".join(f"{number} is {plain(name)}" for number, name in enumerate(names))
    return f" ({told})" if told else ""


def _training(graph: Graph) -> list[str]:
    return [PRIMITIVES[op].training for op in graph.ops if op in PRIMITIVES]


def paragraph(text: str) -> str:
    return fill(text, LINE, initial_indent="    ", subsequent_indent="    ")


INDENT = 8
"""Spaces before the statements of a method."""


def _weight(at_8: WeightSpec, at_16: WeightSpec) -> Assignment:
    """`self.NAME = self.add_weight(...)`, from the weight at a d_model of 8 and of 16."""
    shape = tuple(_size(*sizes) for sizes in zip(at_8.shape, at_16.shape, strict=True))
    more: dict[str, object] = {} if at_8.trainable else {"trainable": False}
    if more and at_8.init in ("zeros", "table"):  # small steps, and numbers, need its precision
        more["autocast"] = False
    start = _initializer(at_8, at_16)
    made = call("self.add_weight", name=at_8.name, shape=Tuple(shape), initializer=start, **more)
    return Assignment(f"self.{at_8.name}", made)


def _initializer(at_8: WeightSpec, at_16: WeightSpec) -> Expression:
    if at_8.init == "causal":
        return Name("causal_taps")
    if at_8.init != "fan_in":
        return Literal("zeros" if at_8.init == "table" else at_8.init)
    deviation: Expression = Literal(1.0)
    if not at_8.fan_in == at_16.fan_in == 1:
        deviation = Operation("**", _size(at_8.fan_in, at_16.fan_in), Literal(-0.5))
    return call("keras.initializers.RandomNormal", stddev=deviation)


def _size(at_8: int, at_16: int) -> Expression:
    """A size in terms of d_model, from its values at a d_model of 8 and of 16."""
    return Literal(at_8) if at_8 == at_16 else _widths(Fraction(at_8, 8))


def _widths(share: Fraction) -> Expression:
    """So many times d_model: `3 * d_model // 8` for 3/8."""
    made: Expression = Name("d_model")
    if share.numerator != 1:
        made = Operation("*", Literal(share.numerator), made)
    return made if share.denominator == 1 else Operation("//", made, Literal(share.denominator))


def step_source(step: Step, nodes: Sequence[Node], inputs: str) -> str:
    """The source of a layer's methods for a few new positions, and for what is kept of others."""
    made = Assignment("kept", Tuple(tuple(_empty(kept) for kept in step.kept)))
    empty = lines(made, INDENT, LINE)
    if any("d_model" in line for line in empty):
        empty.insert(0, f"{' ' * INDENT}d_model = self.d_model")
    kept = Assignment("kept", Tuple(tuple(each.value for each in step.kept)))
    code = [*_body(step.body, nodes, (kept,)), *lines(kept, INDENT, LINE)]
    tokens = "tokens" in inputs
    if step.body.runs:
        code.insert(0, f"{' ' * INDENT}run = Run({'tokens=tokens' * tokens})")
    return template("layer_step.py").substitute(
        empty="\n".join([*empty, f"{' ' * INDENT}return kept"]),
        inputs=", tokens: Tensor = None" * tokens,
        body="\n".join(code),
        result=step.body.result,
    )


_TAKES = ", cache: Any = None, start: Tensor = 0"

_REMEMBER = ", remember: bool = False"

_MOVES = ", moves: bool = True"

_ASK = ", ask: bool = False"

_DROPPED = "dropped"
"""The variable that holds the block's result at last."""

_REMEMBERED = "({0}, {1}) if remember else {0}"

_CACHED = """\
        if cache is not None:
            return self.step(x, cache, start{})
"""


def _empty(kept: Kept) -> Expression:
    """`ops.zeros((batch, 8, length, d_model // 8), self.compute_dtype)`."""
    state, dtype = kept.type, Name("self.compute_dtype")
    feature: Expression = Literal(state.size)
    if state.axis == CHANNELS:
        feature = _widths(Fraction(state.size, UNITS_PER_WIDTH))
    elif state.axis == KEYS:
        feature = Name("length")
    rows = Name("length") if kept.rows is None else Literal(kept.rows)
    shape = Tuple((Name("batch"), *map(Literal, state.branches), rows, feature))
    if kept.start in (0.0, 1.0):
        return call("ops.ones" if kept.start else "ops.zeros", shape, dtype)
    return call("ops.full", shape, kept.start, dtype)


def _body(body: Body, nodes: Sequence[Node], more: Sequence[Assignment] = ()) -> list[str]:
    """The lines of a body, each with the shape that it gives where that is not the shape before;
    `more` are statements that follow them."""
    result: list[str] = []
    before = ""
    for statement in _without_unread(body, more):
        broken = lines(statement, INDENT, LINE)
        if not statement.nodes:
            result += broken
            continue
        shape = _shape(nodes[statement.nodes[0]].type)
        commented = f"{broken[-1]}  # {shape}"
        if shape != before and len(commented) <= LINE:
            broken[-1], before = commented, shape
        result += broken
    return result


def _without_unread(body: Body, more: Sequence[Assignment]) -> list[Assignment]:
    """The statements, with _ for each of several targets that no later statement reads."""
    kept: list[Assignment] = []
    read = {body.result, *mentioned(*(each.value for each in more)).variables}
    for statement in reversed(body.statements):
        kept.append(statement.without(frozenset(statement.names) - read))
        read |= mentioned(statement.value).variables
    return kept[::-1]


def _shape(state: StateType) -> str:
    feature = str(state.size)
    if state.axis == CHANNELS:
        feature = source(_widths(Fraction(state.size, UNITS_PER_WIDTH)))
    elif state.axis == KEYS:
        feature = "S"
    elif state.axis == ENTRIES:
        feature = f"{state.size} of {state.domain}"
    branches = [str(n) if n > 0 else f"{-n} experts" for n in state.branches]
    positions = "slots" if buffer(state.branches) else "T"
    return f"[{', '.join([*branches, positions, feature])}]"
