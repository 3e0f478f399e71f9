"""The table of objectives: that a row is all that one takes, and what masked training hides."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from primitives import build, render
from primitives.programs.seeds import load_seed
from workers.engines.engine import make_engine
from workers.model.learning import training_loss
from workers.model.model import Auxiliary, Layer, Seeds, logits, model_layers, token_losses
from workers.model.shape import embedding_rows, initial_model, model_shape
from workers.spec.fit import window_length
from workers.spec.objectives import MASKED, MASKED_SHARE, OBJECTIVES, Batch, Objective
from workers.spec.outcome import Budget, Job
from workers.spec.pool import PoolSpec
from workers.spec.task import ModelSpec, Task, TrainingSpec
from workers.training.evaluate import evaluate

SEED = load_seed("transformer")


def after_next(windows, vocabulary, random):
    """Windows a b c d: after a comes c, after b comes d."""
    return Batch(windows[:, :-2], windows[:, 2:])


def of_low_tokens(windows, vocabulary, random):
    """The next token, where this one is below 80."""
    from keras import ops

    counts = ops.cast(windows[:, :-1] < 80, "float32")
    return Batch(windows[:, :-1], windows[:, 1:], counts)


def of_nothing(windows, vocabulary, random):
    from keras import ops

    return Batch(windows[:, :-1], windows[:, 1:], ops.zeros(ops.shape(windows[:, 1:])))


ROWS = (
    Objective("after_next", "the token after the next one", after_next, lookahead=2),
    Objective("of_low_tokens", "what follows low tokens", of_low_tokens),
    Objective("of_nothing", "nothing", of_nothing),
)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    for row in ROWS:
        OBJECTIVES.register(row)
    yield
    for row in ROWS:
        del OBJECTIVES[row.name]


def changed(task: Task, objective: str, **model: int) -> Task:
    training = TrainingSpec.model_validate(task.training.model_dump() | {"objective": objective})
    spec = task.model.model_copy(update=model)
    return task.model_copy(update={"training": training, "model": spec})


def values_of(task: Task) -> list[np.ndarray]:
    shape = model_shape(build(SEED), task.model, embedding_rows(task, 256))
    return initial_model(shape, seed=0)


def test_an_unknown_objective_is_named_with_the_nearest_one():
    with pytest.raises(ValueError, match="unknown objective 'maskd'; did you mean 'masked'"):
        TrainingSpec(objective="maskd")


def test_a_registered_objective_trains_a_candidate(tiny_task):
    task = changed(tiny_task, "after_next")
    assert window_length(task) == 18
    short, long = (evaluate(SEED, task, Budget("steps", n), seed=1) for n in (2, 60))
    assert long.status == "completed" and long.val_loss < short.val_loss - 0.5
    other = evaluate(SEED, tiny_task, Budget("steps", 2), seed=1)
    assert other.val_loss != short.val_loss


def test_a_registered_objective_is_scored_on_its_own_targets(tiny_task):
    """Against cross entropy in NumPy from the model's logits."""
    task = changed(tiny_task, "after_next")
    windows = np.random.default_rng(0).integers(0, 256, (2, 4, 18))
    values, layers = values_of(task), model_layers(build(SEED), task)
    expected = []
    for batch in windows:
        scores, _ = logits(layers, values, batch[:, :16], False, None)
        scores = np.asarray(scores, np.float64)
        every = np.log(np.exp(scores).sum(-1))
        right = np.take_along_axis(scores, batch[:, 2:, None], -1)[..., 0]
        expected.append((every - right).mean())
    made = make_engine(build(SEED), values, task).score(windows)
    assert made == pytest.approx(np.mean(expected), abs=1e-5)


def test_a_slice_is_scored_over_all_positions_that_count(tiny_task):
    """Not as the mean of its batches' means, where few positions of one batch would weigh as much
    as many of another."""
    task = changed(tiny_task, "of_low_tokens")
    windows = np.random.default_rng(0).integers(0, 256, (3, 4, 17))
    windows[0, :, :-1] %= 80
    windows[1] = 255
    values, layers = values_of(task), model_layers(build(SEED), task)
    row = OBJECTIVES["of_low_tokens"]
    parts = [token_losses(layers, values, batch, False, None, row)[:2] for batch in windows]
    losses, counts = (
        np.array([np.asarray(part) for part in each]) for each in zip(*parts, strict=True)
    )
    assert counts[0].all() and not counts[1].any() and 0 < counts[2].sum() < 30
    made = make_engine(build(SEED), values, task).score(windows)
    assert made == pytest.approx((losses * counts).sum() / counts.sum(), abs=1e-5)


def test_a_batch_in_which_nothing_counts_has_a_finite_loss_and_no_gradient(tiny_task):
    task = changed(tiny_task, "of_nothing")
    weights = [tf.constant(value) for value in values_of(task)]
    layers, windows = model_layers(build(SEED), task), tf.zeros((4, 17), tf.int32)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        total, loss, _ = training_loss(layers, weights, windows, None, OBJECTIVES["of_nothing"])
    found = tape.gradient(total, weights)
    assert float(total) == float(loss) == 0
    assert not any(np.asarray(tf.convert_to_tensor(each)).any() for each in found)
    outcome = evaluate(SEED, task, Budget("steps", 2), seed=1)
    assert (outcome.status, outcome.reason[:22]) == ("diverged", "validation loss is nan")


def test_masked_hides_at_least_one_token_of_a_sequence_and_a_share_of_many():
    windows = tf.constant(np.random.default_rng(0).integers(0, 256, (200, 3)), tf.int32)
    few = MASKED.batch(windows, 256, 1)
    hidden = np.asarray(few.counts)
    assert set(hidden.sum(-1)) == {1.0, 2.0} and 0.5 < hidden.mean() < 0.6
    np.testing.assert_array_equal(few.tokens, np.where(hidden > 0, 256, windows[:, :-1]))
    np.testing.assert_array_equal(few.targets, windows[:, :-1])
    many = MASKED.batch(tf.zeros((64, 513), tf.int32), 256, 1)
    assert np.asarray(many.counts).mean() == pytest.approx(MASKED_SHARE, abs=0.01)


def test_what_is_hidden_does_not_follow_from_what_the_first_block_draws():
    drawn = []

    def batch(windows, vocabulary, random):
        drawn.append(keras.random.uniform((4, 16), seed=random))
        return Batch(windows[:, :-1], windows[:, 1:])

    def apply(x, weights, tokens, seed):
        drawn.append(keras.random.uniform((4, 16), seed=Seeds(seed)))
        return x, Auxiliary()

    layer = Layer(apply, apply, (), True, ())
    spec = Task(model=ModelSpec(d_model=8, layers=1, sequence_length=16)).model
    values = initial_model(model_shape(build(SEED), spec, 256), seed=0)[:4]
    row, seed = Objective("spy", "", batch), tf.constant([7, 3], tf.int32)
    token_losses([layer, layer], values, tf.zeros((4, 17), tf.int32), True, seed, row)
    own, first, second = (np.asarray(each) for each in drawn)
    assert not (own == first).any() and not (own == second).any() and not (first == second).any()


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_the_smallest_masked_batch_trains(tiny_task, tmp_path, backend):
    """One sequence of two tokens, in a process of its own for JAX; and the masked objective on JAX
    learns as it does on TensorFlow, though what is hidden differs."""
    pytest.importorskip(backend, reason="the extra is not installed")
    path = tmp_path / "task.json"
    path.write_text(changed(tiny_task, "masked").model_dump_json())
    code = f"""if True:
        from pathlib import Path
        from primitives.programs.seeds import load_seed
        from workers.machine.backends import configure
        from workers.machine.devices import Layout
        from workers.spec.outcome import Budget
        from workers.spec.task import ModelSpec, Task
        from workers.training.evaluate import evaluate
        configure({backend!r}, Layout(1, 1, 0.0), None)
        task = Task.model_validate_json(Path({str(path)!r}).read_text())
        training = task.training.model_copy(update={{"backend": {backend!r}}})
        task = task.model_copy(update={{"training": training}})
        small = task.model_copy(update={{
            "model": ModelSpec(d_model=8, layers=1, sequence_length=2),
            "training": training.model_copy(update={{"batch_size": 1, "eval_batches": 1}}),
        }})
        for given, steps in ((small, 3), (task, 2), (task, 60)):
            made = evaluate(load_seed("transformer"), given, Budget("steps", steps), seed=1)
            assert made.status == "completed", made
            print(made.val_loss)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    small, short, long = map(float, done.stdout.split())
    assert 0 < small < 10 and long < short - 0.5


@pytest.mark.slow
def test_a_pool_starts_on_jax_with_the_masked_objective(ray_session, tiny_task, tmp_path):
    pytest.importorskip("jax", reason="the jax extra is not installed")
    from workers.pool.pool import Pool

    training = tiny_task.training.model_copy(update={"backend": "jax", "objective": "masked"})
    task = tiny_task.model_copy(update={"training": training})
    with Pool(task, PoolSpec(count=1, cpus_per_worker=1)) as pool:
        pool.submit(Job(1, render(SEED), Budget("steps", 1), seed=1))
        (report,) = pool.wait(240)
    assert report.outcome.status == "completed", report.outcome
    assert Path(report.worker).name.isdigit()
