"""A package that adds one row of each kind, from its config to an export that stands alone."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from primitives.language.text import parse
from primitives.ops.table import PRIMITIVES
from search.evolution.mutation import MUTATIONS
from tests.plugins.conftest import EXAMPLE
from workers.data.corpora import CORPORA
from workers.plugins import load
from workers.spec.metrics import METRICS
from workers.spec.objectives import OBJECTIVES

ROOT = Path(__file__).parents[2]

PROGRAM = """\
# A feed-forward with a smooth activation, and a token that sees the one before it.
dims d0=8 d1=16
constants c0=0.0

main(x, y):
  before = DCONV 3X1(x)
  wide = CONV 1X1(before) dim=d1
  active = SOFTPLUS(wide)
  narrow = CONV 1X1(active) dim=d0
  out = ADD(x, narrow)
"""

CONFIG = """\
plugins: [primevo_example]
task:
  data: {source: counting, options: {documents: 30}}
  model: {d_model: 16, layers: 1, sequence_length: 16}
  training: {objective: two_ahead, batch_size: 4, eval_batches: 2}
search:
  seeds: [smooth.dna]
  population: 4
  tournament: 2
  candidates: 5
  mutations: {fold: 1, insert: 1}
  budget: {unit: steps, base: 4, hurdles: 1}
  limits: {parameters_min: null, parameters_max: null}
  final: {top: 1, seeds: 1}
workers: {count: 1, cpus_per_worker: 1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "smooth.dna").write_text(PROGRAM)
    (tmp_path / "campaign.yaml").write_text(CONFIG)
    return tmp_path


def primevo(folder: Path, *arguments: object) -> str:
    """A command of its own process: the plug-in is on its search path alone."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{EXAMPLE}"}
    environment.pop("PRIMEVO_STORAGE", None)
    run = subprocess.run(
        [sys.executable, "-m", "search.cli", *map(str, arguments)],
        cwd=folder, env=environment, text=True, capture_output=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return run.stdout


def test_one_row_of_each_kind(example: None) -> None:
    [plugin] = load(["primevo_example"])
    assert plugin.version == "0.3"
    assert "counting" in CORPORA
    assert "loss_drop" in METRICS
    assert "fold" in MUTATIONS
    assert "two_ahead" in OBJECTIVES
    assert "SOFTPLUS" in PRIMITIVES


def test_the_primitive_is_the_function_that_it_is_named_after(example: None) -> None:
    """Values and gradients against TensorFlow's own."""
    import tensorflow as tf

    load(["primevo_example"])
    [function] = PRIMITIVES["SOFTPLUS"].functions
    x = tf.constant(np.linspace(-90, 90, 37, dtype=np.float32))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        ours, theirs = function(x), tf.nn.softplus(x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(ours, x), tape.gradient(theirs, x), atol=1e-6)


def test_mutation_gives_the_primitive_and_its_own_mutation(example: None) -> None:
    from search.evolution.mutation import mutate

    load(["primevo_example"])
    dna = parse(PROGRAM, "program")
    made = [mutate(dna, random.Random(seed), {"insert": 1.0})[0] for seed in range(1500)]
    count = [row.op for child in made for row in child.subroutines[0].instructions]
    assert count.count("SOFTPLUS") > len(made) + 5, "it is drawn as the built-in ones are"
    child, name = mutate(dna, random.Random(0), {"fold": 1.0})
    assert name == "fold"
    assert sum(row.branch == 8 for row in child.subroutines[0].instructions) == 1


@pytest.mark.slow
def test_from_config_to_export(folder: Path) -> None:
    """One real worker trains on the plug-in's corpus, under its objective, a program with its
    primitive; candidates are ranked by its metric; the export needs neither plug-in nor primevo."""
    config = json.loads(primevo(folder, "validate", "campaign.yaml", "-o", "json"))
    assert config["plugins"] == ["primevo_example"]
    assert "SOFTPLUS" in primevo(folder, "primitives", "--plugin", "primevo_example")
    assert "SOFTPLUS" in primevo(folder, "primitives", "--config", "campaign.yaml")
    assert "SOFTPLUS" not in primevo(folder, "primitives")

    primevo(folder, "launch", "campaign.yaml", "--name", "small")
    ranked = json.loads(primevo(folder, "top", "small", "--by", "loss_drop", "-o", "json"))
    drops = [record["loss_drop"] for record in ranked]
    assert drops == sorted(drops, reverse=True)
    assert drops and all(math.isfinite(drop) for drop in drops)
    assert "SOFTPLUS" in primevo(folder, "show", "small", 1)
    lineage = json.loads(primevo(folder, "lineage", "small", 5, "-o", "json"))
    assert {row["mutation"] for row in lineage[1:]} <= {"fold", "insert"}

    primevo(folder, "export", "small", 1, "--to", "exported")
    [module] = (folder / "exported").glob("*_block.py")
    assert "def softplus" in module.read_text()
    script = f"""
import sys
for name in ("primitives", "workers", "search", "primevo_example"):
    sys.modules[name] = None
sys.path.insert(0, "exported")
import keras, {module.stem}
model = keras.saving.load_model("exported/model.keras", safe_mode=True)
print(model(keras.ops.zeros((1, 16), "int32")).shape)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, text=True, capture_output=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert "16, 256" in run.stdout
