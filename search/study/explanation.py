"""Which changes of a winner's lineage carry its gain (So et al. 2021, figure 26).

Each change is put alone into the seed program, and taken alone out of the winner. Changes that the
winner computes the same without are left out at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from primitives.graph.build import IllTyped
from primitives.language.dna import DNA
from primitives.language.text import render
from search.errors import PrimevoError
from search.report.difference import difference
from search.report.verdict import Interval
from search.report.words import step_changes
from search.study.comparison import common_score, paired
from search.study.edits import Edit, Labelled, Misfit, all_applied, edits
from search.study.setting import Setting
from search.study.study import Runs, Study, Subject
from workers.spec.fit import refused, task_graph

Word = Literal["helps", "hurts", "no clear effect", "no effect", "cannot stand alone", "no score"]


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A program of a lineage; `mutation` made it of the one before."""

    id: int
    mutation: str
    dna: DNA


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change does on one side. `gain` is how much lower the score is with it than without
    it, None where that was not measured; `reason` says why. `with_ids` are the changes that had to
    go with it, as they build on it."""

    word: Word
    gain: Interval | None = None
    reason: str = ""
    with_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One change: the candidate that brought it, its mutation, what it changed in words (none where
    its own candidate computed the same as before) and by the lines of the genome (signs + and -),
    its effect alone in the seed program, and gone from the winner."""

    id: int
    mutation: str
    words: tuple[str, ...]
    lines: tuple[str, ...]
    inserted: Effect
    removed: Effect


@dataclass(frozen=True, slots=True)
class Explained:
    """`whole` is what all changes together give: seed program against winner. `idle` are the steps
    of the lineage that the winner computes the same without."""

    score: str
    whole: Effect
    changes: tuple[Change, ...]
    idle: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Variant:
    """A program with one change more or less; or why there is none."""

    dna: DNA | None
    hash: str = ""
    reason: str = ""
    with_ids: tuple[int, ...] = ()


def explain(study: Study, lineage: Sequence[Ancestor]) -> Explained:
    """Trains seed program, winner and every variant that was not trained before. The lineage begins
    with the seed program and has at least one step."""
    task = study.setting
    seed, steps = edits([each.dna for each in lineage])
    first = Subject.of(f"seed program {lineage[0].id}", lineage[0].dna, task)
    last = Subject.of(f"candidate {lineage[-1].id}", lineage[-1].dna, task)
    numbered = dict(zip([each.id for each in lineage[1:]], steps, strict=True))
    if _checked(all_applied(seed, steps), task).hash != last.hash:
        raise PrimevoError(
            f"the lineage of {last.title} cannot be taken apart: its changes, applied to "
            f"{first.title} one after another, do not make it"
        )
    needed, idle = _needed(seed, numbered, last.hash, task)
    inserted = {id: _checked(all_applied(seed, [needed[id]]), task) for id in needed}
    removed = {id: _without(seed, needed, id, task) for id in needed}
    subjects = [first, last]
    for word, variants in (("plus", inserted), ("minus", removed)):
        base = first.title if word == "plus" else last.title
        for id, variant in variants.items():
            if variant.dna is not None and variant.hash not in (first.hash, last.hash):
                subjects.append(Subject(f"{base} {word} {id}", variant.dna, variant.hash))
    runs = dict(zip((each.hash for each in subjects), study.run(subjects), strict=True))
    score = common_score(list(runs.values()))
    made = {each.id: each for each in lineage}
    parents = dict(zip([each.id for each in lineage[1:]], lineage, strict=False))
    return Explained(
        score,
        _measured(runs[last.hash], runs[first.hash], score),
        tuple(
            Change(
                id, made[id].mutation, tuple(step_changes(made[id].dna, parents[id].dna)),
                _lines(parents[id].dna, made[id].dna),
                _effect(inserted[id], first, runs, score, added=True),
                _effect(removed[id], last, runs, score, added=False),
            )
            for id in needed
        ),
        idle,
    )  # fmt: skip


def _needed(
    seed: Labelled, steps: dict[int, Edit], winner: str, task: Setting
) -> tuple[dict[int, Edit], tuple[int, ...]]:
    """The steps that the winner needs, and those it computes the same without: what a later step
    undid, what went on in parts that do not run."""
    needed = dict(steps)
    dropped: list[int] = []
    again = True
    while again:  # to leave one out may free another, such as a deletion of what it put in
        again = False
        for id in list(needed):
            rest = [edit for other, edit in needed.items() if other != id]
            if rest and _checked(all_applied(seed, rest), task).hash == winner:
                del needed[id]
                dropped.append(id)
                again = True
    return needed, tuple(sorted(dropped))


def _without(seed: Labelled, steps: dict[int, Edit], id: int, task: Setting) -> _Variant:
    """The winner without a change, and without those that cannot be made without it."""
    made, gone = seed, []
    for other, edit in steps.items():
        if other == id:
            continue
        next_one = all_applied(made, [edit])
        if isinstance(next_one, Misfit):
            gone.append(other)
        else:
            made = next_one
    variant = _checked(made, task)
    return _Variant(variant.dna, variant.hash, variant.reason, tuple(gone))


def _checked(made: Labelled | Misfit, task: Setting) -> _Variant:
    """The program if it fits the task."""
    if isinstance(made, Misfit):
        return _Variant(None, reason=made.reason)
    graph = task_graph(made.dna, task.task)
    if isinstance(graph, IllTyped):
        return _Variant(None, reason=f"it does not type-check: {graph}")
    if reason := refused(graph, task.task):
        return _Variant(None, reason=reason)
    return _Variant(made.dna, graph.hash)


def _effect(
    variant: _Variant, base: Subject, runs: dict[str, Runs], score: str, *, added: bool
) -> Effect:
    """A change that is `added` to the base, or gone from it."""
    if variant.dna is None:
        return Effect("cannot stand alone", None, variant.reason, variant.with_ids)
    if variant.hash == base.hash:
        return Effect("no effect", Interval(0.0, 0.0, 0.0), "the program computes the same")
    own = runs[variant.hash]
    more, less = (own, runs[base.hash]) if added else (runs[base.hash], own)
    return _measured(more, less, score, variant.with_ids)


def _measured(with_it: Runs, without: Runs, score: str, ids: tuple[int, ...] = ()) -> Effect:
    found = paired(without, with_it, score).difference
    if found is None:
        statuses = {each.status for runs in (with_it, without) for each in runs.values()}
        failed = ", ".join(sorted(statuses - {"completed"}))
        return Effect("no score", None, f"its runs ended as {failed}", ids)
    word: Word = "no clear effect"
    if found.low > 0:
        word = "helps"
    elif found.high < 0:
        word = "hurts"
    return Effect(word, found, "", ids)


def _lines(before: DNA, after: DNA) -> tuple[str, ...]:
    """The lines of the genome that a step changed."""
    old, new = (render(dna) for dna in (before, after))
    changed = (line for line in difference(old, new, 0) if line.sign in ("+", "-"))
    return tuple(f"{line.sign} {line.text.strip()}" for line in changed if line.text.strip())


def records(explained: Explained) -> list[dict[str, Any]]:
    """A record for each change, and a last one for all of them together."""
    rows = [
        {
            "id": change.id,
            "mutation": change.mutation,
            "change": "; ".join(change.words),
            "lines": "; ".join(change.lines),
            **_side("inserted", change.inserted),
            **_side("removed", change.removed),
        }
        for change in explained.changes
    ]
    whole = {
        "id": None,
        "mutation": "all",
        "change": "the winner against the seed program",
        "lines": "",
    }
    return [*rows, {**whole, **_side("inserted", explained.whole), **_side("removed", None)}]


def _side(name: str, effect: Effect | None) -> dict[str, Any]:
    gain = effect.gain if effect else None
    bounded = gain is not None and abs(gain.high) != float("inf")
    return {
        name: effect.word if effect else None,
        f"{name}_gain": gain.centre if gain else None,
        f"{name}_low": gain.low if gain and bounded else None,
        f"{name}_high": gain.high if gain and bounded else None,
        f"{name}_reason": effect.reason if effect else "",
        f"{name}_with": list(effect.with_ids) if effect else [],
    }
