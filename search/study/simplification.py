"""A shorter program with the same score: instructions are taken away that have no effect on it.

It is greedy. Each live instruction is tried alone; a first run sorts out those that clearly matter.
The others are taken away one after another, the one whose loss was lowest first. Every shorter
program is judged against the whole one, so that small losses do not add up. What is left is
compared once more under seeds that chose nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import stdev

from primitives.graph.build import IllTyped
from primitives.graph.live import live_program
from primitives.language.dna import DNA, INPUTS, Instruction
from primitives.ops.table import PRIMITIVES
from search.errors import UsageError
from search.evolution.editing import without
from search.report.verdict import LEVEL, Comparison
from search.study.comparison import common_score, paired
from search.study.edits import Edit, Labelled, Misfit, applied, edits
from search.study.study import Runs, Study, Subject, completed
from workers.spec.fit import refused, task_graph

JUDGE = "val_loss"
"""What decides whether an instruction goes; the test split is for the last comparison."""

CLEARLY = 3.0
"""A first run this many tolerances above the program's own sorts an instruction out."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """An instruction, SUBROUTINE.STATE, whose readers read `instead`; `result` is gone or kept.
    `difference` is the validation loss without it (and without those that were gone already) minus
    that of the whole program, None where a run failed or the program does not fit the task."""

    place: str
    instead: str
    result: str
    difference: float | None


@dataclass(frozen=True, slots=True)
class Simplified:
    """`program` is the shorter one. `tolerance` is how much higher its mean validation loss may be
    (nats per token). `against` compares it with the whole one under fresh seeds, by `score`; None
    where nothing was taken away."""

    program: DNA
    before: int
    after: int
    tolerance: float
    deletions: tuple[Deletion, ...]
    score: str
    against: Comparison | None

    @property
    def sentence(self) -> str:
        """What the fresh runs say."""
        if self.against is None:
            return "No instruction could be taken away: without any of them the loss is higher."
        length = f"{self.before} instructions became {self.after}"
        found = self.against.difference
        if found is None:
            return f"{length}, but no pair of fresh runs completed."
        word = "higher: the shorter program is worse" if found.low > 0 else "the same within noise"
        word = "lower" if found.high < 0 else word
        return (
            f"{length}; under fresh seeds its {self.score} is {word}: {found.centre:+.4f} "
            f"({LEVEL:.0%} interval {found.low:+.4f} to {found.high:+.4f}, "
            f"{self.against.runs} pairs of runs)."
        )


@dataclass(frozen=True, slots=True)
class _Try:
    """A deletion to try: the edit of the live program, and the program that it makes."""

    place: str
    instead: str
    edit: Edit
    subject: Subject


def simplify(
    study: Study, subject: Subject, fresh: Sequence[int], tolerance: float | None = None
) -> Simplified:
    """Takes away what has no effect, judged by the study's seeds, and compares at last under the
    `fresh` ones. `tolerance` defaults to the standard deviation of the program's own runs. Raises a
    UsageError for fewer than two seeds."""
    if len(study.setting.seeds) < 2:
        raise UsageError("simplify needs two seeds or more: a single run shows no noise")
    live = live_program(subject.dna)
    (whole, *_) = edits([live])
    (own,) = study.run([subject])
    bound = _noise(own) if tolerance is None else tolerance
    log: list[Deletion] = []
    tries = list(_tries(study, live))
    hopeful = _screened(study, subject, tries, own, bound, log)
    made = _without_all(study, whole, hopeful, own, bound, log)
    shorter = Subject.of("the shorter program", live_program(made.dna), study.setting)
    against, score = None, JUDGE
    if shorter.hash != subject.hash:
        before, after = study.run([subject, shorter], fresh)
        score = common_score([before, after])
        against = paired(after, before, score)
    return Simplified(
        shorter.dna, live.length, shorter.dna.length, bound, tuple(log), score, against
    )  # fmt: skip


def _noise(runs: Runs) -> float:
    losses = [each.val_loss for _, each in completed(runs) if each.val_loss is not None]
    return stdev(losses) if len(losses) > 1 else 0.0


def _tries(study: Study, live: DNA) -> Iterator[_Try]:
    """Every distinct program with one instruction less that fits the task."""
    seen: set[str] = set()
    for index, subroutine in enumerate(live.subroutines):
        for position, row in enumerate(subroutine.instructions):
            if len(subroutine.instructions) < 2:
                continue
            for state in dict.fromkeys(_inputs(row)):
                shorter = without(subroutine, position, state)
                rest = live.subroutines
                dna = replace(live, subroutines=(*rest[:index], shorter, *rest[index + 1 :]))
                place = f"{subroutine.name}.{subroutine.states[INPUTS + position]}"
                title = f"without {place}"
                found = _subject(study, title, dna)
                if found is not None and found.hash not in seen:
                    seen.add(found.hash)
                    (edit,) = edits([live, dna])[1]
                    yield _Try(place, subroutine.states[state], edit, found)


def _inputs(row: Instruction) -> tuple[int, ...]:
    unary = isinstance(row.op, str) and not PRIMITIVES[row.op].binary
    return (row.in1,) if unary else (row.in1, row.in2)


def _subject(study: Study, title: str, dna: DNA) -> Subject | None:
    """The program as a subject, if it fits the task."""
    task = study.setting.task
    graph = task_graph(dna, task)
    if isinstance(graph, IllTyped) or refused(graph, task):
        return None
    return Subject(title, dna, graph.hash)


def _screened(
    study: Study, subject: Subject, tries: list[_Try], own: Runs, bound: float, log: list[Deletion]
) -> list[_Try]:
    """Deletions that may have no effect, the best first; the others go to the log. A first run of
    each spares the others of those that clearly matter."""
    first = study.setting.seeds[:1]
    left = []
    for each, runs in zip(tries, study.run([each.subject for each in tries], first), strict=True):
        found = _difference(runs, own)
        if found is not None and found <= CLEARLY * bound:
            left.append(each)
        else:
            log.append(Deletion(each.place, each.instead, "kept", found))
    judged: list[tuple[float, _Try]] = []
    for each, runs in zip(left, study.run([each.subject for each in left]), strict=True):
        found = _difference(runs, own)
        if found is not None and _same(runs, own, bound):
            judged.append((found, each))
        else:
            log.append(Deletion(each.place, each.instead, "kept", found))
    return [each for _, each in sorted(judged, key=lambda pair: pair[0])]


def _without_all(
    study: Study,
    whole: Labelled,
    hopeful: list[_Try],
    own: Runs,
    bound: float,
    log: list[Deletion],
) -> Labelled:
    """The program without as many of the hopeful instructions as together have no effect."""
    made, gone = whole, set[str]()
    for each in hopeful:
        shorter = applied(made, each.edit)
        if each.place in gone or isinstance(shorter, Misfit):
            continue
        found = _subject(study, f"without {', '.join([*sorted(gone), each.place])}", shorter.dna)
        if found is None:
            log.append(Deletion(each.place, each.instead, "kept", None))
            continue
        (runs,) = study.run([found])
        same = _same(runs, own, bound)
        log.append(
            Deletion(each.place, each.instead, "gone" if same else "kept", _difference(runs, own))
        )
        if same:
            made, gone = shorter, gone | {each.place}
    return made


def _difference(runs: Runs, own: Runs) -> float | None:
    """The mean difference in validation loss to the whole program; None where a run failed."""
    if any(each.status != "completed" for each in runs.values()):
        return None
    found = paired(runs, own, JUDGE).difference
    return None if found is None else found.centre


def _same(runs: Runs, own: Runs, bound: float) -> bool:
    """Whether a program scores as the whole one within noise: its mean is not above by more than
    the bound, and its interval does not lie above zero."""
    found = paired(runs, own, JUDGE).difference
    mean = _difference(runs, own)
    return mean is not None and found is not None and mean <= bound and found.low <= 0
