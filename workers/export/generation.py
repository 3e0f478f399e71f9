"""The part of an exported module that writes text: the model's `generate`, the code of a step
around the blocks', and the loop that Keras compiles.

A model whose blocks can be run a few positions at a time keeps what later positions need of earlier
ones. Any other passes over the whole text for each new token, and says why.
"""

from __future__ import annotations

from textwrap import fill

from primitives.graph.build import Graph
from workers.export.blocks import Block, why_not_stepwise
from workers.export.code import LINE, plain, template
from workers.export.positions import longer_texts, step_embedded
from workers.spec.objectives import OBJECTIVES
from workers.spec.positions import POSITIONS, Kind
from workers.spec.task import Task

_READ_AT_ONCE = 1 << 24
"""Copies of expert weights that may exist at once while a prompt is read: 64 MiB."""


def generation_parts(graph: Graph, blocks: list[Block], task: Task) -> dict[str, str]:
    """What the holes of the module's template that deal with generating text are filled with."""
    codec = template("bpe" if task.data.tokenizer == "bpe" else "bytes").template
    if not OBJECTIVES[task.training.objective].continues:
        empty = dict.fromkeys(("writes", "write", "step", "generate", "writer"), "")
        return {**empty, "codec": codec}
    tokens = any(block.uses("tokens") for block in blocks)
    by_task = any(block.by_task for block in blocks)
    steps = [block.step for block in blocks if block.step is not None]
    positions = task.model.positions
    step = ""
    if steps:
        step = template("step.py").substitute(
            tokens=", tokens=tokens" * tokens, embedded=step_embedded(positions, by_task)
        )
    copied = max((step.copied for step in steps), default=0)
    return {
        "codec": codec,
        "writes": _WRITES,
        "write": "        self.passes = None  # what `generate` runs\n",
        "step": step,
        "generate": _generate(
            why_not_stepwise(graph, task), copied, task.model.sequence_length, positions, by_task
        ),
        "writer": template("writer.py").template,
    }


def how_it_generates(graph: Graph, task: Task) -> str:
    """How the exported model computes the next token, in a sentence; empty where it writes none."""
    if not OBJECTIVES[task.training.objective].continues:
        return ""
    if reason := why_not_stepwise(graph, task):
        return _SLOW.format(plain(reason))
    return "Each new token costs a pass over itself alone: what it needs of earlier ones is kept."


def _generate(reason: str, copied: int, length: int, positions: Kind, by_task: bool) -> str:
    """The methods that write text; `reason` says why no step can be taken alone, `copied` how many
    weights each of `length` positions copies, `by_task` whether a text's task is to be known."""
    told = {**longer_texts(positions), **(_BY_TASK if by_task else _OF_ANY_TASK)}
    option, passed = ("\n        task: int | str = 0,", ', "task": task') if by_task else ("", "")
    if reason:
        how = _SLOW.format(plain(reason))
        return template("generate.py").substitute(
            **told,
            how=_paragraph(how), use_cache=option, option=passed, passed_on="", take_cache="",
            prefill="", read="", logits=_WHOLE,
            compiled="(Compiled(self, self.write).predict_on_batch,)",
            cache_in="", any="", cache="", kept="",
        )  # fmt: skip
    most = max(1, _READ_AT_ONCE // max(copied, 1))
    in_parts = most < length or bool(copied and not POSITIONS[positions].bounded)
    return template("generate.py").substitute(
        **told,
        how=_paragraph(_CACHED),
        use_cache=f"\n        use_cache: bool = True,{option}",
        option=f', "use_cache": use_cache{passed}',
        passed_on=", use_cache",
        take_cache="\n        use_cache: bool,",
        prefill=_PREFILL.format(most=most, why=_WHY) if in_parts else _AT_ONCE,
        read=_READ,
        logits=_EITHER,
        cache_in=", cache: Any",
        any=", Any",
        cache=", cache",
        kept=', given.get("cache", [])',
        compiled=_BOTH,
    )


def _paragraph(text: str) -> str:
    return fill(text, LINE, initial_indent=" " * 8, subsequent_indent=" " * 8)


_OF_ANY_TASK = {"marked": "", "ids": "tokens", "mark": "", "task": ""}

_BY_TASK = {
    "marked": """\
        number = self.tasks.index(task) if task in self.tasks else task
        if isinstance(number, str) or not 0 <= number < 1 << 14:
            names = ", ".join(self.tasks) or "none is known"
            raise ValueError(f"task is a name ({names}) or a number from 0 on; got {task!r}")
        tokens = tokens + number * SPAN
""",
    "ids": "ids_of(tokens)",
    "mark": "            new = new + tasks_of(tokens[:, 0]) * SPAN\n",
    "task": " `task` is the name or the number of\n        the task that the text belongs to.",
}

_SLOW = "Each new token costs a pass over the whole text, since {}."

_WRITES = """\
    text = model.generate("The old house", max_new_tokens=50, temperature=0.8, top_p=0.95)
"""

_CACHED = (
    "Each new token costs a pass over itself alone: `step` keeps what later positions need of "
    "earlier ones. `use_cache=False` passes over the whole text for each, which gives the same "
    "tokens, but for roundings, and takes longer."
)

_BOTH = """\
[
                Compiled(self, function).predict_on_batch for function in (self.read, self.write)
            ]"""

_PREFILL = """\
        if use_cache:
            kept = self.cache(window.shape[0], room)
            for start in range(0, length - 1, {most}):{why}
                read = {{"tokens": window[:, start : min(start + {most}, length - 1)]}}
                read |= {{"cache": kept, "start": ops.convert_to_tensor(start, "int32")}}
                kept = self.passes[0](read)
            given["cache"] = kept
"""

_AT_ONCE = """\
        if use_cache:
            given["cache"] = self.cache(window.shape[0], room)
            if length > 1:
                read = {"tokens": window[:, :-1], "cache": given["cache"]}
                read["start"] = ops.zeros((), "int32")
                given["cache"] = self.passes[0](read)
"""

_WHY = "  # so many positions fit into memory"

_READ = """
    def read(self, given: dict[str, Any]) -> list[tuple[Tensor, ...]]:
        \"""The cache after tokens [batch, T] that come after `start` others.\"""
        return self.step(given["tokens"], given["cache"], given["start"])[1]
"""

_EITHER = """\
            if "cache" in given:
                token = ops.take(tokens, i, axis=1)[:, None]
                logits, cache = self.step(token, cache, i)
                logits = logits[:, 0]
            else:
                logits = ops.take(self(tokens[:, :-1]), i, axis=1)
"""

_WHOLE = """\
            logits = ops.take(self(tokens[:, :-1]), i, axis=1)
"""
