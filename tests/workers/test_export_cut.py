"""A model that was cut leaves as a folder that needs nothing of this project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from primitives.programs.seeds import load_seed
from tests.workers.test_pruning import TASK, made, masks_of
from workers.export.export import ExportError, export_cut
from workers.model.model import layers_of, logits
from workers.pruning.plan import smaller

ALONE = """
import sys
import keras, numpy as np
import {module}
model = keras.saving.load_model("model.keras")
tokens = np.load("tokens.npy")
np.save("logits.npy", np.asarray(model(tokens)))
text = model.generate("The", 5, temperature=0.0)
assert text == model.generate("The", 5, temperature=0.0, use_cache=False), text
assert not [name for name in sys.modules if name.split(".")[0] in ("primitives", "workers")]
"""


@pytest.mark.parametrize("name", ["transformer", pytest.param("switch", marks=pytest.mark.slow)])
def test_a_cut_model_runs_alone_and_gives_what_the_sliced_one_gives(
    name: str, tmp_path: Path
) -> None:
    found, values = made(name)
    shape = smaller(found, masks_of(found, seed=4))
    left = [np.asarray(each, np.float32) for each in shape.weights(found, values)]
    folder, dna = tmp_path / "small", load_seed(name, 16)
    card = {"program": f"{name} cut", "pruned": {"said": "half went"}}
    files = export_cut(dna, folder, task=TASK, cut=shape.graphs, weights=left, card=card)
    assert {file.name for file in files} >= {"model.keras", "card.json", "README.md", "example.py"}
    tokens = np.random.default_rng(0).integers(0, 256, (2, 12))
    weights = [tf.constant(each) for each in left]
    layers = layers_of(shape.graphs, TASK)
    ours = np.asarray(logits(layers, weights, tokens, False, tf.zeros(2, tf.int32))[0])
    np.save(folder / "tokens.npy", tokens)
    script = ALONE.format(module=next(f.stem for f in files if f.name.endswith("_block.py")))
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    np.testing.assert_allclose(np.load(folder / "logits.npy"), ours, rtol=1e-4, atol=1e-5)
    assert "- Pruned: half went" in (folder / "README.md").read_text()
    written = json.loads((folder / "card.json").read_text())
    assert written["static_cost"]["parameters"] == sum(
        each.size for each, learns in zip(left, _trainable(layers), strict=True) if learns
    )
    with pytest.raises(ExportError, match="not an empty folder"):
        export_cut(dna, folder, task=TASK, cut=shape.graphs, weights=left, card=card)


def _trainable(layers: object) -> list[bool]:
    specs = [spec for layer in layers for spec in layer.specs]  # type: ignore[attr-defined]
    return [True] * 4 + [spec.trainable for spec in specs]
