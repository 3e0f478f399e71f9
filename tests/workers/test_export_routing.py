"""Exported programs that route: the same function in evaluation and in training, with losses and
states of their own, which live on without this project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from primitives.graph.build import build
from primitives.kernels.balancing import Run
from primitives.language.dna import DNA, MIDDLE
from primitives.language.text import parse
from primitives.lowering.layer import block_function
from primitives.lowering.weights import weight_specs
from primitives.ops.table import PRIMITIVES
from primitives.programs.seeds import load_seed, seed_names
from tests.reference.random_programs import LARGE_SEEDS, routed_programs
from tests.workers.exports import CHECK, load_module, loss_on_validation, weights_of
from workers.export.code import LINE
from workers.export.export import ExportError, export, export_candidate
from workers.export.source import module_source, names
from workers.model.model import logits, model_layers
from workers.spec.fit import lowering_options
from workers.spec.outcome import Budget
from workers.spec.task import DataSpec, ModelSpec, Task, TrainingSpec

ROUTED_SEEDS = [name for name in seed_names() if load_seed(name).counts and name not in LARGE_SEEDS]
"""All but the one whose weights fill gigabytes."""

SEED = np.zeros(2, "int32")

STATES = parse("""
dims d0=8 d1=2
constants c0=0.01 c1=0.0 c2=0.25
counts n0=4 n1=2

main(x, y):
  gates = router(x)
  fed = expert(x, gates) branch=routed
  others = thresholds(x)
  also = expert(x, others) branch=routed
  both = ADD(fed, also)
  out = ADD(x, both)

router(x, y):
  scores = SCORE(x) count=n0
  small = Z_LOSS(scores) constant=c0
  chances = SIGMOID(small)
  biased = BALANCE_BIAS(chances) constant=c0 count=n1
  chosen = TOP_K(biased) count=n1
  taken = TAKE(chances, chosen)
  out = SWITCH_LOSS(taken, chances) constant=c0

thresholds(x, y):
  scores = FROZEN(x) count=n0
  positive = MAX(scores) constant=c1
  open = THRESHOLD(positive) constant=c2
  gates = MULTIPLY(positive, open)
  steps = STEPS(x)
  aged = C MUL(steps) constant=c0
  factor = EXP(aged)
  grown = MULTIPLY(gates, factor)
  own = SPARSITY_LOSS(grown) constant=c0 count=n1
  out = JOINT_SPARSITY_LOSS(own) constant=c0 count=n1

expert(x, y):
  wide = CONV 1X1(x) dim=d1
  active = MAX(wide) constant=c1
  out = CONV 1X1(active) dim=d0
""")
"""Top 2 of 4 with every kind of state, and most losses."""


SWITCH = parse("""
dims d0=8 d1=2
constants c0=0.01 c1=0.0
counts n0=4 n1=1
every 2

main(x, y):
  gates = router(x)
  fed = expert(x, gates) branch=routed
  out = ADD(x, fed)

router(x, y):
  scores = SCORE(x) count=n0
  powers = EXP(scores)
  total = RED SUM(powers)
  chances = DIVIDE(powers, total)
  chosen = TOP_K(chances) count=n1
  out = SWITCH_LOSS(chosen, chances) constant=c0

expert(x, y):
  wide = CONV 1X1(x) dim=d1
  active = MAX(wide) constant=c1
  out = CONV 1X1(active) dim=d0
""")
DENSE = """
dims d0=8 d1=2
constants c0=0.0

main(x, y):
  wide = CONV 3X1(x) dim=d1
  active = MAX(wide) constant=c0
  narrow = CONV 1X1(active) dim=d0
  out = ADD(x, narrow)
"""


def task(layers: int = 1, other: str = "transformer", **training: Any) -> Task:
    return Task(
        data=DataSpec(max_documents=20),
        model=ModelSpec(d_model=16, layers=layers, sequence_length=12, other=other),
        training=TrainingSpec(batch_size=4, **training),
    )


CASES: dict[str, tuple[DNA, Task]] = {
    "states": (STATES, task()),
    "alternating": (SWITCH, task(2, DENSE, capacity_factor=1.0, routing="blocks")),
    "hash-layer": (load_seed("hash_layer"), task()),
    "peer": (replace(load_seed("peer"), every=MIDDLE), task(layers=2, routing="entries")),
    "noisy": (load_seed("noisy_top_k"), task()),
    "masked": (load_seed("expert_choice"), task(objective="masked")),
}
"""What is exported whole, and checked where the project is not installed."""


@dataclass(frozen=True)
class Exported:
    folder: Path
    dna: DNA
    task: Task
    weights: dict[str, np.ndarray]

    @property
    def source(self) -> str:
        (module,) = self.folder.glob("*_block.py")
        return module.read_text()


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> list[Exported]:
    root = tmp_path_factory.mktemp("routed")
    return [exported(root / name, dna, it) for name, (dna, it) in CASES.items()]


def exported(folder: Path, dna: DNA, it: Task) -> Exported:
    weights = weights_of(dna, it.model, 256 + (it.training.objective == "masked"))
    export(dna, folder, task=it, weights=weights, card={"program": folder.name})
    return Exported(folder, dna, it, weights)


@pytest.mark.slow
def test_lives_on_where_primevo_is_not_installed(exports: list[Exported], tmp_path: Path) -> None:
    for made in exports:
        np.savez(f"{made.folder}.npz", **expected(made))
    result = subprocess.run(
        [sys.executable, "-I", str(CHECK), *(str(made.folder) for made in exports)],
        cwd=tmp_path, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    for made in exports:
        assert f"{made.folder.name}: equal, trains, saves" in result.stdout
    assert result.stdout.endswith("states: runs\nmasked: runs\n")


def expected(made: Exported) -> dict[str, Any]:
    """What `check_export` wants to know of a program. Noise differs from run to run."""
    layers, weights = (
        model_layers(build(made.dna, bidirectional=True), made.task),
        list(made.weights.values()),
    )
    tokens = np.random.default_rng(0).integers(0, 256, (3, 12), "int32")
    found = {"tokens": tokens, "logits": logits(layers, weights, tokens, False, SEED)[0]}
    found["causal"] = made.task.training.objective == "next_token"
    found["noisy"] = "self.seeds" in made.source
    found["fit"] = {"states": "xla", "alternating": "graph"}.get(made.folder.name, "eager")
    if not found["noisy"]:
        found["training"], left = logits(layers, weights, tokens, True, SEED)
        found["losses"] = np.float32(sum(map(float, left.losses)))
        places = list(made.weights)
        found |= {f"state/{places[place]}": value for place, value in left.updates.items()}
    return found


def test_all_that_a_pass_leaves_is_among_them(exports: list[Exported]) -> None:
    for what in ("training", "tokens", "seed", "losses", "updates"):
        assert any(f"run.{what}" in made.source for made in exports), what
    states = {name for name, row in PRIMITIVES.items() if row.weight and not row.weight.trainable}
    assert states <= build(STATES).ops


def block_source(dna: DNA, it: Task, name: str = "it") -> str:
    facts = {"Program": "a program"}
    return module_source(dna, build(dna, bidirectional=True), it, 256, names(name), facts)


def telling_seeds() -> list[str]:
    """Routed seed programs that together have every operation that any of them has."""
    ops = {name: build(load_seed(name), bidirectional=True).ops for name in ROUTED_SEEDS}
    chosen, left = [], set().union(*ops.values())
    while left:
        best = max(ops, key=lambda name: len(ops[name] & left))
        chosen.append(best)
        left -= ops[best]
    return chosen


def test_seed_programs_are_the_same_function(tmp_path: Path) -> None:
    for name in telling_seeds():
        it = task(capacity_factor=1.25, objective="masked")
        same_function(load_seed(name), it, tmp_path / f"{name}.py")
    is_clean(tmp_path)


def test_random_programs_are_the_same_function(tmp_path: Path) -> None:
    for number, dna in enumerate(routed_programs(8, seed=5)):
        same_function(dna, task(), tmp_path / f"program_{number}.py")
    is_clean(tmp_path)


def same_function(dna: DNA, it: Task, file: Path) -> None:
    """The layer alone, without noise: its output, losses and states, in evaluation and training."""
    file.write_text(block_source(dna, it))
    layer = load_module(file.read_text()).ItBlock()
    x = np.random.default_rng(1).standard_normal((3, 12, 16)).astype(np.float32)
    tokens = np.random.default_rng(2).integers(0, 256, (3, 12), "int32")
    layer.build(x.shape)
    weights = named(layer, dna)
    values = [np.asarray(weight) for weight in weights.values()]
    block = block_function(build(dna, bidirectional=True), 16, lowering_options(it))
    for training in (False, *[True] * (not hasattr(layer, "seeds"))):
        given = {"tokens": tokens, "training": training}
        own = signature(layer.call).parameters.keys() & given.keys()
        arguments = {name: given[name] for name in own}
        run = Run(training, tokens, 0)
        wanted = np.asarray(block(x, values, run))
        found = np.asarray(layer(x, **arguments))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5, equal_nan=True)
        np.testing.assert_allclose(layer.losses, [float(loss) for loss in run.losses], rtol=1e-5)
        for name, value in run.updates.items():
            np.testing.assert_allclose(np.asarray(weights[name]), np.asarray(value), rtol=1e-5)


def named(layer: Any, dna: DNA) -> dict[str, Any]:
    """The layer's weights in the program's order, which Keras does not keep."""
    specs = weight_specs(build(dna, bidirectional=True), 16)
    found = {weight.name: weight for weight in layer.weights}
    assert [found[spec.name].trainable for spec in specs] == [spec.trainable for spec in specs]
    return {spec.name: found[spec.name] for spec in specs}


def is_clean(folder: Path) -> None:
    rules = ["--isolated", "--no-cache", "--line-length", str(LINE), "--target-version", "py311"]
    for command in (["check", "--select", "E,F,I,B,UP,SIM,RUF,C4"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", command[0], *rules, *command[1:], "."]
        result = subprocess.run(ruff, cwd=folder, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def test_generated_folders_are_clean(exports: list[Exported]) -> None:
    for made in exports:
        is_clean(made.folder)


def test_blocks_alternate_as_in_the_search(exports: list[Exported]) -> None:
    found = {made.folder.name: load_module(made.source) for made in exports}
    for name, layers, own in (
        ("alternating", 2, [1]),
        ("alternating", 5, [1, 3]),
        ("peer", 5, [2]),
    ):
        blocks = found[name].build_model(layers=layers).blocks
        kinds = [type(block).__name__ for block in blocks]
        block = names(name).block
        assert kinds == [block if i in own else "OtherBlock" for i in range(layers)]


def test_both_programs_are_in_the_comment(exports: list[Exported]) -> None:
    made = exports[1]
    comment = made.source.partition("# The program that this module was generated from")[2]
    own, other = comment.split("# The program of the other blocks.")
    texts = ["\n".join(line[2:] for line in part.splitlines()[1:]) for part in (own, other)]
    assert build(parse(texts[0]), True).hash == build(made.dna, True).hash
    assert build(parse(texts[1])).hash == build(parse(DENSE)).hash


def test_users_are_told_what_a_layer_needs(exports: list[Exported]) -> None:
    readme = {made.folder.name: words(made.folder / "README.md") for made in exports}
    module = {made.folder.name: " ".join(made.source.split()) for made in exports}
    for name, text in (
        ("hash-layer", "It routes by token ids: call it with tokens=[batch, T]."),
        ("alternating", "an expert has room for 1 times its even share"),
        ("states", "Training adds auxiliary losses by `add_loss`."),
        ("states", "Training moves its states, which no gradient reaches:"),
        ("states", "`router_biased_balance_bias`"),
        ("noisy", "Training draws random numbers."),
    ):
        assert text in readme[name] and text in module[name]
    assert "causal" in readme["noisy"] and "causal" not in readme["masked"]
    assert "up to t of the input alone" in module["noisy"]
    assert "up to t of the input alone" not in module["masked"]


@pytest.mark.parametrize("dna", [STATES, SWITCH], ids=["states", "switch"])
def test_a_trained_program_keeps_its_score_and_its_states(
    tiny_task: Task, tmp_path: Path, dna: DNA
) -> None:
    it = tiny_task.model_copy(update={"model": ModelSpec(d_model=16, layers=2, sequence_length=16)})
    export_candidate(
        dna, tmp_path / "it", task=it, budget=Budget("steps", 8), seed=5, card={"program": "it"}
    )
    card = json.loads((tmp_path / "it" / "card.json").read_text())
    model = load_module((tmp_path / "it" / "it_block.py").read_text()).build_model()
    model.load_weights(tmp_path / "it" / "model.weights.h5")
    assert loss_on_validation(model, it) == pytest.approx(card["weights"]["val_loss"], abs=1e-4)
    if dna is STATES:
        assert all(np.any(np.asarray(state)) for state in model.non_trainable_weights)


def test_a_masked_programs_card_has_the_score_of_its_hidden_tokens(tmp_path: Path) -> None:
    """On the positions that a candidate is scored on, and no others."""
    it = task(objective="masked", eval_batches=2)
    export_candidate(
        load_seed("transformer"), tmp_path / "it", task=it, budget=Budget("steps", 8), seed=5,
        card={"program": "it"},
    )  # fmt: skip
    card = json.loads((tmp_path / "it" / "card.json").read_text())
    for name in ("val_loss", "val_bpb", "test_loss", "test_bpb"):
        assert card["exported"][name] == pytest.approx(card["weights"][name], rel=0.02)


def words(file: Path) -> str:
    return " ".join(file.read_text().split())


def test_a_layer_says_what_only_its_model_trains_for() -> None:
    source = " ".join(block_source(load_seed("reinforce_baseline"), task()).split())
    assert "(REINFORCE and BASELINE), which takes a trainer that knows the tokens' losses" in source
    source = " ".join(block_source(load_seed("thor"), task()).split())
    assert "`LanguageModel.fit` does it, other trainers pass once" in source


def test_a_decoder_exports_nothing_that_sees_the_future(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"does not type-check in this task: .* reads the future"):
        export(
            load_seed("expert_choice"), tmp_path / "it", task=task(), weights={},
            card={"program": "it"},
        )  # fmt: skip


def test_a_layer_that_routes_by_tokens_says_that_it_has_none() -> None:
    layer = load_module(block_source(load_seed("hash_layer"), task())).ItBlock()
    with pytest.raises(ValueError, match="call it with tokens="):
        layer(np.zeros((1, 4, 16), np.float32))
