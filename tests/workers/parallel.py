"""Run by test_parallel in an interpreter of its own, on eight virtual devices: trains an exported
mixture alone, with its batch, its experts, and both spread over devices. Prints each one's losses
and where its experts lie, as JSON. Nothing of the project can be imported here."""

import json
import sys
from importlib import import_module

for package in ("primitives", "workers", "search"):
    sys.modules[package] = None

import jax  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402

STEPS = 3


def spread(batch: int, experts: int) -> None:
    """So many devices for the batch times so many for the experts."""
    mesh = keras.distribution.DeviceMesh((batch, experts), ("batch", "experts"))
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*/expert_.*"] = ("experts", None, None)
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
    )


def losses(folder: str) -> dict[str, object]:
    """Of the trained model on windows of its own: the loss of each step."""
    model = import_module("switch_block").build_model()
    model.load_weights(f"{folder}/model.weights.h5")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss)
    rng = np.random.default_rng(0)
    text = rng.integers(0, 64, (8 * STEPS, 17))
    found = []
    for step in range(STEPS):
        part = text[8 * step : 8 * step + 8]
        found.append(float(model.train_on_batch(part[:, :-1], part[:, 1:])))
    (kernel,) = (v for v in model.variables if v.path.endswith("block_0/expert_wide_kernel"))
    shards = {str(shard.device): shard.data.shape for shard in kernel.value.addressable_shards}
    return {"losses": found, "shards": sorted(shards.values()), "devices": len(jax.devices())}


def main(folder: str) -> None:
    sys.path.insert(0, folder)
    made = {"alone": losses(folder)}
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    made["data"] = losses(folder)
    for name, shape in (("experts", (1, 8)), ("both", (2, 4))):
        spread(*shape)
        made[name] = losses(folder)
    print(json.dumps(made))


if __name__ == "__main__":
    main(sys.argv[1])
