"""A found model writes text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.commands.opening import candidate_program, reading, stored_config
from search.cli.commands.options import Output, Storage
from search.errors import PrimevoError, UsageError

if TYPE_CHECKING:
    from search.config.schema import CampaignConfig

_SOURCE = "An exported folder, or a campaign's name, and"
_NUMBER = "a candidate's number; default: the best whose weights were kept."
_TASK = (
    "For programs that route by task (TASK): the source that the text is of; default: the first."
)
_WHOLE = "Keep the whole text in sight, however long; for models without learned positions."


def generate(
    source: Annotated[str, typer.Argument(metavar="DIR|NAME", help=_SOURCE)],
    id: Annotated[int | None, typer.Argument(metavar="[ID]", min=1, help=_NUMBER)] = None,
    prompt: Annotated[str, typer.Option("--prompt", help="The text that is continued.")] = "The ",
    tokens: Annotated[
        int, typer.Option("--tokens", min=1, max=1_000_000, help="How many tokens it writes.")
    ] = 200,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, help="0: always the likeliest token.")
    ] = 0.8,
    top_p: Annotated[
        float,
        typer.Option("--top-p", help="Draw from the likeliest tokens that reach this probability."),
    ] = 0.95,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=2**31 - 1, help="Equal seeds give equal text."),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", metavar="NAME", help=_TASK)] = None,
    whole: Annotated[bool, typer.Option("--whole", help=_WHOLE)] = False,
    storage: Storage = None,
    output: Output = "table",
) -> None:
    """Print a text that a found model writes. From an exported folder or a campaign's finalist."""
    if not prompt:
        raise UsageError("--prompt is empty; give at least one letter")
    if not 0 < top_p <= 1:
        raise UsageError(f"--top-p must be above 0 and at most 1, got {top_p}")
    from workers.data.corpora import DataError
    from workers.export.export import ExportError
    from workers.export.reading import continued

    try:
        model = _model(source, id, storage)
        _tell_of_length(model, prompt, tokens, whole)
        options = {"temperature": temperature, "top_p": top_p, "seed": seed}
        options |= _chosen_task(model, task)
        text = continued(model, prompt, tokens, sliding=not whole, **options)
    except (ExportError, DataError) as error:
        raise PrimevoError(str(error)) from None
    if output != "table":
        from search.cli.output import print_fields

        print_fields({"prompt": prompt, "tokens": tokens, **options, "text": text}, output)
    else:
        print(_printable(text))


def _model(source: str, id: int | None, storage: str | None) -> Any:
    """The model of a folder, or of a campaign's candidate whose weights were kept."""
    from workers.export.reading import exported_model, is_exported
    from workers.machine.quiet import load_framework

    if Path(source).is_dir() and (is_exported(Path(source)) or "/" in source):
        if id is not None:
            raise UsageError(f"{source} is an exported folder, which has no candidate {id}")
        load_framework()
        return exported_model(Path(source))
    from workers.export.export import trained_model

    with reading(storage) as store:
        from search.campaign import queries

        config = stored_config(store, source)
        if id is None:
            ranked = queries.top(store, source, count=1000)
            id = next(
                (int(r["id"] or 0) for r in ranked if _weights(config, source, r["id"])), None
            )
        else:
            queries.candidate(store, source, id)
        if id is None or not _weights(config, source, id):
            raise PrimevoError(_no_weights(config, source, id))
        dna = candidate_program(store, source, id)
    print(f"{source}: candidate {id}", file=sys.stderr)
    load_framework()
    return trained_model(dna, config.task, config.weights_file(source, id))


def _chosen_task(model: Any, task: str | None) -> dict[str, Any]:
    """The option by which a model that routes by task is told its text's; nothing for others."""
    names: tuple[str, ...] | None = getattr(model, "tasks", None)
    if task is None and names:
        others = f"; --task names another one of {', '.join(names)}" if names[1:] else ""
        print(f"the text is of the task {names[0]}{others}", file=sys.stderr)
        return {"task": names[0]}
    if task is None:
        return {}
    if not names:
        why = "its text has none" if names == () else "its program does not route by them (TASK)"
        raise UsageError(f"--task {task}: the model knows no tasks, since {why}; leave --task out")
    if task not in names:
        raise UsageError(f"--task {task}: the model's tasks are {', '.join(names)}")
    return {"task": task}


def _weights(config: CampaignConfig, campaign: str, id: Any) -> bool:
    return config.weights_file(campaign, int(id or 0)).is_file()


def _no_weights(config: CampaignConfig, campaign: str, id: int | None) -> str:
    """What to do where no trained weights are kept; only finalists' are."""
    which = f"candidate {id}" if id is not None else "a finalist"
    folder = config.weights_file(campaign, id or 0).parent
    return (
        f"no weights of {which} of {campaign} are kept in {folder}; train and export it (primevo "
        f"export {campaign} {id or 'ID'} --to DIR), then name DIR"
    )


def _tell_of_length(model: Any, prompt: str, tokens: int, whole: bool) -> None:
    """What happens where the text outgrows the length that the model was trained with."""
    from workers.export.reading import prompt_length, trained_length

    length, bounded = trained_length(model)
    if whole and bounded:
        raise UsageError(
            f"--whole: the model has learned {length} positions, and there are no others; leave "
            "--whole out, or train one with task.model.positions: rotary, sinusoidal or none"
        )
    if prompt_length(model, prompt) + tokens > length:
        trained = f"the model was trained with {length} positions"
        windows = f"whenever they are full, it goes on from the last {length // 2} tokens"
        print(
            f"{trained}, so longer texts are new to it" if whole
            else f"{trained}: {windows}" if bounded
            else f"{trained}: {windows} (--whole keeps all in sight)",
            file=sys.stderr,
        )  # fmt: skip


def _printable(text: str) -> str:
    """The text without characters that would steer a terminal: a model of bytes may write any."""
    return "".join(
        it if it.isprintable() or it in "\n\t" else "\N{REPLACEMENT CHARACTER}" for it in text
    )
