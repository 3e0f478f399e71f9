"""One candidate: its program, where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from search.cli.commands.opening import candidate_program, reading, size_of, stored_config
from search.cli.commands.options import Campaign, Candidate, Output, Storage
from search.errors import UsageError

if TYPE_CHECKING:
    from primitives.language.dna import DNA
    from search.campaign.experts import Experts
    from search.campaign.queries import Record
    from search.storage.store import Store

_EXPERTS = 8
"""How many experts of a routed call are shown as text; JSON and the report have more."""

_LINEAGE_COLUMNS = ("id", "mutation", "outcome", "fitness", "val_bpb", "params", "hash")

Relative = Literal["parent", "seed"]


def show(
    name: Campaign,
    id: Candidate,
    diff: Annotated[
        Relative | None, typer.Option("--diff", help="What changed since its parent or its seed.")
    ] = None,
    genome: Annotated[
        bool,
        typer.Option("--genome", help="The program as stored, with what has no effect in it."),
    ] = False,
    storage: Storage = None,
    output: Annotated[
        Literal["text", "json", "csv", "dna", "dot", "svg"],
        typer.Option("--output", "-o", help="How it is printed; dna: as a program file."),
    ] = "text",
) -> None:
    """Print a candidate. Its record, what it costs, its ancestors, what changed since the seed
    program, and the program that runs. In a drawing (dot, svg) with --diff, what is new is green,
    what changed is yellow, and what is gone is red."""
    from search.cli.output import print_fields, print_json

    with reading(storage) as store:
        shown = _shown(store, name, id, genome)
        other = _other(name, shown.ancestry, diff) if diff else None
        before = candidate_program(store, name, other) if other else None
    if diff and output in ("csv", "dna"):
        raise UsageError(f"--diff has no {output} form; use -o text, json, dot or svg")
    change = _diff(before, shown.dna, (other, id), genome) if before else None
    if output in ("dot", "svg"):
        from search.report import drawing

        draw = drawing.dot if output == "dot" else drawing.svg
        print(draw(shown.dna, f"{name}: candidate {id}", before))
    elif output == "dna":
        print(_program_file(shown), end="")
    elif output == "json":
        print_json(_whole(shown) | ({"diff": change} if diff else {}))
    elif output == "csv":
        told = {"changes": "; ".join(shown.changes), "program": shown.text}
        print_fields({**shown.record, **shown.size, **told}, output)
    elif change is not None:
        _print_diff(change)
    else:
        _print_candidate(shown)


@dataclass(frozen=True, slots=True)
class _Shown:
    """All that is shown of a candidate. `text` is the live program or the genome, `changes` what
    changed since its seed program, `prunings` the records of smaller models of it."""

    campaign: str
    record: Record
    ancestry: list[Record]
    size: dict[str, int | str]
    dna: DNA
    text: str
    changes: list[str]
    experts: Experts | None
    prunings: list[dict[str, Any]]


def _shown(store: Store, name: str, id: int, genome: bool) -> _Shown:
    from search.campaign import queries
    from search.campaign.experts import experts
    from search.report.words import changes
    from search.study.prunings import prunings

    ancestry, dna = queries.lineage(store, name, id), candidate_program(store, name, id)
    seed = int(ancestry[0]["id"] or 0)
    return _Shown(
        campaign=name,
        record=queries.candidate(store, name, id),
        ancestry=ancestry,
        size=size_of(dna, stored_config(store, name).task),
        dna=dna,
        text=_text(dna, genome),
        changes=changes(dna, candidate_program(store, name, seed)) if seed != id else [],
        experts=experts(store, name, [id]).get(id),
        prunings=[each.record for each in prunings(store, name, id)],
    )


def _whole(shown: _Shown) -> dict[str, Any]:
    """It as JSON data."""
    from primitives.language.jsonform import to_json

    whole: dict[str, Any] = {**shown.record, "static_cost": shown.size}
    whole |= {"ancestry": shown.ancestry, "changes": shown.changes, "program": shown.text}
    whole |= {"dna": to_json(shown.dna), "prunings": shown.prunings}
    seen = shown.experts
    return whole | {"experts": None if seen is None else {"seed": seen.seed, "calls": seen.calls}}


def _program_file(shown: _Shown) -> str:
    """The program with a header that says where it comes from, and what changed on the way."""
    record, (seed, *mutations) = shown.record, shown.ancestry
    loss, steps = record["val_bpb"], record["steps"]
    lines = [f"Candidate {record['id']} of campaign {shown.campaign}, hash {record['hash']}."]
    made = ", ".join(f"{each['mutation']} ({each['id']})" for each in mutations)
    lines.append(f"From candidate {seed['id']}, a seed program{f', by {made}' if made else ''}.")
    if isinstance(loss, float):
        lines.append(f"Validation: {loss:.4f} bits per byte after {steps} steps of the search.")
    if shown.changes:
        lines += ["Changed since the seed program:", *(f"- {each}" for each in shown.changes)]
    return "".join(f"# {line}\n" for line in lines) + shown.text.rstrip("\n") + "\n"


def lineage(
    name: Campaign, id: Candidate, storage: Storage = None, output: Output = "table"
) -> None:
    """List a candidate's ancestry. From the seed program down to itself."""
    from search.campaign import queries
    from search.cli.output import print_records

    with reading(storage) as store:
        records = queries.lineage(store, name, id)
    print_records(records, _LINEAGE_COLUMNS, output)


def _print_candidate(shown: _Shown) -> None:
    from search.cli.output import print_fields

    static = {f"static {key}": value for key, value in shown.size.items() if key != "hash"}
    steps = [f"{row['id']} {row['mutation']}" for row in shown.ancestry]
    known = {key: value for key, value in shown.record.items() if value not in (None, "")}
    fields = {"campaign": shown.campaign, **known, **static, "ancestry": " > ".join(steps)}
    pruned = {f"pruning {each['id']}": f"{each['target']}: {each['state']}"
              for each in shown.prunings}  # fmt: skip
    print_fields({**fields, **pruned}, "table")
    print()
    _print_changes(shown.ancestry[0]["id"], shown.changes)
    print(shown.text)
    if shown.experts is not None:
        _print_experts(shown.experts)


def _print_changes(seed: object, said: list[str]) -> None:
    """What changed since the seed program, a paragraph for each change."""
    from search.cli.output import print_wrapped

    if not said:
        return
    print(f"changed since seed program {seed}:")
    for change in said:
        print_wrapped(change, "- ")
    print()


def _print_experts(seen: Experts) -> None:
    from search.campaign.experts import rows, told
    from search.cli.output import print_records

    print(f"\nExperts, on validation text, in the final run with seed {seen.seed}:")
    for call in seen.calls:
        shown = rows(call, _EXPERTS)
        print()
        columns = ("expert", "load", "most often", "more than by chance")
        print_records(shown, columns, "table", told(call), flexible="more than by chance", cut=True)
        if len(shown) < call["experts"] - call["dead"]:
            print(f"and {call['experts'] - call['dead'] - len(shown):,} more with smaller loads")


def _text(dna: DNA, genome: bool) -> str:
    """The live program as text, or the genome as it is stored."""
    from primitives.graph.live import live_program
    from primitives.language.text import render

    return render(dna if genome else live_program(dna))


def _other(name: str, ancestry: list[Record], relative: Relative) -> int:
    """The candidate to compare with; a UsageError where there is none."""
    own = int(ancestry[-1]["id"] or 0)
    if len(ancestry) < 2:
        raise UsageError(f"candidate {own} of {name} is a seed program; it has no {relative}")
    return int(ancestry[-2 if relative == "parent" else 0]["id"] or 0)


def _diff(before: DNA, after: DNA, ids: tuple[int | None, int], genome: bool) -> str:
    """A unified diff of two candidates' text: of the live programs, or of the genomes."""
    from difflib import unified_diff

    old, new = (_text(dna, genome).splitlines(keepends=True) for dna in (before, after))
    return "".join(unified_diff(old, new, f"candidate {ids[0]}", f"candidate {ids[1]}"))


def _print_diff(change: str) -> None:
    from rich.text import Text

    from search.cli.output import stdout

    colours = {"+": "green", "-": "red", "@": "cyan"}
    console = stdout()
    if not change:
        print("no difference")
    for line in change.splitlines():
        console.print(Text(line, style=colours.get(line[:1], "")), soft_wrap=True)
