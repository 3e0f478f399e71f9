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

`promoting` is of search.evolution.rungs, which pauses candidates at hurdles and has them go on
later: a free worker takes up a paused one where a hurdle has a place to give, or else a new one.
`reserve` is how many arrivals at a hurdle give no place before the last child is there. Candidates
go on from their checkpoints, or, for `from_the_start`, begin anew, as they have to where no
checkpoint is left.
"""

from __future__ import annotations

import gzip
import json
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, NamedTuple

from search.config.schema import BudgetSpec
from search.evolution.hurdles import Hurdles, Rule, spent
from search.evolution.rungs import Rungs

CURVES = Path(__file__).with_name("full_curves.json.gz")
WORKERS = 4
ORDERS = 200
POPULATION = 64
RULES: tuple[tuple[Rule, int, int], ...] = (
    ("median", 2, 3), ("top", 2, 3), ("top", 2, 4), ("top", 2, 5), ("top", 3, 2), ("top", 3, 3),
    ("top", 4, 2), ("top", 5, 2), ("top", 6, 2), ("top", 8, 2),
)  # fmt: skip

PROMOTIONS: tuple[tuple[int, int, int, bool], ...] = (
    (2, 3, 16, False), (2, 4, 16, False), (2, 5, 0, False), (2, 5, 8, False), (2, 5, 16, False),
    (2, 5, 32, False), (3, 2, 16, False), (3, 3, 0, False), (3, 3, 16, False), (4, 2, 16, False),
    (2, 5, 16, True), (3, 3, 16, True),
)  # fmt: skip
"""`eta`, hurdles, and `promoting`'s `reserve` and `anew`."""


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


Replayed = Callable[[Sequence[Curve], BudgetSpec], Replay]


def curves(data: dict[str, Any]) -> list[Curve]:
    """The candidates that completed, in the order in which they ended."""
    return [
        Curve(each["id"], data["points"], each["losses"])
        for each in data["candidates"]
        if each["outcome"] == "completed"
    ]


def replay(order: Iterable[Curve], budget: BudgetSpec, workers: int = WORKERS) -> Replay:
    """Candidates in turn, `workers` at a time; each meets the bars of when it started."""
    hurdles = Hurdles(budget.hurdles_at, POPULATION, budget.rule, budget.eta)
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
        cost += spent(budget.hurdles_at, budget.full, passed) / budget.full
        full += passed == budget.hurdles and not seed
        count += 1
        if best is None or losses[-1] < best[0]:
            best = losses[-1], curve
    assert best is not None
    return Replay(cost / count, best[1].id, best[1].losses[-1], full / (count - 1))


def promoting(
    order: Sequence[Curve], budget: BudgetSpec, reserve: int, anew: bool = False
) -> Replay:
    """The seed program in full, then children that are paused at each hurdle; see above."""
    ends, last = (*budget.hurdles_at, budget.full), budget.hurdles
    rungs, going = Rungs(last, budget.eta, reserve), set[int]()
    reached: dict[int, float] = {0: order[0].losses[-1]}
    running: list[tuple[float, int, int]] = []
    now, cost, full, born = 0.0, 1.0, 0, 1

    while True:
        while len(running) < WORKERS:
            index = rungs.next(born < len(order), going)
            if index is not None:
                going.add(index)
                rung = rungs.hurdle(index) + 1
            elif born < len(order):
                index, rung, born = born, 0, born + 1
            else:
                break
            steps = ends[rung] - (ends[rung - 1] if rung and not anew else 0.0)
            cost += steps / budget.full
            heappush(running, (now + steps, index, rung))
        if not running:
            break
        now, index, rung = heappop(running)
        if rung:
            going.remove(index)
            rungs.leave(index)
        reached[index] = order[index].at(ends[rung]) if rung < last else order[index].losses[-1]
        if rung < last:
            rungs.arrive(index, rung, reached[index])
        full += rung == last
    winner = order[min(reached, key=lambda index: (reached[index], index))]
    share = full / (len(order) - 1)
    return Replay(cost / len(order), winner.id, winner.losses[-1], share)


def budget_of(rule: Rule, eta: int, hurdles: int, full: float) -> BudgetSpec:
    """A budget of that many steps; its base need not be whole here."""
    bands = BudgetSpec(unit="seconds", base=1, hurdles=hurdles, eta=eta, rule=rule).full
    return BudgetSpec(unit="seconds", base=full / bands, hurdles=hurdles, eta=eta, rule=rule)


def judged(found: Sequence[Curve], budget: BudgetSpec, replayed: Replayed) -> dict[str, Any]:
    """One rule in all orders."""
    seed, children = found[0], list(found[1:])
    best, *others = sorted(found, key=lambda curve: curve.losses[-1])[:3]
    near = {best.id, *(curve.id for curve in others)}
    replays = [
        replayed([seed, *Random(number).sample(children, len(children))], budget)
        for number in range(ORDERS)
    ]
    recorded = replayed(found, budget)

    def excess(one: Replay) -> float:
        return (one.loss - best.losses[-1]) / math.log(2)

    return {
        "hurdles": [round(point, 1) for point in budget.hurdles_at],
        "times_fewer_steps": round(1 / fmean(one.cost for one in replays), 2),
        "same_winner_of_5": sum(one.winner == best.id for one in replays[:5]),
        "same_winner": round(fmean(one.winner == best.id for one in replays), 3),
        "one_of_3": round(fmean(one.winner in near for one in replays), 3),
        "excess_bpb": round(fmean(map(excess, replays)), 4),
        "in_full": round(fmean(one.in_full for one in replays), 3),
        "recorded_order": {
            "times_fewer_steps": round(1 / recorded.cost, 2),
            "same_winner": recorded.winner == best.id,
            "excess_bpb": round(excess(recorded), 4),
            "in_full": round(recorded.in_full, 3),
        },
    }


def stopping_rule(found: Sequence[Curve], budget: BudgetSpec) -> dict[str, Any]:
    made = {"rule": budget.rule, "eta": budget.eta, **judged(found, budget, replay)}
    return {**made, "meant": round(budget.full_share, 3)}


def promoting_rule(
    found: Sequence[Curve], budget: BudgetSpec, reserve: int, anew: bool
) -> dict[str, Any]:
    made = judged(found, budget, lambda order, spec: promoting(order, spec, reserve, anew))
    about = {"eta": budget.eta, "reserve": reserve, "from_the_start": anew}
    return {**about, **made, "meant": round(budget.full_share, 3)}


def main() -> None:
    data = json.loads(gzip.decompress(CURVES.read_bytes()))
    found, full = curves(data), data["full"]
    rules = [stopping_rule(found, budget_of(*rule, full)) for rule in RULES]
    promotions = [
        promoting_rule(found, budget_of("top", eta, hurdles, full), reserve, anew)
        for eta, hurdles, reserve, anew in PROMOTIONS
    ]
    made = {"candidates": len(found), "full": full, "rules": rules, "promoting": promotions}
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
