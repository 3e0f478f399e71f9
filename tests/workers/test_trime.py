"""Objectives with memories: their loss against an independent form, what a position may see, and
that candidates train under them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from primitives import build
from primitives.language.text import parse, render
from primitives.programs.seeds import load_seed
from tests.reference import two_softmaxes
from workers.data.tokens import load_tokens
from workers.engines.engine import make_engine
from workers.export.export import export_candidate
from workers.export.reading import exported_model
from workers.machine.devices import Layout
from workers.model.ends import EMBEDDING_AND_HEAD, ModelHead, embedding_and_head
from workers.model.model import Seeds, model_layers, token_losses
from workers.model.shape import embedding_rows, initial_model, model_shape
from workers.pool import worker
from workers.spec import trime
from workers.spec.fit import needed_tokens, window_length
from workers.spec.objectives import OBJECTIVES, Batch
from workers.spec.outcome import Budget
from workers.spec.task import DataSpec, Task, TrainingSpec
from workers.training.evaluate import evaluate

ROWS = ("trime", "trime_long", "trime_ext")
SEED = load_seed("transformer")
V, D, B, T = 11, 8, 8, 5


def changed(task: Task, objective: str, **training: object) -> Task:
    spec = TrainingSpec.model_validate(
        task.training.model_dump() | {"objective": objective} | training
    )
    return task.model_copy(update={"training": spec})


@pytest.fixture(scope="module")
def few(tiny_task: Task) -> Task:
    """The tiny task on so little text that it is grouped in a moment."""
    return tiny_task.model_copy(update={"data": DataSpec(max_documents=4)})


@pytest.fixture
def drawn() -> tuple[np.ndarray, ModelHead, Batch]:
    """States, a head with memories, and a batch of random tokens with separators among them."""
    rng = np.random.default_rng(1)
    x, g = rng.standard_normal((2, B, T, D)).astype(np.float32) * 1.5
    stream = rng.integers(0, 4, (B // trime.SEGMENTS, trime.SEGMENTS * T + 1))
    windows = np.concatenate([trime.segments(each, T + 1) for each in stream])
    weights = (rng.standard_normal((V, D)).astype(np.float32), np.ones(D, "f"), np.zeros(D, "f"))
    local = np.array([1, 0, 0, 1, 0, 0, 1, 0], np.float32)
    head = ModelHead(tuple(map(tf.constant, weights)), EMBEDDING_AND_HEAD, tf.constant(g))
    tokens, targets = tf.constant(windows[:, :-1]), tf.constant(windows[:, 1:])
    return x, head, Batch(tokens, targets, local=tf.constant(local))


def allowed(name: str, batch: Batch) -> np.ndarray:
    tokens = np.asarray(batch.tokens)
    return {
        "trime": lambda: two_softmaxes.local(B, T),
        "trime_long": lambda: two_softmaxes.long(tokens, trime.SEGMENTS),
        "trime_ext": lambda: two_softmaxes.external(B, T, trime.SEGMENTS, np.asarray(batch.local)),
    }[name]()


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("name", ROWS)
def test_the_loss_is_that_of_two_softmaxes(drawn, name, scale):
    x, head, batch = drawn
    head = ModelHead(head.weights, head.outer, head.memory * scale)
    made = OBJECTIVES[name].losses(x, batch, head)
    logits = np.asarray(head.logits(x)).reshape(-1, V)
    g, targets = np.asarray(head.memory).reshape(-1, D), np.asarray(batch.targets).reshape(-1)
    mask = allowed(name, batch)
    expected = two_softmaxes.losses(logits, g, targets, mask)
    made = np.asarray(made).reshape(-1)
    near = expected < trime.FAR  # what is less likely is known to be at least so unlikely
    assert near.mean() > 0.7 and (near.all() or scale > 1)
    np.testing.assert_allclose(made[near], expected[near], rtol=1e-5, atol=1e-5)
    assert np.isfinite(made).all() and (made >= expected - 1e-3).all()
    used = made - np.asarray(head.losses(x, batch.targets)).reshape(-1)
    assert (np.abs(used[mask.any(-1)]) > 1e-4).mean() > 0.8


@pytest.mark.parametrize("name", ROWS)
def test_probabilities_sum_to_one(drawn, name):
    """Over the vocabulary, at the last position of a sequence, whose label no other one of the
    sequence remembers."""
    x, head, batch = drawn
    total = np.zeros(B)
    for token in range(V):
        targets = np.asarray(batch.targets).copy()
        targets[0, -1] = targets[5, -1] = token
        losses = OBJECTIVES[name].losses(x, batch._replace(targets=tf.constant(targets)), head)
        total += np.exp(-np.asarray(losses)[:, -1])
    np.testing.assert_allclose(total[[0, 5]], 1, rtol=1e-5)


def test_without_memories_it_is_the_cross_entropy_exactly(drawn):
    x, head, batch = drawn
    for name in ("trime", "trime_long"):
        plain = np.asarray(head.losses(x, batch.targets))
        made = np.asarray(OBJECTIVES[name].losses(x, batch, head))
        none = ~allowed(name, batch).any(-1).reshape(B, T)
        assert none.any() and not none.all()
        np.testing.assert_array_equal(made[none], plain[none])
        assert (made[~none] != plain[~none]).all()


@pytest.mark.parametrize("name", ROWS)
def test_gradients_reach_memories_and_none_a_position_may_not_use(drawn, name):
    x, head, batch = drawn
    with tf.GradientTape() as tape:
        tape.watch(head.memory)
        loss = OBJECTIVES[name].losses(x, batch, head)[1, 3]
    reached = np.abs(np.asarray(tape.gradient(loss, head.memory))).max(-1).reshape(-1) > 0
    expected = allowed(name, batch)[T + 3].copy()
    expected[T + 3] = True  # the query itself
    np.testing.assert_array_equal(reached, expected)


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis")
@pytest.mark.parametrize("block", [1, 5, trime.BLOCK])
@pytest.mark.parametrize("name", ROWS)
def test_the_gradient_is_that_of_two_sums_of_exponentials(drawn, name, block, monkeypatch):
    """TensorFlow's own, of all similarities of the batch at once; ours, in blocks of any size."""
    monkeypatch.setattr(trime, "BLOCK", block)
    x, head, batch = drawn
    x, labels = tf.constant(x), tf.reshape(batch.targets, [-1])
    mask = allowed(name, batch)
    fits = mask & (labels[:, None] == labels).numpy()

    def expected() -> tf.Tensor:
        g = tf.reshape(head.memory, [-1, D])
        similar = tf.matmul(g, g, transpose_b=True) * D**-0.5
        logits = tf.reshape(head.logits(x), [-1, V])
        right = tf.gather(logits, labels, batch_dims=1)[:, None]
        every = tf.concat([logits, tf.where(mask, similar, -1e30)], 1)
        fitting = tf.concat([right, tf.where(fits, similar, -1e30)], 1)
        return tf.reduce_logsumexp(every, 1) - tf.reduce_logsumexp(fitting, 1)

    found = []
    for losses in (lambda: OBJECTIVES[name].losses(x, batch, head), expected):
        with tf.GradientTape() as tape:
            tape.watch([x, head.memory])
            mean = tf.reduce_mean(losses())
        found.append((mean, *tape.gradient(mean, [x, head.memory])))
    for made, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("training", [False, True])
def test_a_sequences_future_changes_none_of_its_earlier_probabilities(few, name, training):
    """In the model: the suffix of one sequence is replaced. In groups of consecutive segments,
    later segments are its future, too."""
    task = changed(few, name, batch_size=8)
    row, layers = OBJECTIVES[name], model_layers(build(SEED), task)
    shape = model_shape(build(SEED), task.model, 256)
    values = [value * 3 for value in initial_model(shape, seed=0)]
    before = np.random.default_rng(0).integers(0, 5, (8, 17))
    after, (sequence, place) = before.copy(), (2, 9)
    after[sequence, place + 1 :] = (after[sequence, place + 1 :] + 1) % 5
    if name == "trime_long":
        after[sequence + 1 : 4] += 1
    seed = tf.constant([3, 5], tf.int32)
    one, other = (
        np.asarray(token_losses(layers, values, windows, training, seed, row)[0])
        for windows in (before, after)
    )
    np.testing.assert_allclose(one[sequence, :place], other[sequence, :place], rtol=1e-6)
    assert (one[sequence, place:] != other[sequence, place:]).any()
    if name == "trime_long":
        np.testing.assert_allclose(one[:sequence], other[:sequence], rtol=1e-6)
    shared = name == "trime_ext" and training
    assert shared == (np.abs(one[0] - other[0]) > 1e-4).any()
    np.testing.assert_allclose(one[4:], other[4:], rtol=1e-6)  # another group


@pytest.mark.parametrize("name", ROWS)
def test_a_score_does_not_depend_on_what_else_is_in_the_batch(few, name):
    task = changed(few, name, batch_size=8)
    values = initial_model(model_shape(build(SEED), task.model, 256), seed=0)
    windows = np.random.default_rng(0).integers(0, 256, (2, 8, 17))
    swapped = windows.reshape(4, 4, 17)[[0, 2, 1, 3]].reshape(2, 8, 17)
    engine = make_engine(build(SEED), values, task)
    assert engine.score(windows) == pytest.approx(engine.score(swapped), abs=1e-5)


def test_a_sequence_of_trime_ext_seldom_remembers_itself():
    row = OBJECTIVES["trime_ext"]
    windows = tf.zeros((400, 9), tf.int32)
    one, other = (
        np.asarray(row.batch(windows, 256, Seeds(tf.constant([step, 1], tf.int32))).local)
        for step in (0, 1)
    )
    assert set(one) == {0.0, 1.0} and 0.05 < one.mean() < 0.15 and (one != other).any()


@pytest.mark.parametrize("name", ["trime", "trime_long"])
def test_nothing_of_the_size_of_the_batch_squared_is_made(few, name):
    """No tensor of a training step has an axis for each of two positions of the batch."""
    task = changed(few, name, batch_size=32)
    row, layers = OBJECTIVES[name], model_layers(build(SEED), task)
    values = initial_model(model_shape(build(SEED), task.model, 256), seed=0)

    @tf.function
    def step(windows):
        seed = tf.zeros(2, tf.int32)
        with tf.GradientTape() as tape:
            weights = [tf.constant(value) for value in values]
            tape.watch(weights)
            losses, *_ = token_losses(layers, weights, windows, True, seed, row)
        return tape.gradient(losses, weights)

    graph = step.get_concrete_function(tf.TensorSpec([32, 17], tf.int32)).graph
    made = [out.shape for op in graph.get_operations() for out in op.outputs if out.shape.rank]
    largest = max(shape.num_elements() or 0 for shape in made)
    group = OBJECTIVES[name].group
    assert (32 * 16) * (group * 16) <= largest < (32 * 16) ** 2


@pytest.mark.parametrize("name", ["trime_long", "trime_ext"])
def test_a_candidate_trains(few, name):
    task = changed(few, name)
    short, long = (evaluate(SEED, task, Budget("steps", n), seed=1) for n in (2, 60))
    assert long.status == "completed" and long.val_loss < short.val_loss - 0.4


@pytest.mark.parametrize("name", ROWS)
def test_a_worker_starts(few, name, monkeypatch):
    """What it trains first has a batch that the objective can group."""
    task = changed(few, name)
    monkeypatch.setattr(worker, "_bind", lambda setup: None)  # this process is bound already
    worker.warm_up(worker.Setup(task, Layout(1, 1, 0.0), None, "unused", "unused"))


@pytest.mark.slow
@pytest.mark.parametrize("program", ["peer", "mixture_of_depths", "base", "hash_layer"])
def test_routed_programs_train_with_memories(few, program):
    """Gathered expert tables, auxiliary losses and states on the way."""
    model = few.model.model_copy(update={"layers": 2})
    task = changed(few.model_copy(update={"model": model}), "trime")
    made = evaluate(load_seed(program, 16), task, Budget("steps", 3), seed=1)
    assert made.status == "completed", made


@pytest.mark.slow
def test_layers_of_another_program_between_them(few):
    """The last layer is remembered by its own program's state."""
    task = few.model_copy(update={"model": few.model.model_copy(update={"layers": 3})})
    dna = replace(load_seed("switch", 16), every=2)
    made = evaluate(dna, changed(task, "trime"), Budget("steps", 2), seed=1)
    assert made.status == "completed", made


def test_consecutive_segments_follow_each_other(few):
    task = changed(few, "trime_long", batch_size=8)
    length, row = window_length(task), OBJECTIVES["trime_long"]
    tokens = np.arange(1000)
    shape, rng = (3, 8), np.random.default_rng(0)
    for windows in (row.draw(tokens, length, shape, rng), row.fixed(tokens, length, shape)):
        assert windows.shape == (3, 8, 17) and (np.diff(windows) == 1).all()
        grouped = windows.reshape(6, trime.SEGMENTS, 17)
        np.testing.assert_array_equal(grouped[:, 1:, 0], grouped[:, :-1, -1])
    assert needed_tokens(task) == trime.SEGMENTS * 16 + 1
    assert row.fixed(tokens[: needed_tokens(task)], length, (1, 4)).shape == (1, 4, 17)


def test_a_batch_that_is_no_whole_number_of_groups_is_refused(few):
    said = "batch_size 6 is not a multiple of 4, and the objective trime_long takes sequences"
    with pytest.raises(ValueError, match=said):
        Task(training=TrainingSpec(batch_size=6, objective="trime_long"))
    Task(training=TrainingSpec(batch_size=6, objective="trime"))


SAME_ON = """if True:
    import numpy as np, sys
    from pathlib import Path
    from primitives import build
    from primitives.programs.seeds import load_seed
    from workers.machine.backends import configure
    from workers.machine.devices import Layout
    configure("jax", Layout(1, 1, 0.0), None)
    from workers.engines.engine import make_engine
    from workers.model.shape import initial_model, model_shape
    from workers.spec.task import Task
    for line in Path({path!r}).read_text().splitlines():
        task = Task.model_validate_json(line)
        graph = build(load_seed("switch", 16))
        values = initial_model(model_shape(graph, task.model, 256), seed=0)
        engine = make_engine(graph, values, task, seed=1)
        windows = np.random.default_rng(0).integers(0, 9, (3, 4, 17))
        print(engine.score(windows), engine.train(windows), engine.score(windows))
"""


@pytest.mark.slow
def test_jax_computes_the_same(few, tmp_path):
    """Scores before and after training steps, of a routed program. What trime_ext drops is drawn at
    random, and differs between the backends: its first score alone is compared."""
    pytest.importorskip("jax", reason="the extra is not installed")
    tasks = [changed(few, name, precision="float32") for name in ROWS]
    path = tmp_path / "tasks"
    lines = [changed(task, task.training.objective, backend="jax") for task in tasks]
    path.write_text("\n".join(task.model_dump_json() for task in lines))
    done = subprocess.run(
        [sys.executable, "-c", SAME_ON.format(path=str(path))],
        capture_output=True, text=True, timeout=300,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for task, line in zip(tasks, done.stdout.splitlines(), strict=True):
        graph = build(load_seed("switch", 16))
        values = initial_model(model_shape(graph, task.model, embedding_rows(task, 256)), seed=0)
        engine = make_engine(graph, values, task, seed=1)
        windows = np.random.default_rng(0).integers(0, 9, (3, 4, 17))
        own = [engine.score(windows), engine.train(windows), engine.score(windows)]
        compared = 1 if task.training.objective == "trime_ext" else 3
        theirs = list(map(float, line.split()))
        assert own[:compared] == pytest.approx(theirs[:compared], abs=2e-4), task.training.objective


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_xla_computes_the_same(few, name, monkeypatch):
    """Which sequences do without their own memories is drawn otherwise under XLA, so none does."""
    monkeypatch.setattr(trime, "LOCAL_DROPPED", 0.0)
    windows = np.random.default_rng(0).integers(0, 9, (3, 4, 17))
    made = []
    for jit in ("off", "on"):
        task = changed(few, name, jit=jit)
        values = initial_model(model_shape(build(SEED), task.model, 256), seed=0)
        engine = make_engine(build(SEED), values, task, seed=1)
        made.append([engine.score(windows), engine.train(windows), engine.score(windows)])
    assert made[0] == pytest.approx(made[1], abs=1e-4)


MARKED = parse(
    render(SEED).replace(
        "renormed = layer_norm(attended)",
        "kept = REMEMBER(attended)\n  renormed = layer_norm(kept)",
    )
)
"""Remembers the residual stream instead of its norm."""


@pytest.mark.parametrize(
    ("positions", "dna"),
    [("learned", SEED), ("rotary", SEED), ("learned", MARKED)],
    ids=["learned", "rotary", "marked"],
)
def test_an_exported_model_remembers(few, tmp_path, positions, dna):
    """Its card has the loss with memories that the engine measures, and `predict_next`, segment by
    segment, gives the probabilities of the objective."""
    model = few.model.model_copy(update={"positions": positions})
    task = changed(few.model_copy(update={"model": model}), "trime_long", batch_size=8)
    folder, card = tmp_path / "made", {"program": "seed"}
    export_candidate(dna, folder, task=task, budget=Budget("steps", 1), seed=3, card=card,
                     untrained=True)  # fmt: skip
    values = initial_model(model_shape(build(dna), task.model, 256), seed=3)
    row, tokens = OBJECTIVES["trime_long"], load_tokens(task.data)
    windows = row.fixed(tokens.validation, 17, (2, 8))
    expected = make_engine(build(dna), values, task).score(windows)
    made = json.loads((folder / "card.json").read_text())
    assert made["exported"]["val_loss"] == pytest.approx(expected, abs=1e-4)

    model, memories, found = exported_model(folder), None, []
    group = windows[0][:4]
    for segment in group:
        chances, memories = model.predict_next(tf.constant(segment[None], tf.int32), memories)
        found.append(-np.take_along_axis(np.asarray(chances)[0], segment[1:, None], -1)[:, 0])
    layers = model_layers(build(dna), task)
    losses, *_ = token_losses(
        layers, values, group, False, tf.zeros(2, tf.int32), row, embedding_and_head(task.model)
    )
    assert not (group == 0).any()  # one document
    np.testing.assert_allclose(np.array(found), np.asarray(losses), atol=1e-4)
    assert memories[0].shape == (1, 64, 16)
    np.testing.assert_array_equal(memories[1][0], group[:, 1:].reshape(-1))
