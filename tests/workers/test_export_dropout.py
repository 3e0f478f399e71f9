"""Dropout and masks of exported models: training drops what a block changes, and nothing else is
another result than without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from primitives.language.dna import DNA
from primitives.programs.seeds import load_seed
from tests.reference.random_programs import programs, routed_programs
from tests.workers.exports import load_module
from tests.workers.test_generate import SPEC, made, random_tokens, random_weights, source
from workers.spec.task import Task

RATE = 0.3
SEEDS = ("transformer", "switch", "mixture_of_depths")
RANDOM = [*programs(6, seed=2, largest=512), *routed_programs(3, seed=2, largest=512)]
BACKENDS = ("tensorflow", "jax")


def layers(dna: DNA) -> tuple[Any, Any]:
    """The program's layer with dropout and without, which have the same random weights."""
    module = load_module(source(dna, Task(model=SPEC)))
    with_it, without = module.ItBlock(RATE), module.ItBlock()
    for layer in (with_it, without):
        layer.build((None, None, 16))
    with_it.set_weights(random_weights(without).get_weights())
    return with_it, without


def passed(layer: Any, x: np.ndarray, tokens: np.ndarray, **options: Any) -> Any:
    own = {"tokens": tokens} if "tokens" in layer.call.__code__.co_varnames else {}
    return layer(x, **own, **options)


def drops_its_change(dna: DNA) -> None:
    """Each value of the output is the input's, or what was changed has been scaled up."""
    with_it, without = layers(dna)
    x, tokens = np.random.default_rng(1).random((8, 12, 16), "float32"), random_tokens(8, 12)
    whole = np.array(passed(without, x, tokens, training=True))
    assert np.abs(whole).max() < 1e4, "another program would show more"
    found = np.array(passed(with_it, x, tokens, training=True))
    changed = np.abs(whole - x) > 1e-3
    same = found == x
    scaled = np.isclose(found, x + (whole - x) / (1 - RATE), rtol=1e-4, atol=1e-4)
    assert np.all(same | scaled)
    if changed.sum() > 500:
        spread = (RATE * (1 - RATE) / changed.sum()) ** 0.5
        assert same[changed].mean() == pytest.approx(RATE, abs=5 * spread)


@pytest.mark.parametrize("name", SEEDS)
def test_a_share_of_what_a_block_changes_is_dropped(name: str) -> None:
    drops_its_change(load_seed(name, 16))


@pytest.mark.parametrize("number", range(len(RANDOM)))
def test_so_it_is_in_random_programs(number: int) -> None:
    drops_its_change(RANDOM[number])


def test_the_mean_of_many_draws_is_the_output_without() -> None:
    with_it, without = layers(load_seed("transformer", 16))
    x = np.random.default_rng(1).random((1, 4, 16), "float32")
    draws = np.array(with_it(np.repeat(x, 4000, axis=0), training=True))
    whole = np.array(without(x))
    error = np.abs(whole - x)[0] * (RATE / (1 - RATE) / len(draws)) ** 0.5
    assert np.all(np.abs(draws.mean(0) - whole[0]) < 5 * error + 1e-4)
    assert not np.array_equal(draws[0], draws[1])


@pytest.mark.parametrize("share_layers", [False, True])
def test_a_model_drops_after_its_embeddings_and_in_each_block(share_layers: bool) -> None:
    """Against the sum written out here, whose masks come from copies of the model's seeds."""
    spec = SPEC.model_copy(update={"share_layers": share_layers})
    model, tokens = made(load_seed("transformer", 16), spec, dropout=RATE), random_tokens(4, 12)
    copies: dict[int, Any] = {}

    def kept(layer: Any, x: Any) -> Any:
        if id(layer) not in copies:
            copies[id(layer)] = keras.random.SeedGenerator(0)
            copies[id(layer)].state.assign(layer.dropout.seed_generator.state)
        return keras.random.dropout(keras.ops.ones_like(x), RATE, seed=copies[id(layer)])

    x = model.embedding(tokens) + model.positions(np.arange(12))
    x = x * kept(model, x)
    for block in model.blocks:
        x = x + kept(block, x) * (block(x) - x)
    expected = keras.ops.matmul(model.norm(x), keras.ops.transpose(model.embedding.embeddings))
    found = np.array(model(tokens, training=True))
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-4, atol=1e-4)
    assert np.abs(found - np.array(model(tokens))).max() > 0.1


@pytest.mark.parametrize("name", ["primer", "hash_layer"])
def test_only_training_drops(name: str) -> None:
    """To the bit: passes in inference, steps and texts; and training at a rate of 0."""
    dna, tokens = load_seed(name, 16), random_tokens(2, 6)
    with_it, without = made(dna, dropout=RATE), made(dna)
    with_it.set_weights(without.get_weights())
    whole = np.array(without(tokens))
    np.testing.assert_array_equal(np.array(with_it(tokens)), whole)
    np.testing.assert_array_equal(np.array(without(tokens, training=True)), whole)
    steps = [np.array(it.step(tokens, it.cache(2, 12), 0)[0]) for it in (with_it, without)]
    np.testing.assert_array_equal(*steps)
    texts = [np.array(it.generate(tokens, 5, seed=1)) for it in (with_it, without)]
    np.testing.assert_array_equal(*texts)


def test_it_is_kept_in_files(tmp_path: Path) -> None:
    """In a saved model; and weights of a model without it fit one that has it."""
    module = load_module(source(load_seed("transformer", 16), Task(model=SPEC)))
    without, tokens = random_weights(module.build_model()), random_tokens(2, 6)
    assert without.get_config()["dropout"] == without.blocks[0].get_config()["dropout"] == 0.0
    without.save_weights(tmp_path / "it.weights.h5")
    model = module.build_model(dropout=RATE)
    model.load_weights(tmp_path / "it.weights.h5")
    np.testing.assert_array_equal(np.array(model(tokens)), np.array(without(tokens)))
    model.save(tmp_path / "it.keras")
    again = keras.saving.load_model(tmp_path / "it.keras")
    assert again.get_config() == model.get_config() and again.dropout.rate == RATE
    assert [block.dropout.rate for block in again.blocks] == [RATE, RATE]
    np.testing.assert_array_equal(np.array(again(tokens)), np.array(without(tokens)))
    layer = module.ItBlock(RATE, name="one")
    assert module.ItBlock.from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1, 2, float("nan"), "0.1", None])
def test_what_is_no_share_is_refused(rate: Any) -> None:
    module = load_module(source(load_seed("transformer", 16), Task(model=SPEC)))
    for make in (module.ItBlock, lambda dropout: module.build_model(dropout=dropout)):
        with pytest.raises(ValueError, match="at least 0 and below 1; got ") as error:
            make(dropout=rate)
        assert repr(rate) in str(error.value)


def test_a_layer_passes_a_mask_on() -> None:
    """From an Embedding that masks 0 to the loss, which leaves padding out; in a causal block it
    changes nothing before it."""
    module = load_module(source(load_seed("transformer", 16), Task(model=SPEC)))
    tokens = random_tokens(3, 8) % 255 + 1
    tokens[0, 5:], tokens[1, 2:] = 0, 0
    inputs = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(256, 16, mask_zero=True)(inputs)
    outputs = keras.layers.Dense(256)(module.ItBlock(RATE)(embedded))
    model = random_weights(keras.Model(inputs, outputs))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    loss = model.evaluate(tokens, tokens, verbose=0)
    first, logits = (np.array(model(it)) for it in (tokens, np.where(tokens == 0, 7, tokens)))
    real = tokens != 0
    np.testing.assert_allclose(first[real], logits[real], rtol=1e-5, atol=1e-5)
    assert np.abs(first - logits)[~real].max() > 1e-3
    powers = np.exp(first - first.max(-1, keepdims=True))
    chances = powers / powers.sum(-1, keepdims=True)
    each = -np.log(np.take_along_axis(chances, tokens[..., None], -1)[..., 0])
    assert loss == pytest.approx(each[real].mean(), rel=1e-4)


FIT = """
import sys
sys.path.insert(0, sys.argv[1])
import keras, numpy as np, it_block
tokens = np.random.default_rng(0).integers(0, 256, (8, 13))
model = it_block.build_model(dropout=0.3)
before = np.array(model(tokens[:, :-1]))
draws = [np.array(model(tokens[:, :-1], training=True)) for _ in range(2)]
assert not np.array_equal(*draws)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(1e-2), loss)
seeds = [np.array(block.dropout.seed_generator.state) for block in model.blocks]
found = model.fit(tokens[:, :-1], tokens[:, 1:], epochs=8, verbose=0).history["loss"]
assert found[-1] < found[0], found
now = [np.array(block.dropout.seed_generator.state) for block in model.blocks]
assert all(not np.array_equal(*pair) for pair in zip(seeds, now)), "fit drops"
model.save(sys.argv[1] + "/it.keras")
again = keras.saving.load_model(sys.argv[1] + "/it.keras")
assert np.array_equal(again(tokens[:, :-1]), model(tokens[:, :-1])) and again.dropout.rate == 0.3
print(keras.backend.backend())
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["transformer", "switch"])
def test_fit_drops_where_primevo_is_not_installed(tmp_path: Path, backend: str, name: str) -> None:
    pytest.importorskip(backend)
    (tmp_path / "it_block.py").write_text(source(load_seed(name, 16), Task(model=SPEC)))
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", FIT, str(tmp_path)], env=environment, cwd=tmp_path,
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.splitlines()[-1] == backend
