"""Exported models write text: the same tokens with and without what is kept of earlier positions,
and the draws that temperature and top_p say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from primitives.graph.build import Graph, build
from primitives.language.dna import DNA
from primitives.language.text import parse
from primitives.programs.seeds import load_seed, seed_names
from tests.reference.random_programs import LARGE_SEEDS
from tests.workers.exports import load_module
from workers.export import generation
from workers.export.source import module_source, names
from workers.spec.task import DataSpec, ModelSpec, Task, TrainingSpec

LENGTH, VOCABULARY = 12, 256
SPEC = ModelSpec(d_model=16, layers=2, sequence_length=LENGTH)
CAUSAL = [it for it in seed_names() if isinstance(build(load_seed(it, 16)), Graph)]
OFTEN = ("primer", "hash_layer", "mixture_of_depths", "prefix_mean")
"""Convolutions, routing by token ids, two kinds of blocks, running sums."""

UNMASKED_SUMS = parse(
    "dims d0=8\nconstants c0=0.1\nmain(x, y):\n  scores = T-MAT MUL(x, x)\n"
    "  sums = CUM SUM(scores)\n  small = C MUL(sums) constant=c0\n  seen = MASK(small)\n"
    "  mixed = MAT MUL(seen, x)\n  tame = TANH(mixed)\n  out = ADD(x, tame)\n"
)
"""A causal program that cannot be run a few positions at a time."""


def source(dna: DNA, task: Task, vocabulary: int = VOCABULARY) -> str:
    graph = build(dna, bidirectional=True)
    assert isinstance(graph, Graph)
    return module_source(dna, graph, task, vocabulary, names("it"), {"Program": "it"})


def made(dna: DNA, spec: ModelSpec = SPEC, vocabulary: int = VOCABULARY, **sizes: Any) -> Any:
    """The exported module's model, whose weights are all random."""
    module = load_module(source(dna, Task(model=spec), vocabulary))
    return random_weights(module.build_model(**sizes))


def random_weights(model: Any) -> Any:
    rng = np.random.default_rng(3)
    for weight in model.trainable_weights:
        weight.assign(np.asarray(weight) + 0.1 * rng.standard_normal(weight.shape))
    return model


@cache
def transformer() -> Any:
    return made(load_seed("transformer", 16), SPEC.model_copy(update={"layers": 1}))


def assert_near(found: Any, expected: np.ndarray) -> None:
    """The logits of two ways through one model, which add in another order. Weights that differ in
    their last digit move them by 1e-5 already; another token moves later ones by more than 1."""
    np.testing.assert_allclose(np.array(found), expected, rtol=1e-4, atol=1e-4)


def random_tokens(*shape: int, vocabulary: int = VOCABULARY) -> np.ndarray:
    return np.random.default_rng(8).integers(0, vocabulary, shape, "int32")


@pytest.mark.parametrize(
    "name",
    [pytest.param(it, marks=[pytest.mark.slow] * (it not in OFTEN)) for it in CAUSAL],
)
def test_every_causal_seed_program_steps_as_it_runs(name: str) -> None:
    layers = 1 if name in LARGE_SEEDS else 2
    model = made(load_seed(name, 16), SPEC.model_copy(update={"layers": layers}))
    tokens = random_tokens(2, LENGTH)
    whole = np.array(model(tokens))
    for split in ((LENGTH,), (7, 1, 1, 3)):
        kept, start = model.cache(2, LENGTH), 0
        for count in split:
            logits, kept = model.step(tokens[:, start : start + count], kept, start)
            expected = whole[:, start : start + count]
            assert_near(logits, expected)
            start += count


def greedy(model: Any, tokens: np.ndarray, count: int) -> np.ndarray:
    """Each token the likeliest one, by passes over the whole text."""
    for _ in range(count):
        best = np.argmax(np.array(model(tokens))[:, -1], axis=-1)
        tokens = np.append(tokens, best[:, None].astype("int32"), axis=1)
    return tokens


@pytest.mark.parametrize(
    "name", ["transformer", pytest.param("hash_layer", marks=pytest.mark.slow)]
)
def test_the_likeliest_tokens_are_those_of_whole_passes(name: str) -> None:
    model = transformer() if name == "transformer" else made(load_seed(name, 16))
    for length, use_cache in ((1, True), (5, True), (5, False)):
        tokens = random_tokens(3, length)
        found = model.generate(tokens, 13 - length, temperature=0, use_cache=use_cache)
        np.testing.assert_array_equal(found, greedy(model, tokens, 13 - length))


def test_rows_of_a_batch_and_kept_positions_do_not_change_what_is_drawn() -> None:
    model, tokens = transformer(), random_tokens(3, 4)
    told = {"temperature": 0.9, "top_p": 0.8, "seed": 4, "sliding": True}
    found = model.generate(tokens, 30, **told)
    assert found.shape == (3, 34) and (found[:, :4] == tokens).all()
    np.testing.assert_array_equal(found, model.generate(tokens, 30, use_cache=False, **told))
    np.testing.assert_array_equal(found, model.generate(tokens, 30, **told))
    others = model.generate(tokens, 30, **{**told, "seed": 5})
    assert (others != found).any()
    alone = model.generate(tokens[0], 8, temperature=0)
    assert alone.shape == (12,)
    np.testing.assert_array_equal(alone, model.generate(tokens, 8, temperature=0)[0])


def test_a_full_window_begins_anew_with_its_last_half() -> None:
    model, tokens = transformer(), random_tokens(1, 20)
    found = model.generate(tokens, 25, temperature=0, sliding=True)
    expected = tokens
    window = tokens[:, -6:]  # of 12 positions
    while expected.shape[1] < 45:
        more = greedy(model, window, min(13 - window.shape[1], 45 - expected.shape[1]))
        expected = np.append(expected, more[:, window.shape[1] :], axis=1)
        window = expected[:, -6:]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("prompt", "told", "message"),
    [
        ([1, 2, 3], {"max_new_tokens": 11}, "3 tokens and 11 new ones need 13 positions, and the "
         "model was trained with 12; ask for fewer, or pass sliding=True"),
        ("", {}, "the prompt is empty"),
        ([1, 256], {"max_new_tokens": 2}, "below 256"),
        ([-1], {"max_new_tokens": 2}, "below 256"),
        ([1], {"max_new_tokens": 2, "temperature": -0.5}, "got -0.5"),
        ([1], {"max_new_tokens": 2, "top_p": 0.0}, "top_p above 0"),
        ([1], {"max_new_tokens": 2, "top_p": 1.5}, "at most 1; got"),
        ([1], {"max_new_tokens": -2}, "at least 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_said(prompt: Any, told: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transformer().generate(prompt, **told)


def test_the_last_position_is_used() -> None:
    assert transformer().generate([1, 2, 3], 10).shape == (13,)
    assert transformer().generate([1, 2, 3], 0).tolist() == [1, 2, 3]


def test_text_goes_in_and_comes_out() -> None:
    model, prompt = transformer(), "né"
    text = model.generate(prompt, 6, seed=1)
    tokens = model.generate(list(prompt.encode()), 6, seed=1)
    assert text == bytes(tokens.tolist()).decode(errors="replace")
    assert text.startswith(prompt)


def nucleus(logits: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    """The distribution that is drawn from, by the words of Holtzman et al. 2020, section 3.1: the
    smallest set of the likeliest tokens whose probabilities sum to top_p or more, rescaled."""
    chances = np.exp((logits - logits.max()) / temperature)
    chances /= chances.sum()
    kept: list[int] = []
    for token in sorted(range(len(chances)), key=lambda it: -chances[it]):
        kept.append(token)
        if chances[kept].sum() >= top_p:
            break
    result = np.zeros_like(chances)
    result[kept] = chances[kept] / chances[kept].sum()
    return result


@pytest.mark.parametrize(
    ("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (1.5, 0.5), (1.0, 1e-6), (0.05, 0.999)]
)
def test_draws_have_the_chances_of_the_nucleus(temperature: float, top_p: float) -> None:
    """Even draws in [0, 1) give each token as often as its chance says."""
    choose = load_module(source(load_seed("transformer", 16), Task(model=SPEC))).choose
    rng, count = np.random.default_rng(2), 4001
    for _ in range(3):
        logits = (2 * rng.standard_normal(7)).astype("float32")
        draws = (np.arange(count, dtype="float32") / count).astype("float32")
        rows = np.broadcast_to(logits, (count, 7))
        found = np.array(choose(rows, draws, np.float32(temperature), np.float32(top_p)))
        share = np.bincount(found, minlength=7) / count
        expected = nucleus(logits.astype("float64"), temperature, top_p)
        np.testing.assert_allclose(share, expected, atol=1e-3)
        assert set(np.flatnonzero(share)) <= set(np.flatnonzero(expected))


def test_the_largest_draw_stays_in_the_nucleus() -> None:
    choose = load_module(source(load_seed("transformer", 16), Task(model=SPEC))).choose
    logits = np.zeros((1, 200), "float32")
    logits[0, :3] = 5
    last = np.array([np.nextafter(np.float32(1), np.float32(0))])
    assert int(choose(logits, last, np.float32(1), np.float32(0.6))[0]) < 3
    assert int(choose(logits, last, np.float32(1), np.float32(1))[0]) < 200
    assert int(choose(logits, last, np.float32(0), np.float32(1))[0]) == 0


def test_a_program_that_cannot_step_passes_over_the_whole_text_and_says_so() -> None:
    text = source(UNMASKED_SUMS, Task(model=SPEC))
    said = " ".join(text.split())
    assert "costs a pass over the whole text, since CUM SUM (main.sums) runs along" in said
    assert "use_cache" not in text and "def step" not in text and "cache" not in text
    model, tokens = made(UNMASKED_SUMS), random_tokens(2, 3)
    found = model.generate(tokens, 10, temperature=0)
    np.testing.assert_array_equal(found, greedy(model, tokens, 10))


def test_a_masked_model_writes_nothing() -> None:
    task = Task(model=SPEC, training=TrainingSpec(objective="masked"))
    text = source(load_seed("transformer", 16), task)
    assert "def generate" not in text and "def step" not in text


@pytest.mark.parametrize("program", ["primer", pytest.param("peer", marks=pytest.mark.slow)])
def test_it_generates_in_bfloat16(program: str) -> None:
    model = made(load_seed(program, 16), layers=1, dtype="mixed_bfloat16")
    kept = model.cache(1, 4)
    assert all(each.dtype == "bfloat16" for block in kept for each in block)
    assert model.generate([1, 2], 6, temperature=0).shape == (8,)


def test_many_copies_of_experts_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt is read so many positions at a time that copies of expert weights fit."""
    plain = source(load_seed("transformer", 16), Task(model=SPEC))
    assert "for start in range" not in plain
    dna = load_seed("switch", 512)
    text = source(dna, Task(model=ModelSpec(d_model=512, layers=2, sequence_length=512)))
    assert "for start in range(0, length - 1, 8):" in text
    monkeypatch.setattr(generation, "_READ_AT_ONCE", 3 * 2 * 16 * 64)
    model = made(load_seed("switch", 16), SPEC.model_copy(update={"layers": 1}))
    for length in (9, 2, 1):
        tokens = random_tokens(2, length)
        found = model.generate(tokens, 4, temperature=0)
        np.testing.assert_array_equal(found, greedy(model, tokens, 4))


def test_a_bpe_reads_and_writes_text(tmp_path: Path) -> None:
    import tokenizers

    data = DataSpec(tokenizer="bpe", vocabulary=300)
    text = source(load_seed("transformer", 16), Task(model=SPEC, data=data), 300)
    assert "import functools\nfrom pathlib import Path\n" in text
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet)
    made.train_from_iterator(["the cat and the hat and the bat"] * 9, trainer)
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "it_block.py").write_text(text)
    module = load_module(text)
    module.__file__ = str(tmp_path / "it_block.py")
    assert module.decode(module.encode("the hat")) == "the hat"
    assert len(module.encode("the hat")) < 7


JAX = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
import keras, numpy as np
assert keras.backend.backend() == "jax"
found = {}
for name in ("primer", "hash_layer"):
    importlib.import_module(name)
    model = keras.saving.load_model(f"{sys.argv[1]}/{name}.keras")
    tokens = np.array([[1, 2, 3], [4, 5, 6]])
    found[name] = model.generate(tokens, 20, temperature=0, sliding=True).tolist()
print(json.dumps(found))
"""


@pytest.mark.slow
def test_saved_models_write_the_same_text_on_jax(tmp_path: Path) -> None:
    """In an interpreter of its own, whose Keras runs on JAX, and where Primevo is not to be
    found."""
    pytest.importorskip("jax")
    expected = {}
    for name in ("primer", "hash_layer"):
        dna, spec = load_seed(name, 16), SPEC.model_copy(update={"layers": 1})
        text = source(dna, Task(model=spec)).replace('package="it_block"', f'package="{name}"')
        (tmp_path / f"{name}.py").write_text(text)
        module = load_module(text)
        model = random_weights(module.build_model())
        model.save(tmp_path / f"{name}.keras")
        tokens = np.array([[1, 2, 3], [4, 5, 6]])
        expected[name] = model.generate(tokens, 20, temperature=0, sliding=True).tolist()
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", JAX, str(tmp_path)], env=environment, cwd=tmp_path,
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert json.loads(result.stdout.splitlines()[-1]) == expected
