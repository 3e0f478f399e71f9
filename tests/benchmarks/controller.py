"""How fast the search runs without its workers: python -m tests.benchmarks.controller

Prints one JSON object.

mutate_check_hash_per_s: children made by `mutate` and checked and hashed by `build`, on one core,
    from programs of about 60 instructions. Every child counts once, whether it is well typed (its
    graph is canonicalised and hashed) or not (`build` stops at the first type error);
    `well_typed_fraction` says how many were. Twenty programs are grown from the transformer seed by
    well-typed insertions up to 60 instructions; from each, a random walk takes well-typed children
    of 55 to 65 instructions as its next program, and starts again from the grown program after 50
    of them, so that it does not drift into dead code. `live_nodes` is the mean size of the graphs.
controller_steps_per_s: candidates of a campaign that are proposed, gated, recorded and dispatched,
    and whose outcome is recorded, on a SQLite file, one worker that answers at once; the whole run
    of the controller is timed, heartbeats included. One commit a step; a duplicate is recorded
    together with the next candidate that is trained (`commits_per_s`). Without the gates
    that run programs; `steps_with_behaviour_per_s` is with the one on behaviour, and
    `steps_with_divergence_per_s` with the one on divergence, too.
replay_100k_s: seconds to open a database with a campaign of 100,000 candidates and fold it back
    into the controller's state, with the programs of its population parsed.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterator

from primitives.graph.build import Graph, build
from primitives.language.dna import DNA
from primitives.language.text import parse, render
from primitives.programs.seeds import load_seed
from search.campaign.controller import Controller
from search.campaign.history import fold
from search.config.schema import BudgetSpec, CampaignConfig, FinalSpec, SearchSpec
from search.evolution.mutation import mutate
from search.storage.entries import Entry, NewCandidate, NewEvaluation
from search.storage.events import Ended, Proposed
from search.storage.store import CampaignRow, Store
from tests.search.instant import InstantEvaluator, outcome_of
from workers.spec.outcome import Budget, Job

LENGTH = 60
WALKS = 20
CHILDREN = 500
STEPS = 3000
REPLAYED = 100_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        results = {
            **mutate_check_hash(),
            **controller_steps(f"sqlite:///{folder}/steps.db"),
            **steps_with(f"sqlite:///{folder}/behaviour.db", "behaviour"),
            **steps_with(f"sqlite:///{folder}/divergence.db", "divergence"),
            **replay(f"sqlite:///{folder}/replay.db"),
        }
    print(json.dumps({name: round(value, 3) for name, value in results.items()}))


def mutate_check_hash() -> dict[str, float]:
    rng = random.Random(0)
    starts = [grown(rng) for _ in range(WALKS)]
    seconds, checked, well_typed, nodes = 0.0, 0, 0, 0
    for start in starts:
        current, taken = start, 0
        for _ in range(CHILDREN):
            began = time.perf_counter()
            child, _ = mutate(current, rng)
            built = build(child)
            seconds += time.perf_counter() - began
            checked += 1
            if isinstance(built, Graph):
                well_typed += 1
                nodes += len(built.nodes)
                if LENGTH - 5 <= child.length <= LENGTH + 5:
                    taken += 1
                    current = start if taken % 50 == 0 else child
    return {
        "mutate_check_hash_per_s": checked / seconds,
        "well_typed_fraction": well_typed / checked,
        "live_nodes": nodes / well_typed,
    }


def grown(rng: random.Random) -> DNA:
    """The transformer seed after well-typed insertions, LENGTH instructions long."""
    dna = load_seed("transformer")
    while dna.length < LENGTH:
        child, _ = mutate(dna, rng, {"insert": 1.0})
        if isinstance(build(child), Graph):
            dna = child
    return dna


def campaign(
    store: Store, candidates: int, behaviour: bool = False, divergence: bool = False
) -> CampaignRow:
    config = CampaignConfig(
        search=SearchSpec(
            candidates=candidates,
            behaviour=behaviour,
            divergence=divergence,
            budget=BudgetSpec(unit="steps", base=25.0, hurdles=2),
            final=FinalSpec(top=0),
        )
    )
    return store.create_campaign("benchmark", config.model_dump_json(), seed=0)


def controller_steps(url: str) -> dict[str, float]:
    with Store.open(url) as store:
        row = campaign(store, STEPS)
        evaluator = InstantEvaluator()
        began = time.perf_counter()
        progress = Controller(store, row, evaluator).run()
        seconds = time.perf_counter() - began
    return {
        "controller_steps_per_s": STEPS / seconds,
        "commits_per_s": len(evaluator.submitted) / seconds,
        "rejected_per_step": sum(progress.rejected.values()) / STEPS,
    }


def steps_with(url: str, last: str) -> dict[str, float]:
    """With the gates that run programs, up to the `last` one."""
    with Store.open(url) as store:
        row = campaign(store, STEPS, behaviour=True, divergence=last == "divergence")
        began = time.perf_counter()
        Controller(store, row, InstantEvaluator()).run()
        return {f"steps_with_{last}_per_s": STEPS / (time.perf_counter() - began)}


def replay(url: str) -> dict[str, float]:
    with Store.open(url) as store:
        row = campaign(store, REPLAYED)
        store.record(row.id, history(REPLAYED))
    spec = CampaignConfig.model_validate_json(row.config).search
    began = time.perf_counter()
    with Store.open(url) as store:
        state = fold(spec, store.events(row.id))
        for member in state.population:
            parse(store.dna(row.id, member.id))
    seconds = time.perf_counter() - began
    assert len(state.results) == REPLAYED and state.searched
    return {"replay_100k_s": seconds}


def history(candidates: int) -> Iterator[Entry]:
    """A campaign as a controller with one worker records it; all programs read the same."""
    text = render(load_seed("transformer"))
    budget = Budget("steps", 175.0)
    for number in range(1, candidates + 1):
        parent = number // 2 or None
        rejections = {"feature axes differ": 2} if number % 3 == 0 else {}
        event = Proposed(number, parent, "insert", f"{number:032x}", None, rejections)
        yield NewCandidate(event, text)
        outcome = outcome_of(Job(number, text, budget, number))
        end = Ended.of(number, number, "search", number, outcome)
        yield NewEvaluation(end, budget, outcome, "instant/1")


if __name__ == "__main__":
    main()
