"""Run by test_export in an interpreter of its own: loads exported folders, compares, trains, saves.

What FOLDER should compute is in FOLDER.npz: logits, and, where programs route, what a pass in
training gives, adds to the loss and makes of the states. Everything that the folders need must come
from Keras: the project's packages cannot be imported here.
"""

import contextlib
import io
import runpy
import sys
import tempfile
from importlib import import_module
from pathlib import Path

sys.dont_write_bytecode = True
for package in ("primitives", "workers", "search"):
    sys.modules[package] = None
    with contextlib.suppress(ImportError):
        import_module(package)
        raise SystemExit(f"{package} can be imported")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402


def check(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    (path,) = folder.glob("*_block.py")
    module = import_module(path.stem)
    model = keras.saving.load_model(folder / "model.keras", safe_mode=True)
    with np.load(f"{folder}.npz") as arrays:
        kept = dict(arrays)
    tokens, expected = kept["tokens"], kept["logits"]
    compare(model, tokens, expected, causal=kept.get("causal", True))
    if hasattr(model, "generate"):
        writes(model, tokens, expected)
    if "training" in kept:
        leaves(model, kept)
    if not folder.name.startswith("mutant"):
        trains(model, tokens, kept)
    saves(model, tokens)
    works_in_bfloat16(module, tokens, folder)
    print(f"{folder.name}: equal, trains, saves")


def compare(model, tokens, expected, causal) -> None:
    """The whole, a prefix, a graph that knows neither batch nor length, a part of another model."""
    close(model(tokens), expected)
    traced = tf.function(model, input_signature=[tf.TensorSpec([None, None], tf.int32)])
    close(traced(tokens[:2]), expected[:2])
    if causal:
        close(model(tokens[:, :1]), expected[:, :1])
        close(traced(tokens[:2, :3]), expected[:2, :3])
    anything = keras.Input((None,), dtype="int32")
    close(keras.Model(anything, model(anything))(tokens), expected)


def close(found, expected) -> None:
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5, atol=1e-5)


def writes(model, tokens, expected) -> None:
    """A few positions at a time, where the program can; and a text."""
    if hasattr(model, "step"):
        cache, start = model.cache(len(tokens), model.sequence_length), 0
        for count in (4, 1, tokens.shape[1] - 5):
            part = tokens[:, start : start + count]
            logits, cache = model.step(part, cache, start)
            close(logits, expected[:, start : start + count])
            start += count
    if not model.name.startswith("mutant"):
        found = model.generate(tokens[:, :2], 3, temperature=0)
        best = np.asarray(model(found[:, :-1])).argmax(-1)[:, 1:]
        np.testing.assert_array_equal(found[:, 2:], best)


def leaves(model, kept) -> None:
    """A pass in training, at once and in a graph that knows neither batch nor length."""
    before = [np.asarray(weight) for weight in model.non_trainable_weights]

    def training(tokens):
        return model(tokens, training=True), model.losses

    anything = [tf.TensorSpec([None, None], tf.int32)]
    for run in (training, tf.function(training, input_signature=anything)):
        for weight, value in zip(model.non_trainable_weights, before, strict=True):
            weight.assign(value)
        found, losses = run(kept["tokens"])
        close(found, kept["training"])
        close(sum(losses), kept["losses"])
        for name, state in states(model, kept).items():
            close(state, kept[name])


def states(model, kept) -> dict:
    """The weights that training moves without a gradient, by what they are called in `kept`."""
    found = {}
    for name in kept:
        if name.startswith("state/"):
            _, _, block, own = name.split("/")
            weights = {weight.name: weight for weight in model.blocks[int(block)].weights}
            found[name] = weights[own]
    return found


def trains(model, tokens, kept) -> None:
    """At once, or, where programs route, in a graph that does not know the batch."""
    before = {name: np.asarray(state) for name, state in states(model, kept).items()}
    how = {"eager": {"run_eagerly": True}, "graph": {}, "xla": {"jit_compile": True}}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, **how[str(kept.get("fit", "eager"))])
    losses = model.fit(tokens[:, :-1], tokens[:, 1:], epochs=3, verbose=0).history["loss"]
    assert np.isfinite(losses).all(), losses
    assert losses[-1] < losses[0] or kept.get("noisy"), losses
    for name, state in states(model, kept).items():
        assert np.any(np.asarray(state) != before[name]), name


def saves(model, tokens) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "again.keras")
        model.save(path)
        again = keras.saving.load_model(path, safe_mode=True)
    assert again.get_config() == model.get_config()
    close(again(tokens), np.asarray(model(tokens)))


def works_in_bfloat16(module, tokens, folder: Path) -> None:
    model = module.build_model(dtype="mixed_bfloat16")
    model.load_weights(folder / "model.weights.h5")
    assert model.blocks[0].compute_dtype == "bfloat16"
    assert model(tokens).dtype == model(tokens, training=True).dtype == "bfloat16"
    assert all(variable.dtype == "float32" for variable in model.weights)


def runs(script: Path) -> None:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        runpy.run_path(str(script))
    assert text.getvalue().count("\n") == 3, text.getvalue()
    print(f"{script.parent.name}: runs")


folders = [Path(argument) for argument in sys.argv[1:]]
for each in folders:
    check(each)
runs(folders[0] / "example.py")
tf.config.run_functions_eagerly(True)  # one compiled run is enough, it takes long
runs(folders[-1] / "example.py")
