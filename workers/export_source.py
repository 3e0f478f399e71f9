"""The text of an exported program: a module with the block and its model, an example, a README.

The module says what a candidate trained with, line for line, but for any width: sizes that follow
the width are written in terms of d_model. The fixed parts are the files in `templates/`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.resources import files
from string import Template
from textwrap import fill, indent

from primitives.dna import DNA, MIDDLE
from primitives.emit import Body, WeightSpec, emit, weight_specs
from primitives.graph import Graph
from primitives.rewrite import lowered
from primitives.table import PRIMITIVES
from primitives.text import render
from primitives.types import CHANNELS, ENTRIES, KEYS, UNITS_PER_WIDTH, StateType, buffer
from workers.export_code import LINE, functions, imported, without_unread, wrapped
from workers.programs import other_graph, other_program, setting
from workers.task import Task

_LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class Names:
    """What the exported module and its layer are called."""

    module: str
    block: str

    @property
    def other(self) -> str:
        """The layer of blocks that do not run the program."""
        return "OtherBlock" if self.block != "OtherBlock" else "SecondBlock"


def names(title: str) -> Names:
    """'run-17' -> run_17_block, Run17Block. The ending keeps the module from hiding another one."""
    words = re.findall(r"[a-z0-9]+", title.lower()[:_LONGEST_NAME])
    words = ["block", *words] if not words or words[0][0].isdigit() else [*words, "block"]
    return Names("_".join(words), "".join(word.capitalize() for word in words))


@dataclass(frozen=True, slots=True)
class _Block:
    """One of the module's layers; `source` is its lines and all that they call."""

    name: str
    graph: Graph
    body: Body
    source: str

    @property
    def calls(self) -> tuple[str, ...]:
        return (*self.body.kernels, *["Run"] * self.body.runs)

    def uses(self, what: str) -> bool:
        """Whether a pass reads or leaves this attribute of `balancing.Run`."""
        return f"run.{what}" in self.source

    @property
    def states(self) -> list[WeightSpec]:
        """Weights that training moves without a gradient."""
        return [w for w in self.body.weights if not w.trainable and w.init == "zeros"]


def blocks_of(graph: Graph, task: Task, called: Names) -> list[_Block]:
    """The program's layer, and that of the blocks that do not run it, if there are any."""
    graphs = {called.block: graph}
    if graph.every != 1:
        graphs[called.other] = other_graph(task.model.other)
    blocks = []
    for name, each in graphs.items():
        body = emit(each, task.model.d_model, weight="self.{}", setting=setting(task))
        source = "\n".join([*body.lines, *functions(body.kernels)])
        blocks.append(_Block(name, each, body, source))
    return blocks


def module_source(
    dna: DNA, graph: Graph, task: Task, vocabulary: int, called: Names, facts: Mapping[str, str]
) -> str:
    """The Python module: kernels, layers, model, and the program's text in a comment. `vocabulary`
    counts the rows of the embedding."""
    blocks = blocks_of(graph, task, called)
    sources = functions(name for block in blocks for name in block.calls)
    needed = imported(sources)
    if any(weight.init == "causal" for block in blocks for weight in block.body.weights):
        sources.append(_CAUSAL)
    runs, tokens = (any(block.uses(what) for block in blocks) for what in ("training", "tokens"))
    inputs = ", training: bool = False" * runs
    passed = ", tokens=tokens" * tokens + ", training=training" * runs
    layers = [_layer(block, called.module, ", tokens: Tensor = None" * tokens + inputs, task)
              for block in blocks]  # fmt: skip
    typing = ", ".join(sorted({"Any", *needed} - {"math"}))
    return _template("block.py").substitute(
        module=called.module,
        block=called.block,
        title=fill(_title(called, task), LINE - 3),
        facts="\n".join(
            fill(f"{label}: {text}", LINE, subsequent_indent="    ")
            for label, text in facts.items()
        ),
        tokens=", tokens=tokens" * blocks[0].uses("tokens"),
        registered="both" if len(blocks) == 1 else "all three",
        imports="import math\n" * ("math" in needed) + f"from typing import {typing}",
        definitions="\n\n\n".join(source.rstrip() for source in [*sources, *layers]),
        model=_paragraph(" ".join(_about_model(graph.every, task, called))),
        blocks=_made_blocks(graph.every, called),
        inputs=inputs,
        passed=passed,
        vocabulary=vocabulary,
        d_model=task.model.d_model,
        layers=task.model.layers,
        sequence_length=task.model.sequence_length,
        program=_programs(dna, task),
    )


def example_source(called: Names, task: Task) -> str:
    """A script that loads the model, scores a text, continues it or fills it in, and trains a
    step."""
    bpe = task.data.tokenizer == "bpe"
    masked = task.training.objective == "masked"
    return _template("example_masked.py" if masked else "example.py").substitute(
        module=called.module,
        imports="from tokenizers import Tokenizer\n" if bpe else "",
        codec=_BPE if bpe else _BYTES,
    )


def readme(
    graph: Graph, task: Task, called: Names, facts: Mapping[str, str], versions: Mapping[str, str]
) -> str:
    """What is in the folder, for people."""
    bpe = task.data.tokenizer == "bpe"
    notes = [
        f"`{b.name}`: {note}" for b in blocks_of(graph, task, called) for note in _notes(b, task)
    ]
    return _template("README.md").substitute(
        module=called.module,
        block=called.block,
        title=_title(called, task),
        facts="\n".join(f"- {label}: {text}" for label, text in facts.items()),
        tokenizer=_TOKENIZER_ROW if bpe else "",
        goes_on="fills it in" if task.training.objective == "masked" else "continues it",
        extra=" tokenizers" if bpe else "",
        notes="".join(["\n"] * bool(notes) + [f"{_bullet(note)}\n" for note in notes]),
        **versions,
    )


def plain(text: str) -> str:
    """Text in one line that means nothing special in a docstring or in Markdown."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(re.sub(r'[\\"`|<>]', "'", printable).split())


def _title(called: Names, task: Task) -> str:
    kind = "a causal decoder block"
    if task.training.objective == "masked":
        kind = "a block for masked language models"
    return f"{called.block}: {kind}, generated by Primevo from a program."


@cache
def _template(name: str) -> Template:
    return Template((files("workers") / "templates" / f"{name}.txt").read_text(encoding="utf-8"))


def _layer(block: _Block, module: str, inputs: str, task: Task) -> str:
    """The source of one layer class."""
    body, graph = block.body, block.graph
    weights = list(zip(*(weight_specs(graph, width) for width in (8, 16)), strict=True))
    lines = [line for narrow, wide in weights for line in _weight(narrow, wide)]
    if block.uses("seed"):
        lines.append("        self.seeds = keras.random.SeedGenerator()")
    nodes = lowered(graph)
    made = [nodes[positions[0]].type for positions in body.made]
    code = _body(without_unread(body.lines, body.result), made)
    if body.runs:
        given = {"training": "training", "tokens": "tokens", "seed": "self.seeds"}
        read = ", ".join(f"{name}={it}" for name, it in given.items() if block.uses(name))
        code.insert(0, f"        run = Run({read})")
    if block.uses("losses"):
        code += ["        for loss in run.losses:", "            self.add_loss(loss)"]
    if block.uses("updates"):
        code += ["        for name, value in run.updates.items():",
                 "            getattr(self, name).assign(value)"]  # fmt: skip
    paragraphs = [" ".join(_about(block, task)), " ".join(_notes(block, task))]
    return _template("layer.py").substitute(
        module=module,
        block=block.name,
        about="\n\n".join(_paragraph(text) for text in paragraphs if text),
        weights="".join(f"\n{line}" for line in lines),
        inputs=inputs,
        body="\n".join(code),
        result=body.result,
    )


def _about(block: _Block, task: Task) -> list[str]:
    """What a layer's docstring says of positions and of the comments."""
    text = []
    if task.training.objective == "next_token":
        text.append("Position t of the output depends on positions up to t of the input alone.")
    heads = "and for several heads an axis of that size in front."
    axes = [n for node in lowered(block.graph) for n in node.type.branches]
    if min(axes, default=1) < 0:
        heads = (
            "for several heads or experts an axis of that size in front. Experts work on slots, "
            "which hold the tokens that were sent to them."
        )
    text.append("Comments give the shapes of hidden states without the batch axis: T positions, "
                f"S key positions, {heads}")  # fmt: skip
    if any(node.type.axis == ENTRIES for node in lowered(block.graph)):
        text.append("`k of n` are the k entries of a sparse state over n, values and indices.")
    return text


def _notes(block: _Block, task: Task) -> list[str]:
    """What who uses or trains a layer that routes must know."""
    notes = []
    if block.uses("tokens"):
        notes.append("It routes by token ids: call it with tokens=[batch, T].")
    if any(note.startswith("in training") for note in _training(block.graph)):
        notes.append("In training a choice depends on the whole batch, later tokens included.")
    if "to_buffers" in block.body.kernels:
        factor = task.training.capacity_factor
        notes.append(f"In training an expert has room for {factor:g} times its even share of a "
                     "sequence; what comes when it is full is dropped.")  # fmt: skip
    if block.uses("seed"):
        notes.append("Training draws random numbers.")
    if block.uses("losses"):
        notes.append("Training adds auxiliary losses by `add_loss`.")
    if block.states:
        names = ", ".join(f"`{state.name}`" for state in block.states)
        notes.append(f"Training moves its states, which no gradient reaches: {names}.")
    if block.uses("policies"):
        notes.append("In the search its choices were rewarded token by token (REINFORCE), which "
                     "takes a trainer that knows of it: `fit` leaves that out.")  # fmt: skip
    return notes


def _training(graph: Graph) -> list[str]:
    return [PRIMITIVES[op].training for op in graph.ops if op in PRIMITIVES]


def _about_model(every: int, task: Task, called: Names) -> list[str]:
    """What the model's docstring says of its parts."""
    text = ["Token embedding (also the output projection), learned positions, the block `layers` "
            "times with weights of its own, a final layer norm."]  # fmt: skip
    if every != 1:
        which = "the middle one is" if every == MIDDLE else f"of each {every} the last is"
        text = [f"Token embedding (also the output projection), learned positions, `layers` blocks,"
                f" a final layer norm. Of the blocks {which} a {called.block}, the others are each "
                f"an {called.other}."]  # fmt: skip
    if task.training.objective == "masked":
        text.append("The last token of the vocabulary hides one that is to be filled in.")
    return [*text, "The defaults are the sizes that it was trained with."]


def _made_blocks(every: int, called: Names) -> str:
    """The statements that make the model's blocks."""
    made = '(name=f"block_{i}", dtype=policy)'
    if every == 1:
        return _listed("self.blocks", f"{called.block}{made}", "for i in range(layers)")
    own = "i == layers // 2" if every == MIDDLE else f"i % {every} == {every - 1}"
    kind = f"{called.block} if {own} else {called.other}"
    kinds = _listed("kinds", kind, "for i in range(layers)")
    return f"{kinds}\n{_listed('self.blocks', f'kind{made}', 'for i, kind in enumerate(kinds)')}"


def _listed(target: str, item: str, loop: str) -> str:
    """A list made in a loop, assigned, in lines of LINE characters."""
    line = f"        {target} = [{item} {loop}]"
    if len(line) <= LINE:
        return line
    inner = f"            {item} {loop}"
    if len(inner) > LINE:
        inner = f"            {item}\n            {loop}"
    return f"        {target} = [\n{inner}\n        ]"


def _programs(dna: DNA, task: Task) -> str:
    """The program as comment lines, and that of the other blocks."""
    text = _comment(render(dna))
    if dna.every != 1:
        other = _comment(render(other_program(task.model.other)))
        text += f"\n\n# The program of the other blocks.\n#\n{other}"
    return text


def _paragraph(text: str) -> str:
    return fill(text, LINE, initial_indent="    ", subsequent_indent="    ")


def _bullet(text: str) -> str:
    return fill(f"- {text}", LINE, subsequent_indent="  ", break_on_hyphens=False)


def _weight(narrow: WeightSpec, wide: WeightSpec) -> list[str]:
    """`self.NAME = self.add_weight(...)`, from the weight at d_model 8 and 16."""
    shape = [_size(*sizes) for sizes in zip(narrow.shape, wide.shape, strict=True)]
    initializer = f'"{narrow.init}"'
    if narrow.init == "causal":
        initializer = "causal_taps"
    elif narrow.init == "fan_in":
        fan_in = _size(narrow.fan_in, wide.fan_in)
        deviation = f"({fan_in}) ** -0.5" if " " in fan_in else f"{fan_in}**-0.5"
        initializer = f"keras.initializers.RandomNormal(stddev={deviation})"
        if narrow.fan_in == wide.fan_in == 1:
            initializer = "keras.initializers.RandomNormal(stddev=1.0)"
    axes = ", ".join(shape) + ("," if len(shape) == 1 else "")
    more = "" if narrow.trainable else ", trainable=False"
    if more and narrow.init == "zeros":  # a state: small steps need its precision
        more += ", autocast=False"
    return wrapped(
        f"self.{narrow.name} = self.add_weight("
        f'name="{narrow.name}", shape=({axes}), initializer={initializer}{more})',
        8,
    )


def _size(narrow: int, wide: int) -> str:
    """A size in terms of d_model, from its values at d_model 8 and 16."""
    return str(narrow) if narrow == wide else _widths(Fraction(narrow, 8))


def _widths(share: Fraction) -> str:
    times = "" if share.numerator == 1 else f"{share.numerator} * "
    over = "" if share.denominator == 1 else f" // {share.denominator}"
    return f"{times}d_model{over}"


def _body(lines: Sequence[str], made: Sequence[StateType]) -> list[str]:
    """The lines of `call`, each with the shape it makes where that is not the shape before."""
    result: list[str] = []
    before = ""
    for line, state in zip(lines, made, strict=True):
        broken = wrapped(line, 8)
        shape = _shape(state)
        commented = f"{broken[-1]}  # {shape}"
        if shape != before and len(commented) <= LINE:
            broken[-1], before = commented, shape
        result += broken
    return result


def _shape(state: StateType) -> str:
    feature = str(state.size)
    if state.axis == CHANNELS:
        feature = _widths(Fraction(state.size, UNITS_PER_WIDTH))
    elif state.axis == KEYS:
        feature = "S"
    elif state.axis == ENTRIES:
        feature = f"{state.size} of {state.domain}"
    branches = [str(n) if n > 0 else f"{-n} experts" for n in state.branches]
    positions = "slots" if buffer(state.branches) else "T"
    return f"[{', '.join([*branches, positions, feature])}]"


def _comment(program: str) -> str:
    """The program as comment lines; one that cannot be shorter says so to linters."""
    lines = indent(program.rstrip(), "# ", lambda line: True).splitlines()
    return "\n".join(
        line.rstrip() if len(line) <= LINE else f"{line}  # noqa: E501" for line in lines
    )


_CAUSAL = '''\
def causal_taps(shape: tuple[int, ...], dtype: Any = None) -> Tensor:
    """Kernels [..., taps, channels] that start at 1/2 for the current position, the last tap, and
    at 1/(2 taps) for each one before it."""
    taps = shape[-2]
    current = ops.arange(taps)[:, None] == taps - 1
    return ops.cast(ops.broadcast_to(ops.where(current, 0.5, 0.5 / taps), shape), dtype)
'''

_BYTES = '''
def encode(text: str) -> np.ndarray:
    """Tokens are bytes."""
    return np.frombuffer(text.encode(), np.uint8).astype("int32")


def decode(tokens: np.ndarray) -> str:
    return bytes(tokens.tolist()).decode(errors="replace")
'''

_BPE = """\
TOKENIZER = Tokenizer.from_file(str(HERE / "tokenizer.json"))


def encode(text: str) -> np.ndarray:
    return np.array(TOKENIZER.encode(text).ids, "int32")


def decode(tokens: np.ndarray) -> str:
    return TOKENIZER.decode(tokens.tolist())
"""

_TOKENIZER_ROW = "| `tokenizer.json` | text to tokens, for the package `tokenizers` |\n"
