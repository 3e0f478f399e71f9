"""An evaluator that answers at once by a rule which the tests know, and campaigns to look at.

A program's final validation loss is 4, less 0.3 if it squares anything, plus 0.2 if it has a sine;
nothing else counts. Noise that a seed brings is the same for all programs, but for a thousandth.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

from primitives.graph.build import Graph, build
from primitives.language.dna import DNA
from primitives.language.text import parse, render
from search.config.schema import BudgetSpec, CampaignConfig, FinalSpec, SearchSpec
from search.storage.entries import NewCandidate
from search.storage.events import Proposed
from search.storage.store import CampaignRow, Store
from search.study.setting import Setting, setting
from search.study.study import Study
from tests.search.instant import InstantEvaluator
from workers.spec.outcome import Job, Measurement, Outcome
from workers.spec.task import ModelSpec, Task

START = 6.0
"""The loss before training; it falls in a straight line."""

SEED = """
dims d0=8 d1=32
constants c0=0.0 c1=1.0

main(x, y):
  fed = feed(x)
  out = ADD(x, fed)
feed(x, y):
  wide = CONV 1X1(x) dim=d1
  act = MAX(wide) constant=c0
  narrow = CONV 1X1(act) dim=d0
"""
SQUARED = SEED.replace(
    "  narrow = CONV 1X1(act)", "  square = SQUARE(act)\n  narrow = CONV 1X1(square)"
)
NEUTRAL = SQUARED.replace("(square)", "(tanh)").replace(
    "  narrow", "  tanh = TANH(square)\n  narrow"
)
SINE = NEUTRAL.replace("  out = ADD(x, fed)", "  sin = SIN(x)\n  out = ADD(sin, fed)")
CHANGED = SINE.replace("SQUARE(act)", "SQUARE(wide)")


def graph_of(dna: DNA) -> Graph:
    graph = build(dna)
    assert isinstance(graph, Graph)
    return graph


def final_loss(dna: DNA, seed: int, noise: float = 1.0) -> float:
    graph = graph_of(dna)
    shared = zlib.crc32(str(seed).encode()) % 1000 / 5000
    own = zlib.crc32(f"{seed}/{graph.hash}".encode()) % 1000 / 1e6
    return 4.0 - 0.3 * ("SQUARE" in graph.ops) + 0.2 * ("SIN" in graph.ops) + noise * (shared + own)


def answer(job: Job, noise: float = 1.0) -> Outcome:
    """The rule as an outcome: the loss falls from START in a straight line, a step is 10 ms."""
    dna = parse(job.dna)
    final = final_loss(dna, job.seed, noise)
    places = [*job.budget.points, job.budget.amount]
    curve = tuple(
        Measurement(
            int(at), int(at) * 512, at / 100, START + (final - START) * at / job.budget.amount
        )
        for at in places
    )
    return Outcome(
        "completed", val_loss=final, val_bpb=final * 1.4427, test_loss=final + 0.01,
        test_bpb=(final + 0.01) * 1.4427, params=1000, flops_per_token=100, step_time_s=0.01,
        steps=curve[-1].steps, tokens=curve[-1].tokens, train_seconds=curve[-1].train_seconds,
        curve=curve,
    )  # fmt: skip


def exact(job: Job) -> Outcome:
    """The rule without noise."""
    return answer(job, 0.0)


def small_config(seeds: int = 3) -> CampaignConfig:
    budget = BudgetSpec(unit="steps", base=100.0)
    final = FinalSpec(top=1, seeds=seeds)
    return CampaignConfig(
        task=Task(model=ModelSpec(d_model=64, layers=1)),
        search=SearchSpec(
            population=4, tournament=2, candidates=9, budget=budget, final=final
        ),
    )  # fmt: skip


def study(
    store: Store | None,
    rule: Callable[[Job], Outcome] = answer,
    capacity: int = 3,
    shared: Setting | None = None,
) -> tuple[Study, InstantEvaluator]:
    """A study on instant workers, and those."""
    evaluator = InstantEvaluator(capacity, rule)
    made = Study("test", shared or setting(small_config(), 3), lambda: evaluator, store)
    return made, evaluator


def campaign_of(
    store: Store, texts: Sequence[str], name: str = "known", config: CampaignConfig | None = None
) -> CampaignRow:
    """A campaign that holds a lineage: each program the child of the one before."""
    row = store.create_campaign(name, (config or small_config()).model_dump_json(), 0)
    entries = []
    for number, text in enumerate(texts, 1):
        dna = parse(text, d_model=64)
        parent = number - 1 or None
        event = Proposed(
            number, parent, "insert" if parent else "seed", graph_of(dna).hash, None, {}
        )
        entries.append(NewCandidate(event, render(dna)))
    store.record(row.id, entries)
    return row
