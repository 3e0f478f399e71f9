"""Training: budgets, hurdles, outcomes and reproducibility, on the real engine."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from primitives import parse, render
from primitives.programs.seeds import load_seed
from workers.spec.objectives import NEXT_TOKEN
from workers.spec.outcome import Budget, Hurdle, Job
from workers.spec.task import DataSpec, ModelSpec, OptimizerSpec, Task, TrainingSpec
from workers.training.evaluate import evaluate, run_job

SEED = load_seed("transformer")


def changed(task: Task, **parts) -> Task:
    return task.model_copy(update=parts)


@pytest.fixture(scope="module")
def twenty(tiny_task):
    """Twenty steps of the seed program, scored on the way at 8."""
    return evaluate(SEED, tiny_task, Budget("steps", 20, (Hurdle(8),)), seed=1, test=True)


def test_a_run_learns_and_reports_what_it_used(twenty, tiny_task):
    longer = evaluate(SEED, tiny_task, Budget("steps", 80), seed=1)
    assert twenty.status == longer.status == "completed"
    assert longer.val_loss < twenty.val_loss < twenty.curve[0].val_loss
    assert longer.val_loss < math.log(256) - 1
    assert (twenty.steps, twenty.tokens) == (20, 20 * 4 * 16)
    assert twenty.train_seconds > 0 and twenty.setup_seconds > 0
    assert twenty.step_time_s == pytest.approx(twenty.train_seconds / 20)
    assert twenty.val_perplexity == pytest.approx(math.exp(twenty.val_loss))


def test_bits_per_byte_of_byte_tokens_is_the_loss_in_bits(twenty):
    assert twenty.val_bpb == pytest.approx(twenty.val_loss / math.log(2))
    assert twenty.test_bpb == pytest.approx(twenty.test_loss / math.log(2))


def test_a_run_says_what_it_trained_on(twenty):
    """Here that is the processor, by the name that the system has for it."""
    assert twenty.device
    assert f"model name\t: {twenty.device}\n" in Path("/proc/cpuinfo").read_text()


def test_the_test_split_is_scored_only_when_asked(twenty, tiny_task):
    assert twenty.test_loss is not None and twenty.test_loss != twenty.val_loss
    plain = evaluate(SEED, tiny_task, Budget("steps", 2), seed=1)
    assert plain.test_loss is None and plain.test_bpb is None
    assert "test_ece" in twenty.metrics and "test_ece" not in plain.metrics


def test_the_same_seed_gives_the_same_loss_and_another_seed_another(twenty, tiny_task):
    again = evaluate(SEED, tiny_task, Budget("steps", 20), seed=1)
    other = evaluate(SEED, tiny_task, Budget("steps", 20), seed=2)
    assert again.val_loss == twenty.val_loss, "a hurdle on the way, or chance, changed training"
    assert other.val_loss != twenty.val_loss


@pytest.mark.slow
def test_xla_changes_neither_the_start_nor_the_result(twenty, tiny_task):
    training = tiny_task.training.model_copy(update={"jit": "on"})
    compiled = evaluate(SEED, changed(tiny_task, training=training), Budget("steps", 20), seed=1)
    assert compiled.val_loss == pytest.approx(twenty.val_loss, abs=1e-4)


def test_equal_canonical_programs_train_alike(twenty, tiny_task):
    renamed = parse(render(SEED).replace("residual(x, mixed)", "residual(mixed, x)"))
    assert renamed != SEED
    assert evaluate(renamed, tiny_task, Budget("steps", 20), seed=1).val_loss == twenty.val_loss


def test_a_hurdle_stops_a_run_above_it_and_lets_one_below_go_on(twenty, tiny_task):
    at_eight = twenty.curve[0]
    strict = Budget("steps", 20, (Hurdle(8, at_eight.val_loss - 1e-6),))
    stopped = evaluate(SEED, tiny_task, strict, seed=1)
    assert (stopped.status, stopped.steps, stopped.hurdles_passed) == ("completed", 8, 0)
    assert stopped.val_loss == at_eight.val_loss
    just = evaluate(SEED, tiny_task, Budget("steps", 20, (Hurdle(8, at_eight.val_loss),)), seed=1)
    assert (just.steps, just.hurdles_passed) == (20, 1)
    assert just.val_loss == twenty.val_loss


def test_points_are_scored_and_stop_nothing(twenty, tiny_task):
    budget = Budget("steps", 20, (Hurdle(8),), points=(3.0, 12.0))
    pointed = evaluate(SEED, tiny_task, budget, seed=1)
    assert [point.steps for point in pointed.curve] == [3, 8, 12, 20]
    assert (pointed.status, pointed.hurdles_passed) == ("completed", 1)
    assert [pointed.curve[1].val_loss, pointed.val_loss] == [p.val_loss for p in twenty.curve]
    strict = dataclasses.replace(budget, hurdles=(Hurdle(8, twenty.curve[0].val_loss - 1e-6),))
    stopped = evaluate(SEED, tiny_task, strict, seed=1)
    assert ([point.steps for point in stopped.curve], stopped.hurdles_passed) == ([3, 8], 0)
    three = evaluate(SEED, tiny_task, Budget("steps", 3), seed=1)
    assert pointed.curve[0].val_loss == three.val_loss


@pytest.mark.parametrize("unit", ["tokens", "flops"])
def test_budgets_in_tokens_and_flops_round_up_to_whole_steps(twenty, tiny_task, unit):
    a_step = 4 * 16 * (1 if unit == "tokens" else 3 * twenty.flops_per_token)
    outcome = evaluate(SEED, tiny_task, Budget(unit, 4.5 * a_step), seed=1)
    assert outcome.steps == 5


def test_a_budget_in_seconds_counts_training_only(tiny_task):
    outcome = evaluate(SEED, tiny_task, Budget("seconds", 0.3), seed=1)
    assert outcome.status == "completed" and outcome.steps > 1
    assert outcome.train_seconds >= 0.3
    assert outcome.train_seconds - 0.3 < 0.5 + 2 * outcome.step_time_s


def test_a_loss_that_is_not_finite_is_a_divergence_that_says_when(tiny_task):
    wild = changed(tiny_task, optimizer=OptimizerSpec(learning_rate=1e30, warmup_steps=1))
    outcome = evaluate(SEED, wild, Budget("steps", 300), seed=1)
    assert outcome.status == "diverged" and "step" in outcome.reason
    assert outcome.steps < 300 and outcome.fitness is None


def test_a_program_without_a_type_is_invalid(tiny_task):
    open_sum = render(SEED).replace("total = RED SUM(visible)", "total = RED SUM(exponential)")
    outcome = evaluate(parse(open_sum), tiny_task, Budget("steps", 2), seed=1)
    assert outcome.status == "invalid" and "reads the future" in outcome.reason
    job = Job(id=7, dna="not a program", budget=Budget("steps", 2), seed=1)
    assert run_job(job, tiny_task).status == "invalid"


def test_a_split_shorter_than_a_sequence_is_invalid_and_named(tiny_task, tmp_path):
    (tmp_path / "prose.txt").write_text("word " * 40)
    data = DataSpec(source="text", files=(str(tmp_path / "prose.txt"),))
    outcome = evaluate(SEED, changed(tiny_task, data=data), Budget("steps", 2), seed=1)
    assert outcome.status == "invalid"
    assert (
        "the validation split has 11 tokens, and a sequence with its targets needs 17"
        in outcome.reason
    )


@pytest.mark.slow
def test_memory_that_runs_out_is_an_outcome(tiny_task):
    huge = changed(
        tiny_task,
        model=ModelSpec(d_model=8, layers=1, sequence_length=1 << 18),
        training=TrainingSpec(batch_size=1, eval_batches=1),
        data=tiny_task.data.model_copy(update={"max_documents": None}),
    )
    outcome = evaluate(SEED, huge, Budget("steps", 1), seed=1)
    assert outcome.status == "out_of_memory", outcome


def test_kept_weights_have_the_models_names_and_shapes(tiny_task, tmp_path):
    from primitives import build
    from workers.model.shape import model_shape

    path = tmp_path / "deep" / "1.npz"
    evaluate(SEED, tiny_task, Budget("steps", 2), seed=1, weights=str(path))
    shape = model_shape(build(SEED), tiny_task.model, 256)
    with np.load(path) as kept:
        assert str(kept["precision"]) == "float32"
        shapes = {name: kept[name].shape for name in kept if name != "precision"}
    assert shapes == dict(zip(shape.names, shape.shapes, strict=True))
    assert [p.name for p in path.parent.iterdir()] == ["1.npz"]


def test_weights_that_cannot_be_kept_lose_no_outcome(tiny_task, tmp_path):
    (tmp_path / "deep").touch()  # a file, where a folder should be
    weights = str(tmp_path / "deep" / "1.npz")
    outcome = evaluate(SEED, tiny_task, Budget("steps", 2), seed=1, weights=weights)
    assert outcome.status == "completed" and outcome.val_loss is not None
    assert outcome.reason == "its weights could not be kept (File exists)"


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_the_engine_trains_as_plain_keras_does(tiny_task, name):
    """The same optimiser on one variable a weight, stepped eagerly by hand."""
    import keras
    import tensorflow as tf

    from primitives import build
    from workers.engines.engine import make_engine
    from workers.engines.optimizer import make_optimizer
    from workers.model.learning import training_loss
    from workers.model.model import model_layers
    from workers.model.shape import initial_model, model_shape

    spec = OptimizerSpec(name=name, learning_rate=0.01, warmup_steps=2, clip_norm=0.5)
    task = changed(tiny_task, optimizer=spec)
    graph = build(SEED)
    values = initial_model(model_shape(graph, task.model, 256), seed=3)
    windows = np.random.default_rng(0).integers(0, 256, (3, 4, 17))
    engine = make_engine(graph, values, task)
    ours = [engine.train(windows[i : i + 1]) for i in range(3)]

    layers, optimizer = model_layers(graph, task), make_optimizer(spec)
    variables = [keras.Variable(value) for value in values]
    theirs = []
    for batch in windows:
        with tf.GradientTape() as tape:
            weights = [tf.convert_to_tensor(variable.value) for variable in variables]
            tape.watch(weights)
            loss, *_ = training_loss(layers, weights, tf.constant(batch), None, NEXT_TOKEN)
        optimizer.apply(tape.gradient(loss, weights), variables)
        theirs.append(float(loss))
    assert ours == pytest.approx(theirs, abs=1e-5)
    for mine, variable in zip(engine.weights(), variables, strict=True):
        np.testing.assert_allclose(mine, variable.numpy(), atol=1e-5)


@pytest.mark.slow
def test_jax_trains_as_tensorflow_does(tiny_task, tmp_path):
    """Twenty steps from the same weights, of a dense program and of one with experts and a state;
    JAX in a process of its own, as Keras has one backend. A program's second run is compiled by the
    first."""
    pytest.importorskip("jax", reason="the jax extra is not installed")
    task = tmp_path / "task.json"
    task.write_text(tiny_task.model_dump_json())
    code = f"""if True:
        from pathlib import Path
        from primitives.programs.seeds import load_seed
        from workers.machine.backends import configure
        from workers.training.evaluate import evaluate
        from workers.spec.outcome import Budget
        from workers.machine.devices import Layout
        from workers.spec.task import Task
        configure("jax", Layout(1, 1, 0.0), None)
        import jax
        hits = []
        jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
        task = Task.model_validate_json(Path({str(task)!r}).read_text())
        training = task.training.model_copy(update={{"backend": "jax"}})
        task = task.model_copy(update={{"training": training}})
        for name in ("transformer", "deepseek", "transformer"):
            found = hits.count("/jax/compilation_cache/cache_hits")
            print(evaluate(load_seed(name), task, Budget("steps", 20), seed=1).val_loss)
        assert hits.count("/jax/compilation_cache/cache_hits") >= found + 2
        import keras
        assert keras.backend.backend() == "jax"
    """
    kept = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # else a fast machine keeps little
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=kept
    )
    assert done.returncode == 0, done.stderr
    programs = (SEED, load_seed("deepseek"), SEED)
    ours = [evaluate(dna, tiny_task, Budget("steps", 20), seed=1).val_loss for dna in programs]
    assert [float(loss) for loss in done.stdout.split()] == pytest.approx(ours, abs=1e-4)


def test_a_process_has_one_backend(tiny_task):
    jax = changed(tiny_task, training=TrainingSpec(backend="jax"))
    with pytest.raises(RuntimeError, match="runs Keras on tensorflow; start a new one for jax"):
        evaluate(SEED, jax, Budget("steps", 1), seed=1)


def test_the_schedule_warms_up_and_then_falls_with_the_root():
    from workers.engines.optimizer import WarmupRsqrt

    rate = WarmupRsqrt(0.1, 4)
    assert [float(rate(step)) for step in (0, 1, 3)] == pytest.approx([0.025, 0.05, 0.1])
    assert float(rate(15)) == pytest.approx(0.05)


def test_losses_of_training_are_kept(twenty, tiny_task):
    assert [at for at, _ in twenty.training] == [8, 20]
    longer = evaluate(SEED, tiny_task, Budget("steps", 80), seed=1)
    assert [at for at, _ in longer.training] == [16, 32, 48, 64, 80]
    losses = [loss for _, loss in longer.training]
    assert losses[-1] < losses[0] and all(loss == pytest.approx(loss) for loss in losses)
    assert abs(losses[-1] - longer.val_loss) < 1.0


def test_outcomes_are_plain_data(twenty):
    assert dataclasses.asdict(twenty)["curve"][0]["steps"] == 8
