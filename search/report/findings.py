"""What a campaign found, in words: its finalists against the first seed program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from search.campaign.progress import FinalRow
from search.campaign.queries import Summary
from search.report.verdict import LEVEL, Comparison, Interval, compare, mean_interval


@dataclass(frozen=True, slots=True)
class Finalist:
    """A program of the final phase: its score on the test split at each fresh run, and how it
    stands against the first seed program (None for the seed program itself)."""

    row: FinalRow
    scores: tuple[float, ...]
    mean: Interval | None
    against_seed: Comparison | None

    @property
    def name(self) -> str:
        return "seed program" if self.row.is_seed else f"candidate {self.row.id}"


@dataclass(frozen=True, slots=True)
class Findings:
    """`chosen` is the candidate that the campaign offers: the finalist with the lowest mean
    validation loss, so that the test split stays unseen by the choice; without a final phase the
    best of the search. It is None where there is nothing but seed programs. `word` and `sentence`
    are the verdict on it."""

    unit: str
    finalists: tuple[Finalist, ...]
    chosen: int | None
    word: str
    sentence: str

    @property
    def verdict(self) -> str:
        """`better: Candidate 31 is ...`, the same everywhere."""
        return f"{self.word}: {self.sentence}"


def findings(summary: Summary) -> Findings:
    unit, scores = _scores(summary.final)
    seed = next((row for row in summary.final if row.is_seed), None)
    baseline = scores[seed.id] if seed else ()
    finalists = tuple(
        Finalist(
            row,
            scores[row.id],
            mean_interval(scores[row.id]),
            None if row.is_seed else compare(scores[row.id], baseline),
        )
        for row in summary.final
    )
    chosen = _chosen(summary)
    own = next((each for each in finalists if each.row.id == chosen), None)
    comparison = own.against_seed if own else None
    word = comparison.word if comparison else "cannot tell"
    sentence = _sentence(summary, chosen, comparison, unit) + _others(summary)
    return Findings(unit, finalists, chosen, word, sentence)


def verdict_on(summary: Summary, id: int) -> str | None:
    """The verdict on any finalist; None for other candidates and for the seed program."""
    found = findings(summary)
    own = next((each for each in found.finalists if each.row.id == id), None)
    if own is None or own.against_seed is None:
        return None
    return f"{own.against_seed.word}: {_sentence(summary, id, own.against_seed, found.unit)}"


def _scores(rows: Sequence[FinalRow]) -> tuple[str, dict[int, tuple[float, ...]]]:
    """Bits per byte where every run has them, else losses in nats per token."""
    if all(len(row.test_bpbs) == len(row.test_losses) for row in rows):
        return "bits per byte", {row.id: row.test_bpbs for row in rows}
    return "nats per token", {row.id: row.test_losses for row in rows}


def _chosen(summary: Summary) -> int | None:
    found = [row for row in summary.final if not row.is_seed and row.val_losses]
    if found:
        return min(found, key=lambda row: fmean(row.val_losses)).id
    best = summary.progress.best
    return best.id if best and best.id != 1 else None


def _others(summary: Summary) -> str:
    """That the verdict weighs one objective, where the campaign has more."""
    others = [name for name in summary.objectives if name != "val_loss"]
    if not others:
        return ""
    return (
        f" This speaks of the loss alone; the campaign also weighed {', '.join(others)}: see "
        f"primevo top {summary.line.name} --pareto."
    )


def _sentence(
    summary: Summary, chosen: int | None, comparison: Comparison | None, unit: str
) -> str:
    if chosen is None:
        return "No candidate has a lower validation loss than the seed program."
    if comparison is None:
        gain = summary.progress.gain
        ahead = "" if gain is None else f"it is {gain:.4f} bits per byte under the seed program"
        return (
            f"Candidate {chosen} was the best of the search"
            f"{': ' + ahead + ' on the validation split' if ahead else ''}. It was chosen by that "
            "score, so only runs with fresh seeds can tell whether it is better; there are none."
        )
    difference, runs = comparison.difference, f"{comparison.runs} and {comparison.baseline_runs}"
    if difference is None:
        return f"Candidate {chosen} and the seed program have {runs} completed fresh runs."
    centre = difference.centre
    side = "under" if centre <= 0 else "above"
    distance = f"Candidate {chosen} is {abs(centre):.4f} {unit} {side} the seed program"
    if min(comparison.runs, comparison.baseline_runs) < 2:
        return f"{distance}, from {runs} fresh runs: an interval needs two of each."
    ends = f"{difference.low:+.4f} to {difference.high:+.4f}"
    sentence = f"{distance} on the test split; {LEVEL:.0%} interval {ends}, from {runs} fresh runs."
    if comparison.word == "cannot tell":
        sentence += " The interval holds zero; more runs would narrow it."
    return sentence
