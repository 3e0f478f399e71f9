"""Sizes that no worker can hold are told before a campaign is launched, and children of such sizes
are turned away; nothing that trains is."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from primitives.graph.build import Graph
from primitives.programs.seeds import load_seed, seed_names
from search.api.campaign import Campaign
from search.campaign.controller import Controller
from search.campaign.gates import Child, Limits, Parent, Passed, Rejected, Rules, memory
from search.campaign.history import State
from search.campaign.replay import replay
from search.config import memory as config_memory
from search.config.memory import with_memory_limit
from search.config.schema import CampaignConfig, LimitsSpec
from search.errors import UsageError
from search.storage.store import Store
from tests.reference.seeds import objective_of
from tests.search.instant import InstantEvaluator, make_config
from workers.machine import devices
from workers.spec import room as room_module
from workers.spec.fit import task_graph
from workers.spec.footprint import MB, SLOTS, footprint
from workers.spec.pool import PoolSpec
from workers.spec.room import Room, room
from workers.spec.task import ModelSpec, OptimizerSpec, Task, TrainingSpec


def sized(d_model: int = 64, layers: int = 2, length: int = 64, **training: Any) -> Task:
    return Task(
        model=ModelSpec(d_model=d_model, layers=layers, sequence_length=length),
        training=TrainingSpec(**training),
    )


def estimate(task: Task, name: str = "transformer") -> dict[str, float]:
    graph = task_graph(load_seed(name, task.model.d_model), task)
    assert isinstance(graph, Graph)
    found = footprint(graph, task, 256)
    assert 0 < found.least <= found.total
    return {term.name: term.bytes for term in found.terms}


def test_the_terms_by_hand() -> None:
    """Parameters of a vanilla block of d channels: 4 d^2 in attention, 8 d^2 in the feed-forward,
    two norms; around the blocks the embedding, the positions and a norm."""
    d, layers, length, batch = 64, 2, 64, 8
    made = estimate(sized(d, layers, length, batch_size=batch))
    weights = 4 * (layers * (12 * d * d + 4 * d) + (256 + length + 2) * d)
    assert made["parameters"] == made["gradients"] == weights
    assert made["optimiser states"] == 2 * weights
    assert made["logits"] == 2 * 4 * batch * length * 256
    scores = 4 * batch * length * layers * 8 * length  # one map of attention of 8 heads
    assert 3 * scores < made["activations"] < 20 * scores


@pytest.mark.parametrize("name", seed_names())
def test_terms_grow_as_the_sizes_do(name: str) -> None:
    objective = objective_of(name)
    small = estimate(sized(batch_size=8, objective=objective), name)
    wide = estimate(sized(batch_size=16, objective=objective), name)
    assert wide["activations"] == pytest.approx(2 * small["activations"], rel=0.3)
    assert wide["parameters"] == small["parameters"]
    deep = estimate(sized(layers=4, batch_size=8, objective=objective), name)
    factor = 1.0 if load_seed(name, 64).every == 0 else 1.8  # one layer in the middle runs it
    assert deep["activations"] > factor * small["activations"]


def test_activations_of_a_larger_vocabulary_are_logits_alone() -> None:
    task = sized()
    graph = task_graph(load_seed("transformer", 64), task)
    assert isinstance(graph, Graph)
    few, many = (footprint(graph, task, vocabulary).terms for vocabulary in (256, 4096))
    for one, other in zip(few, many, strict=True):
        if one.name == "activations":
            assert other.bytes == one.bytes
        else:
            assert other.bytes > one.bytes


def test_adafactor_has_no_moments() -> None:
    task = sized().model_copy(update={"optimizer": OptimizerSpec(name="adafactor")})
    assert estimate(task)["optimiser states"] == 0
    assert set(SLOTS) == {"adamw", "adafactor"}


@pytest.mark.parametrize(
    ("spec", "gpus", "mb", "meaning"),
    [
        (PoolSpec(count=2), 0, 12_000, "shared by 2 workers"),
        (PoolSpec(count=1), 0, 24_000, "this machine's memory"),
        (PoolSpec(), 1, 80_000, "a GPU's memory"),
        (PoolSpec(gpus_per_worker=0.25), 1, 20_000, "shared by 4 workers"),
        (PoolSpec(memory_limit_mb=5000), 1, 5000, "workers.memory_limit_mb"),
        (PoolSpec(count=9), 1, None, ""),
    ],
)
def test_the_room_of_a_worker(
    monkeypatch: pytest.MonkeyPatch, spec: PoolSpec, gpus: int, mb: float | None, meaning: str
) -> None:
    monkeypatch.setattr(room_module, "gpu_count", lambda: gpus)
    monkeypatch.setattr(room_module, "cpu_count", lambda: 2)
    monkeypatch.setattr(room_module, "gpu_memory_mb", lambda: 80_000)
    monkeypatch.setattr(room_module, "total_mb", lambda: 24_000)
    found = room(spec)
    assert (found and found.mb) == mb
    assert found is None or meaning in found.meaning


def test_a_gpu_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*arguments: object, **options: object) -> object:
        raise subprocess.TimeoutExpired("nvidia-smi", 30)

    monkeypatch.setattr(devices.subprocess, "run", silent)
    monkeypatch.setattr(room_module, "gpu_count", lambda: 1)
    assert room(PoolSpec()) is None


def config_of(task: Task, address: str | None = None, **limits: Any) -> CampaignConfig:
    made = make_config(limits=LimitsSpec(**limits))
    workers = PoolSpec(count=2, address=address)
    return made.model_copy(update={"task": task, "workers": workers})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker has 12,000 MB."""
    monkeypatch.setattr(config_memory, "room", lambda spec: Room(12_000, "a machine, shared"))


def test_what_fits_is_given_the_machines_limit(machine: None) -> None:
    checked, warnings = with_memory_limit(config_of(sized()))
    assert (checked.search.limits.memory_mb, warnings) == (12_000, [])
    again, _ = with_memory_limit(config_of(sized(), memory_mb=777.0))
    assert again.search.limits.memory_mb == 777


@pytest.mark.parametrize(
    ("task", "term", "fix"),
    [
        (sized(d_model=65_536, layers=10), "optimiser states", "task.optimizer.name to adafactor"),
        (sized(length=1 << 14, batch_size=512), "activations", "lower task.training.batch_size"),
        (sized(d_model=8, layers=1, length=2, batch_size=1 << 16), "", ""),
    ],
)
def test_what_cannot_fit_is_refused(machine: None, task: Task, term: str, fix: str) -> None:
    if not term:
        assert with_memory_limit(config_of(task))[1] == []
        return
    with pytest.raises(UsageError, match=rf"'transformer' cannot be trained.*{term}.*{fix}"):
        with_memory_limit(config_of(task))
    with pytest.raises(UsageError, match=r"a worker has 12,000 MB \(a machine, shared\)"):
        with_memory_limit(config_of(task))


def test_what_may_not_fit_is_a_warning(machine: None) -> None:
    task = sized(d_model=256, layers=6, length=512, batch_size=64)
    _, (warning,) = with_memory_limit(config_of(task))
    assert "may run out of memory" in warning and "activations" in warning


def test_of_a_cluster_this_machine_says_little(machine: None) -> None:
    task = sized(d_model=65_536, layers=10)
    checked, (warning,) = with_memory_limit(config_of(task, address="auto"))
    assert checked.search.limits.memory_mb is None
    assert "the cluster's machines may have more" in warning
    with pytest.raises(UsageError, match=r"search\.limits\.memory_mb"):
        with_memory_limit(config_of(task, address="auto", memory_mb=5000.0))


def test_a_launched_campaign_is_the_configs_own(tmp_path: Path, machine: None) -> None:
    """The limit that `launch` keeps is no other config for `Campaign(config)`."""
    config = config_of(sized())
    url = f"sqlite:///{tmp_path}/a.db"
    with Store.open(url) as store:
        store.create_campaign("a", with_memory_limit(config)[0].model_dump_json(), config.seed)
    Campaign(config, url, "a").close()
    with pytest.raises(UsageError, match="another config"):
        Campaign(config_of(sized(), memory_mb=5.0), url, "a")
    with pytest.raises(UsageError, match="another config"):
        Campaign(config_of(sized(layers=3)), url, "a")


def test_the_gate() -> None:
    task, dna = sized(), load_seed("transformer", 64)
    child = Child(dna, Parent(dna, "h"), task)
    need = footprint(child.graph, task, 256).least
    rules = Rules(Limits(120, max_memory=need), task, State(make_config().search))
    assert isinstance(memory(child, rules), Passed)
    tight = replace(rules, limits=Limits(120, max_memory=need - 1))
    assert memory(child, tight) == Rejected("too much memory")
    assert Limits.relative_to(child.cost, LimitsSpec(memory_mb=2.0)).max_memory == 2 * MB
    assert Limits.relative_to(child.cost, LimitsSpec()).max_memory == float("inf")


def test_a_campaign_under_the_gate_is_the_same_again(tmp_path: Path) -> None:
    """The limit is the config's, not the machine's: a replay elsewhere has it, too."""
    made = make_config(candidates=40, mutations={"bank": 1.0, "insert": 1.0})
    graph = task_graph(load_seed("transformer", made.task.model.d_model), made.task)
    assert isinstance(graph, Graph)
    need = footprint(graph, made.task, 256).least / MB
    limits = LimitsSpec(parameters_max=None, memory_mb=1.1 * need)
    search = made.search.model_copy(update={"limits": limits})
    config = made.model_copy(update={"search": search})
    with Store.open(f"sqlite:///{tmp_path}/a.db") as store:
        campaign = store.create_campaign("test", config.model_dump_json(), 1)
        shown = Controller(store, campaign, InstantEvaluator(2)).run()
        assert shown.rejected["too much memory"] > 5
        assert replay(store, "test").difference is None


def test_random_sizes_are_counted_without_an_error() -> None:
    rng = Random(1)
    for _ in range(60):
        task = sized(
            8 * rng.randrange(1, 8192), rng.randrange(1, 1000), rng.randrange(2, 1 << 20),
            batch_size=rng.randrange(1, 1 << 16),
        )  # fmt: skip
        assert estimate(task, rng.choice(("transformer", "switch", "peer")))["activations"] > 0
