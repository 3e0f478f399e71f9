"""What hurdles save and whether they keep the winner: python -m tests.benchmarks.hurdles

Replays the search's own hurdles on the recorded curves of candidates that were all trained in full
(full_curves.json.gz beside this file, made by `tests.benchmarks.full_curves`), and prints one JSON
object. A replay decides which of these candidates would have been stopped where; it cannot say
which others a search with hurdles would have bred.

For each rule: `times_fewer_steps`, the steps of training each candidate in full over those of the
replays; `same_winner_of_5`, replays in five random orders that end with the candidate that has the
lowest loss after full training; of 200 random orders, `same_winner`, the share that do, `one_of_3`,
the share that end with one of the best three, and `excess_bpb`, the mean distance between the full
losses of the found and the best one, in bits per byte;
`in_full` and `meant`, the shares of candidates that were trained in full and meant to be;
`recorded_order`, the same for the order in which the recorded search made them, where children get
better with time. WORKERS candidates are in flight at a time. The seed program comes first and is
never stopped. Diverged candidates are left out: they cost the same with and without hurdles. Losses
between two recorded points are interpolated in the logarithm of the step.
"""

from __future__ import annotations

import gzip
import json
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, NamedTuple

from search.config.schema import BudgetSpec
from search.evolution.hurdles import Hurdles, Rule, spent

CURVES = Path(__file__).with_name("full_curves.json.gz")
WORKERS = 4
ORDERS = 200
POPULATION = 64
RULES: tuple[tuple[Rule, int, int], ...] = (
    ("median", 2, 3), ("top", 2, 3), ("top", 2, 4), ("top", 2, 5), ("top", 3, 2), ("top", 3, 3),
    ("top", 4, 2), ("top", 5, 2), ("top", 6, 2), ("top", 8, 2),
)  # fmt: skip


class Curve(NamedTuple):
    """A candidate's validation losses (nats a token) at the data's points; the last is final."""

    id: int
    points: Sequence[float]
    losses: Sequence[float]

    def at(self, step: float) -> float:
        if not self.points[0] <= step <= self.points[-1]:
            raise ValueError(f"step {step} is outside of {self.points[0]} to {self.points[-1]}")
        place = bisect_left(self.points, step)
        if self.points[place] == step:
            return self.losses[place]
        low, high = self.points[place - 1], self.points[place]
        part = math.log(step / low) / math.log(high / low)
        return self.losses[place - 1] + part * (self.losses[place] - self.losses[place - 1])


class Replay(NamedTuple):
    """What one order of the candidates gave: steps in full runs, the winner and its final loss."""

    cost: float
    winner: int
    loss: float
    in_full: float


def curves(data: dict[str, Any]) -> list[Curve]:
    """The candidates that completed, in the order in which they ended."""
    return [
        Curve(each["id"], data["points"], each["losses"])
        for each in data["candidates"]
        if each["outcome"] == "completed"
    ]


def replay(order: Iterable[Curve], budget: BudgetSpec, workers: int = WORKERS) -> Replay:
    """Candidates in turn, `workers` at a time; each meets the bars of when it started."""
    hurdles = Hurdles(budget.points, POPULATION, budget.rule, budget.eta)
    running: deque[tuple[list[float], int, bool]] = deque()
    cost, full, count = 0.0, 0, 0
    best: tuple[float, Curve] | None = None
    for curve in order:
        seed = curve.id == 1
        while running and (seed or len(running) >= workers or count == 1):
            hurdles.record(*running.popleft())
        losses, passed = [], 0
        for bar in hurdles.bars():
            losses.append(curve.at(bar.at))
            if not seed and bar.threshold is not None and losses[-1] > bar.threshold:
                break
            passed += 1
        else:
            losses.append(curve.losses[-1])
        running.append((losses, passed, not seed))
        cost += spent(budget.points, budget.full, passed) / budget.full
        full += passed == budget.hurdles and not seed
        count += 1
        if best is None or losses[-1] < best[0]:
            best = losses[-1], curve
    assert best is not None
    return Replay(cost / count, best[1].id, best[1].losses[-1], full / (count - 1))


def budget_of(rule: Rule, eta: int, hurdles: int, full: float) -> BudgetSpec:
    """A budget of that many steps; its base need not be whole here."""
    bands = BudgetSpec(unit="seconds", base=1, hurdles=hurdles, eta=eta, rule=rule).full
    return BudgetSpec(unit="seconds", base=full / bands, hurdles=hurdles, eta=eta, rule=rule)


def judged(found: Sequence[Curve], budget: BudgetSpec) -> dict[str, Any]:
    """One rule in all orders."""
    seed, children = found[0], list(found[1:])
    best, *others = sorted(found, key=lambda curve: curve.losses[-1])[:3]
    near = {best.id, *(curve.id for curve in others)}
    replays = [
        replay([seed, *Random(number).sample(children, len(children))], budget)
        for number in range(ORDERS)
    ]
    recorded = replay(found, budget)

    def excess(one: Replay) -> float:
        return (one.loss - best.losses[-1]) / math.log(2)

    return {
        "rule": budget.rule,
        "eta": budget.eta,
        "hurdles": [round(point, 1) for point in budget.points],
        "times_fewer_steps": round(1 / fmean(one.cost for one in replays), 2),
        "same_winner_of_5": sum(one.winner == best.id for one in replays[:5]),
        "same_winner": round(fmean(one.winner == best.id for one in replays), 3),
        "one_of_3": round(fmean(one.winner in near for one in replays), 3),
        "excess_bpb": round(fmean(map(excess, replays)), 4),
        "in_full": round(fmean(one.in_full for one in replays), 3),
        "meant": round(budget.full_share, 3),
        "recorded_order": {
            "times_fewer_steps": round(1 / recorded.cost, 2),
            "same_winner": recorded.winner == best.id,
            "excess_bpb": round(excess(recorded), 4),
            "in_full": round(recorded.in_full, 3),
        },
    }


def main() -> None:
    data = json.loads(gzip.decompress(CURVES.read_bytes()))
    found = curves(data)
    rules = [judged(found, budget_of(*rule, data["full"])) for rule in RULES]
    print(json.dumps({"candidates": len(found), "full": data["full"], "rules": rules}, indent=1))


if __name__ == "__main__":
    main()
