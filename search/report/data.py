"""What the charts show, as pure functions over the rows of a campaign."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, NamedTuple

from search.campaign.progress import Phase, Reach, reach_of
from search.config.schema import BudgetSpec
from search.evolution.hurdles import spent
from search.report.queries import Run
from search.report.verdict import Interval, mean_interval

Kind = Reach | Literal["duplicate", "no score"]
KindOf = Callable[[Run], Kind]


def kind(run: Run, budget: BudgetSpec, phase: Phase) -> Kind:
    """What became of a candidate in a campaign of this budget that is at this phase."""
    if run.fitness is None:
        return "no score"
    if run.duplicate_of is not None:
        return "duplicate"
    return reach_of(run.hurdles_passed, budget, phase)


@dataclass(frozen=True, slots=True)
class Quality:
    """The score that charts show: a validation loss in nats per token times `factor`."""

    unit: str
    factor: float

    def of(self, loss: float | None) -> float | None:
        return None if loss is None else loss * self.factor


def quality(runs: Iterable[Run]) -> Quality:
    """Bits per byte where every score has them. They are the loss times the tokens in a byte, which
    is one number for a validation split; where it is not, losses are shown as they are."""
    scored = [run for run in runs if run.fitness]
    ratios = [run.val_bpb / run.fitness for run in scored if run.val_bpb and run.fitness]
    if ratios and len(ratios) == len(scored):
        middle = median(ratios)
        if all(abs(ratio - middle) < 1e-3 * middle for ratio in ratios):
            return Quality("bits per byte", middle)
    return Quality("nats per token", 1.0)


def best_so_far(runs: Sequence[Run]) -> list[Run]:
    """The runs that were better than every run before them."""
    found: list[Run] = []
    best = float("inf")
    for run in runs:
        if run.fitness is not None and run.fitness < best:
            best = run.fitness
            found.append(run)
    return found


def hurdle_bars(runs: Sequence[Run], place: int) -> list[tuple[int, float | None]]:
    """How the threshold of one hurdle moved: (sequence, threshold in validation loss) wherever it
    changed, and where the campaign stands."""
    found: list[tuple[int, float | None]] = []
    for run in runs:
        if run.duplicate_of is None and place < len(run.hurdles):
            bar = run.hurdles[place][1]
            if not found or found[-1][1] != bar:
                found.append((run.sequence, bar))
    return [*found, (runs[-1].sequence, found[-1][1])] if found else []


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other beats: none is as low in both and lower in one. They come
    by rising first value."""
    front: list[int] = []
    last: tuple[float, float] | None = None
    for place in sorted(range(len(points)), key=lambda place: points[place]):
        point = points[place]
        if last is None or point[1] < last[1] or point == last:
            front.append(place)
            last = point
    return front


def costed(runs: Iterable[Run], cost: Callable[[Run], float | None]) -> list[Run]:
    """The distinct programs that have both a score and the cost."""
    return [
        run
        for run in runs
        if run.duplicate_of is None and run.fitness is not None and cost(run) is not None
    ]


def thin(runs: Sequence[Run], limit: int, keep: Collection[int]) -> list[Run]:
    """Every n-th run, with n so that about `limit` remain, and every run whose candidate is one of
    `keep`."""
    every = stride(len(runs), limit)
    return [run for place, run in enumerate(runs) if place % every == 0 or run.id in keep]


def stride(count: int, limit: int) -> int:
    """The n of `thin`: 1 where there are no more than `limit`."""
    return max(1, -(-count // limit))


class MutationRow(NamedTuple):
    """What one mutation gave. `trained` counts distinct children that have a score, `compared`
    those of them whose parent has one at the same point of training; `better` counts those that
    beat it. `gain` is the mean of the parent's loss minus the child's, with its interval."""

    mutation: str
    children: int
    duplicates: int
    trained: int
    compared: int
    better: int
    gain: Interval | None
    best: float | None

    @property
    def share(self) -> float | None:
        """The share of compared children that beat their parent."""
        return self.better / self.compared if self.compared else None


def mutation_rows(runs: Sequence[Run]) -> list[MutationRow]:
    """Every mutation that made a child, the highest mean gain first."""
    by_id = {run.id: run for run in runs}
    families: dict[str, list[Run]] = {}
    for run in runs:
        if run.parent_id is not None:
            families.setdefault(run.mutation, []).append(run)
    rows = [_mutation_row(name, children, by_id) for name, children in families.items()]
    return sorted(rows, key=lambda row: (row.gain is None, -(row.gain.centre if row.gain else 0)))


def together(campaigns: Iterable[Sequence[Run]]) -> list[Run]:
    """The runs of several campaigns as if they were one: candidates are numbered on."""
    found: list[Run] = []
    for runs in campaigns:
        start = max((run.id for run in found), default=0)
        found += [_moved(run, start) for run in runs]
    return found


def _moved(run: Run, by: int) -> Run:
    def number(id: int | None) -> int | None:
        return None if id is None else id + by

    return run._replace(
        id=run.id + by, parent_id=number(run.parent_id), duplicate_of=number(run.duplicate_of)
    )


def _mutation_row(name: str, children: list[Run], by_id: dict[int, Run]) -> MutationRow:
    distinct = [run for run in children if run.duplicate_of is None]
    gains = [
        gain
        for run in distinct
        if run.fitness is not None
        and (gain := gain_over(by_id.get(run.parent_id or 0), run)) is not None
    ]
    return MutationRow(
        name, len(children), len(children) - len(distinct),
        sum(run.fitness is not None for run in distinct), len(gains),
        sum(gain > 0 for gain in gains), mean_interval(gains), max(gains, default=None),
    )  # fmt: skip


def gain_over(parent: Run | None, child: Run) -> float | None:
    """How far the child's loss is under its parent's at the last point where both were scored: a
    child that a hurdle stopped is compared at that hurdle."""
    if parent is None:
        return None
    shared = min(len(parent.losses), len(child.losses))
    if shared == 0:
        return None
    before, after = parent.losses[shared - 1], child.losses[shared - 1]
    return None if before is None or after is None else before - after


class Bin(NamedTuple):
    """Consecutive endings, from the sequence of the first to that of the last: how candidates
    ended, and the children refused before them by reason."""

    first: int
    last: int
    outcomes: Counter[str]
    refusals: Counter[str]


def bins(runs: Sequence[Run], kind_of: KindOf, count: int = 50) -> list[Bin]:
    """The campaign in at most `count` pieces of equal length, of 5 endings at least."""
    length = max(5, -(-len(runs) // count))
    return [_bin(runs[start : start + length], kind_of) for start in range(0, len(runs), length)]


def _bin(runs: Sequence[Run], kind_of: KindOf) -> Bin:
    refusals: Counter[str] = Counter()
    for run in runs:
        refusals.update(run.rejections)
    endings = Counter(_ending(run, kind_of) for run in runs)
    return Bin(runs[0].sequence, runs[-1].sequence, endings, refusals)


def _ending(run: Run, kind_of: KindOf) -> str:
    if run.duplicate_of is not None:
        return "duplicate"
    return kind_of(run) if run.fitness is not None else run.outcome.replace("_", " ")


def largest(counts: Counter[str], count: int = 8) -> list[str]:
    """The names with the highest counts; `count` of them at most."""
    return [name for name, _ in counts.most_common(count)]


class Spending(NamedTuple):
    """Sums up to one ending, in the budget's unit: what training took, what hurdles saved against
    training each distinct candidate in full, what duplicates saved."""

    sequence: int
    spent: float
    saved_by_hurdles: float
    saved_by_duplicates: float


def spending(runs: Sequence[Run], budget: BudgetSpec) -> list[Spending]:
    """The running sums over completed runs, as `primevo status` counts them."""
    found: list[Spending] = []
    used = hurdles = duplicates = 0.0
    for run in runs:
        if run.outcome == "completed":
            amount = spent(budget.hurdles_at, budget.full, run.hurdles_passed)
            if run.duplicate_of is None:
                used += amount
                hurdles += budget.full - amount
            else:
                duplicates += amount
        found.append(Spending(run.sequence, used, hurdles, duplicates))
    return found


def usual(values: Collection[float], share: float = 0.97) -> tuple[float, float] | None:
    """Limits of an axis that shows the lowest `share` of the values, with a little room: a few
    diverging runs do not squeeze the rest."""
    if not values:
        return None
    ordered = sorted(values)
    low, high = ordered[0], ordered[min(len(ordered) - 1, int(share * len(ordered)))]
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room
