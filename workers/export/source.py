"""The text of an exported program: a module with the block and its model, an example, a README.

The module says, line for line, what a candidate computes in float32. The fixed parts are the files
in `templates/`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import fill, indent
from typing import Any

from primitives.graph.build import Graph
from primitives.graph.live import live_program
from primitives.language.dna import DNA, MIDDLE
from primitives.language.text import render
from primitives.lowering.expression import Assignment, Literal, Tuple
from primitives.lowering.render import lines
from primitives.programs.seeds import other_program
from workers.data.corpora import parts
from workers.export.asking import asking_calls, asking_parts, asks, moves_once
from workers.export.blocks import Asked, Block, blocks_of, cut_blocks
from workers.export.code import LINE, functions, imported, plain, template
from workers.export.generation import generation_parts, how_it_generates
from workers.export.layer import layer_source, notes, paragraph
from workers.export.positions import position_calls, position_parts
from workers.spec.objectives import OBJECTIVES
from workers.spec.positions import POSITIONS
from workers.spec.task import Task

__all__ = ["Names", "example_source", "metadata", "module_source", "names", "plain", "readme"]

_LONGEST_NAME = 60

Cut = Sequence[Graph] | None
"""What is left of each layer of a model that was cut."""

Facts = Mapping[str, str]
"""What a reader is told first, by its label."""


@dataclass(frozen=True, slots=True)
class Names:
    """What the exported module, its layer, and the tasks of its text are called."""

    module: str
    block: str
    tasks: tuple[str, ...] = ()

    @property
    def other(self) -> str:
        """The layer of blocks that do not run the program."""
        return "OtherBlock" if self.block != "OtherBlock" else "SecondBlock"


def names(title: str) -> Names:
    """'run-17' -> run_17_block, Run17Block. The ending keeps the module from hiding another one."""
    words = re.findall(r"[a-z0-9]+", title.lower()[:_LONGEST_NAME])
    words = ["block", *words] if not words or words[0][0].isdigit() else [*words, "block"]
    return Names("_".join(words), "".join(word.capitalize() for word in words))


def module_source(
    dna: DNA, graph: Graph, task: Task, vocabulary: int, called: Names, facts: Mapping[str, str],
    cut: Cut = None,
) -> str:  # fmt: skip
    """The Python module: kernels, layers, model, and the program's text in a comment. `vocabulary`
    counts the rows of the embedding; `cut` holds the graphs of the layers of a model that was
    cut."""
    blocks = _blocks(graph, task, called, cut)
    own = {function for block in blocks for function in block.body.row_functions}
    positions = task.model.positions
    of_tasks = any(block.by_task for block in blocks)
    calls = {name for block in blocks for name in block.calls} | position_calls(positions)
    calls |= asking_calls(blocks)
    calls |= {"ids_of", "tasks_of"} if of_tasks else set()
    sources = functions(calls, sorted(own, key=lambda function: function.__name__))
    needed = imported(sources)
    if any(weight.init == "causal" for block in blocks for weight in block.body.weights):
        sources.append(template("causal_taps.py").template)
    sources.append(template("dropout.py").template)
    tokens = any(block.uses("tokens") for block in blocks)
    passed = ", tokens=tokens" * tokens
    inputs = ", tokens: Tensor = None" * tokens + ", training: bool = False"
    shared = task.model.share_layers
    asked = Asked(asks(blocks), moves_once(blocks))
    layers = [layer_source(block, called.module, inputs, task, asked) for block in blocks]
    typing = ", ".join(sorted({"Any", *needed} - {"math"}))
    bpe = task.data.tokenizer == "bpe"
    around = position_parts(positions, of_tasks)
    return template("block.py").substitute(
        module=called.module,
        block=blocks[0].name,
        sizes="" if cut else "layers=6, d_model=256, sequence_length=512",
        title=fill(_title(called, task), LINE - 3),
        facts="\n".join(
            fill(f"{label}: {text}", LINE, subsequent_indent="    ")
            for label, text in facts.items()
        ),
        tokens=", tokens=tokens" * blocks[0].uses("tokens"),
        registered=_REGISTERED.get(len(blocks), "these"),
        imports="import functools\n" * bpe
        + "import math\n" * ("math" in needed)
        + "from pathlib import Path\n" * bpe
        + f"from typing import {typing}",
        definitions="\n\n\n".join(source.rstrip() for source in [*sources, *layers]),
        model=paragraph(" ".join(_about_model(graph.every, task, called, cut))),
        tasks=_tasks(called.tasks) if of_tasks else "",
        blocks=_cut_blocks(blocks, cut) if cut else _made_blocks(graph.every, called, shared),
        each=_each(shared),
        vocabulary=vocabulary,
        d_model=blocks[0].width or task.model.d_model,
        layers=task.model.layers,
        sequence_length=task.model.sequence_length,
        program=_programs(dna, task),
        **{name: around[name] for name in ("lengths", "made", "built", "bound")},
        **asking_parts(blocks, around["embedded"], passed),
        remember=_remember(passed, task, of_tasks),
        **generation_parts(graph, blocks, task),
    )


def by_task(graph: Graph, task: Task, called: Names, cut: Cut = None) -> bool:
    """Whether the module's model reads of its tokens which task their document belongs to."""
    return any(block.by_task for block in _blocks(graph, task, called, cut))


def example_source(called: Names, task: Task) -> str:
    """A script that loads the model, scores a text, continues it or fills it in, and trains a
    step."""
    continues, ends = OBJECTIVES[task.training.objective].continues, _ends(task)
    return template(OBJECTIVES[task.training.objective].example).substitute(
        module=called.module,
        codec="encode" if continues or not ends else "decode, encode",
        goes_on=f" {ends}," * bool(ends),
        continued=_CONTINUED if continues else "",
    )


def _ends(task: Task) -> str:
    """What the example script does with a text at last, if anything."""
    objective = OBJECTIVES[task.training.objective]
    return objective.example_ends or ("continues it" if objective.continues else "")


def readme(
    graph: Graph, task: Task, called: Names, card: Mapping[str, Any], facts: Facts, cut: Cut = None
) -> str:
    """What is in the folder, for people and, in its first lines, for the Hugging Face Hub."""
    bpe = task.data.tokenizer == "bpe"
    blocks = _blocks(graph, task, called, cut)
    said = [f"`{block.name}`: {note}" for block in blocks for note in notes(block, task)]
    if how := how_it_generates(graph, task):
        said.append(f"`generate`: {how}")
    continues = OBJECTIVES[task.training.objective].continues
    return template("README.md").substitute(
        metadata=metadata(task, called, card),
        module=called.module,
        block=blocks[0].name if cut else called.block,
        title=_title(called, task),
        facts="\n".join(f"- {label}: {text}" for label, text in facts.items()),
        tokenizer=_TOKENIZER_ROW if bpe else "",
        goes_on=f"{_ends(task)}, " if _ends(task) else "",
        use=_WRITE
        if continues
        else "logits = model(tokens)  # [batch, T] -> [batch, T, vocabulary]",
        extra=" tokenizers" if bpe else "",
        notes="".join(["\n"] * bool(said) + [f"{_bullet(note)}\n" for note in said]),
        versions=", ".join(f"{name} {version}" for name, version in card["versions"].items()),
    )


def metadata(task: Task, called: Names, card: Mapping[str, Any]) -> str:
    """The YAML with which the Hugging Face Hub files a model: its library, its task, its scores.
    Strings are written as JSON, which YAML reads."""
    writes = OBJECTIVES[task.training.objective].continues
    kind = "text-generation" if writes else "fill-mask"
    texts = parts(task.data).values()
    data = " and ".join(each.name if each.source == "tfds" else each.source for each in texts)
    found = card.get("exported", {}).get("test_bpb")
    about: dict[str, Any] = {"library_name": "keras", "tags": ["primevo", "keras", kind]}
    if writes or OBJECTIVES[task.training.objective].bidirectional:
        about["pipeline_tag"] = kind
    if found is not None and math.isfinite(found):
        result = {
            "task": {"type": kind},
            "dataset": {"type": plain(data), "name": plain(data), "split": "test"},
            "metrics": [{"type": "bits_per_byte", "name": "bits a byte", "value": round(found, 4)}],
        }
        about["model-index"] = [{"name": called.module, "results": [result]}]
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in about.items())


def _remember(passed: str, task: Task, by_task: bool) -> str:
    """The model's methods that remember contexts, where its objective has memories."""
    if not OBJECTIVES[task.training.objective].remembers:
        return ""
    return template("memory.py").substitute(
        passed=passed,
        embedded=position_parts(task.model.positions, by_task)["embedded"],
        after="ids_of(tokens[:, 1:])" if by_task else "tokens[:, 1:]",
    )


def _tasks(names: Sequence[str]) -> str:
    """The statement of the model that names tasks by their numbers."""
    told = Assignment("tasks", Tuple(tuple(map(Literal, names))))
    return "\n".join(["", *lines(told, 4, LINE), ""])


def _title(called: Names, task: Task) -> str:
    kind = OBJECTIVES[task.training.objective].block
    return f"{called.block}: {kind}, generated by Primevo from a program."


def _blocks(graph: Graph, task: Task, called: Names, cut: Cut) -> list[Block]:
    """The module's layers."""
    if cut:
        blocks = cut_blocks(graph, cut, task, called.block)
    else:
        blocks = blocks_of(graph, task, called.block, called.other)
    return [replace(block, tasks=called.tasks) for block in blocks]


def _about_model(every: int, task: Task, called: Names, cut: Cut) -> list[str]:
    """What the model's docstring says of its parts."""
    positions = POSITIONS[task.model.positions].about
    text = [f"Token embedding (also the output projection), {positions}, the block `layers` "
            "times with weights of its own, a final layer norm."]  # fmt: skip
    if task.model.share_layers:
        text = [text[0].replace("with weights of its own", "with the same weights")]
    if cut:
        text = [f"Token embedding (also the output projection), {positions}, blocks that were "
                "cut to sizes of their own, a final layer norm. Width and depth are "
                "fixed."]  # fmt: skip
    elif every != 1:
        which = "the middle one is" if every == MIDDLE else f"of each {every} the last is"
        text = [f"Token embedding (also the output projection), {positions}, `layers` blocks,"
                f" a final layer norm. Of the blocks {which} a {called.block}, the others are each "
                f"an {called.other}."]  # fmt: skip
        if task.model.share_layers:
            text.append("Those of one class have the same weights.")
    if about := OBJECTIVES[task.training.objective].about_model:
        text.append(about)
    text.append("`dropout` is the share of values that training drops of the embeddings, and of "
                "what each block changes.")  # fmt: skip
    return [*text, "The other defaults are the sizes that it was trained with."]


def _each(shared: bool) -> str:
    """The blocks that have weights, as Python."""
    return "dict.fromkeys(self.blocks)" if shared else "self.blocks"


def _made_blocks(every: int, called: Names, shared: bool) -> str:
    """The statements that make the model's blocks, which may be `shared`: one of each class."""
    made = '(dropout, name=f"block_{i}", dtype=policy)'
    if shared:
        return _shared_blocks(every, called)
    if every == 1:
        return _listed("self.blocks", f"{called.block}{made}", "for i in range(layers)")
    kind = f"{called.block} if {_own(every)} else {called.other}"
    kinds = _listed("kinds", kind, "for i in range(layers)")
    return f"{kinds}\n{_listed('self.blocks', f'kind{made}', 'for i, kind in enumerate(kinds)')}"


def _shared_blocks(every: int, called: Names) -> str:
    """The statements that make one block of each class."""
    made = '(dropout, name="block", dtype=policy)'
    if every == 1:
        return f"        self.blocks = [{called.block}{made}] * layers"
    other = '(dropout, name="other", dtype=policy)'
    lines = [
        f"        block = {called.block}{made}",
        f"        other = {called.other}{other}",
        _listed("self.blocks", f"block if {_own(every)} else other", "for i in range(layers)"),
    ]
    return "\n".join(lines)


def _own(every: int) -> str:
    """Whether block i runs the program, as Python."""
    return "i == layers // 2" if every == MIDDLE else f"i % {every} == {every - 1}"


def _cut_blocks(blocks: Sequence[Block], cut: Sequence[Graph]) -> str:
    """The statements that make the blocks of a model that was cut."""
    names = {block.graph.hash: block.name for block in blocks}
    lines = [f"            {names[each.hash]}," for each in cut]
    test = f"        if layers != len(kinds) or d_model != {blocks[0].width}:"
    error = '            raise ValueError("width and depth of a model that was cut are fixed")'
    made = _listed(
        "self.blocks",
        'kind(dropout, name=f"block_{i}", dtype=policy)',
        "for i, kind in enumerate(kinds)",
    )
    return "\n".join(["        kinds = [", *lines, "        ]", test, error, made])


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
    """The live program as comment lines, and that of the other blocks."""
    text = _comment(render(live_program(dna)))
    if dna.every != 1:
        model = task.model
        other = _comment(render(other_program(model.other, model.d_model)))
        text += f"\n\n# The program of the other blocks.\n#\n{other}"
    return text


def _bullet(text: str) -> str:
    return fill(f"- {text}", LINE, subsequent_indent="  ", break_on_hyphens=False)


def _comment(program: str) -> str:
    """The program as comment lines; one that cannot be shorter says so to linters."""
    lines = indent(program.rstrip(), "# ", lambda line: True).splitlines()
    return "\n".join(
        line.rstrip() if len(line) <= LINE else f"{line}  # noqa: E501" for line in lines
    )


_REGISTERED = {1: "both", 2: "all three"}
"""How many classes a module registers, in words: its layers and the model."""

_WRITE = """\
print(model.generate("The old house", 50, temperature=0.8, top_p=0.95, sliding=True))"""

_CONTINUED = """\
text = model.generate(TEXT[: length // 2], 40, temperature=0.8, top_p=0.95, sliding=True)
print(f"continued: {text!r}")

"""

_TOKENIZER_ROW = "| `tokenizer.json` | text to tokens, for the package `tokenizers` |\n"
