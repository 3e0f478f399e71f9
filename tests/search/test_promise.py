"""The promise of hurdles in a search that gets better: children take after their parents."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from search.campaign.controller import Controller
from search.campaign.progress import Progress
from search.config.schema import BudgetSpec, FinalSpec
from search.evolution.hurdles import Rule
from search.storage.store import Store
from tests.search.instant import InstantEvaluator, launch
from workers.spec.outcome import Job, Measurement, Outcome


def heritable(job: Job) -> Outcome:
    """A loss that falls with each RED of the program, which insertion adds and children keep, and a
    little noise; hurdles see it with more noise. Nothing diverges."""
    rng = Random(job.dna)
    quality = 3.0 - 0.1 * job.dna.count("RED ") + rng.gauss(0, 0.02)
    curve: list[Measurement] = []
    passed = 0
    for index, hurdle in enumerate(job.budget.hurdles):
        loss = quality + 1.0 / (1 + index) + rng.gauss(0, 0.05)
        curve.append(Measurement(int(hurdle.at), 1, 1.0, loss))
        if hurdle.threshold is not None and loss > hurdle.threshold:
            break
        if job.pause is not None and job.pause.hurdle == index:
            break
        passed += 1
    else:
        curve.append(Measurement(int(job.budget.amount), 1, 1.0, quality))
    last = curve[-1]
    return Outcome(
        "completed", val_loss=last.val_loss, steps=last.steps, step_time_s=0.01,
        hurdles_passed=passed, curve=tuple(curve),
    )  # fmt: skip


def searched(folder: Path, rule: Rule, eta: int, behaviour: bool = True) -> Progress:
    budget = BudgetSpec(unit="steps", base=20, hurdles=2, rule=rule, eta=eta)
    with Store.open(f"sqlite:///{folder}/primevo.db") as store:
        campaign = launch(
            store, candidates=400, population=40, tournament=10, budget=budget,
            final=FinalSpec(top=0), behaviour=behaviour,
        )  # fmt: skip
        return Controller(store, campaign, InstantEvaluator(8, heritable)).run()


def shares(shown: Progress) -> list[float]:
    return [on / there for on, there in zip(shown.went_on, shown.reached, strict=True)]


@pytest.mark.parametrize(("eta", "first", "last", "full"), [(2, 1.3, 1.3, 1.6), (4, 1.6, 1.5, 2.1)])
def test_the_top_share_is_nearly_kept(
    tmp_path: Path, eta: int, first: float, last: float, full: float
) -> None:
    """Shares over what is meant. Bars that only asked for the top 1/eta of all that came would let
    1.8 times as many go on at each of the hurdles with eta 2, and 3 times with eta 4."""
    shown = searched(tmp_path, "top", eta)
    assert shown.best is not None and shown.seed is not None
    assert shown.best.fitness < shown.seed.fitness - 0.4, "the search must get better"
    at_first, at_last = shares(shown)
    assert 0.85 < eta * at_first < first and 0.85 < eta * at_last < last
    assert shown.in_full is not None and shown.in_full[0] < full * shown.in_full[1]


def test_a_median_lets_too_many_on(tmp_path: Path) -> None:
    """What the rule of earlier versions does in the same search, so that the test above means
    something."""
    shown = searched(tmp_path, "median", 2, behaviour=False)
    assert shown.in_full is not None and shown.in_full[0] > 2.2 * shown.in_full[1]


def test_promotion_keeps_the_share_exactly(tmp_path: Path) -> None:
    """The search gets better, though less so than with bars: docs/budgets.md."""
    shown = searched(tmp_path, "promote", 2)
    assert shown.went_on == tuple(reached // 2 for reached in shown.reached)
    assert shown.best is not None and shown.seed is not None
    assert shown.best.fitness < shown.seed.fitness - 0.4, "the search must get better"
