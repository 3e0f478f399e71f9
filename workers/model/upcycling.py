"""Start values of a routed model from a trained dense one (Komatsuzaki et al. 2022).

Every expert is a copy of the dense block's weights, whatever else the blocks share is taken over,
and routers start afresh. Where a token's gates sum to 1, the model then gives what the dense one
gives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from primitives.graph.build import Graph
from primitives.lowering.layer import Array
from primitives.lowering.weights import WeightSpec, has_weight
from workers.model.shape import ModelShape

_COUNTER = re.compile(r"_\d+\Z")


class NotUpcyclable(Exception):
    """A dense model that a program cannot start from: which weights disagree, and what to do."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A weight of a block that waits for its start value."""

    spec: WeightSpec
    experts: tuple[int, ...]
    score: bool

    @property
    def dense(self) -> tuple[int, ...]:
        """Its shape without the axes that count experts."""
        return tuple(n for axis, n in enumerate(self.spec.shape) if axis not in self.experts)

    @property
    def may_be_fresh(self) -> bool:
        """Whether it is a router's: scores, and states that are not trained."""
        return not self.experts and (self.score or not self.spec.trainable)

    def takes(self, name: str, array: Array) -> bool:
        shapes = (self.dense, self.spec.shape)
        return _kind(name) == _kind(self.spec.name) and array.shape in shapes

    def value(self, array: Array) -> Array:
        """The array, copied for every expert."""
        if array.shape != self.spec.shape:
            array = np.expand_dims(array, self.experts)
        return np.ascontiguousarray(np.broadcast_to(array, self.spec.shape), np.float32)


def upcycled(
    graphs: Sequence[Graph], shape: ModelShape, fresh: Sequence[Array], dense: Mapping[str, Array]
) -> list[Array]:
    """The model's start values, in order: `fresh` ones for routers, else those of `dense`, the
    weights of a trained model by name (`ModelShape.names`), a block's in canonical order. `graphs`
    are the programs of the layers.

    A block's weights are matched in order, by kind and by shape without the axis of experts.
    NotUpcyclable where one of the dense model has no place, or one that is no router's gets none.
    """
    values = dict(zip(shape.names, fresh, strict=True))
    for name, needed in shape.outer.items():
        found = dense[name].shape if name in dense else None
        if found != needed:
            raise NotUpcyclable(
                f"'{name}' has shape {found} in the dense model, and this one needs {needed}: "
                "task.model and task.data have to be those that it was trained with"
            )
        values[name] = np.asarray(dense[name], np.float32)
    has = {int(name.split("/")[1]) for name in dense if name.startswith("blocks/")}
    needs = {layer for layer, block in enumerate(shape.blocks) if block}
    if has != needs:
        raise NotUpcyclable(
            f"the dense model has weights in {len(has)} layers, and this one in {len(needs)}: "
            "task.model.layers and share_layers have to be those that it was trained with"
        )
    for layer in sorted(needs):
        prefix = f"blocks/{layer}/"
        own = {name: dense[name] for name in dense if name.startswith(prefix)}
        places = _places(graphs[layer], shape.blocks[layer])
        for name, value in _block(places, own, layer).items():
            values[prefix + name] = value
    return list(values.values())


def _places(graph: Graph, specs: Sequence[WeightSpec]) -> list[_Place]:
    made = []
    weighted = (node for node in graph.nodes if has_weight(node))
    for node, spec in zip(weighted, specs, strict=True):
        experts = tuple(axis for axis, size in enumerate(node.context) if size < 0)
        made.append(_Place(spec, experts, node.op == "SCORE"))
    return made


def _block(
    places: Sequence[_Place], dense: Mapping[str, Array], layer: int
) -> dict[str, Array]:  # fmt: skip
    """The values that a block takes over, by name."""
    left, missing = list(dense.items()), []
    found: dict[str, Array] = {}
    for place in places:
        if left and place.takes(*left[0]):
            found[place.spec.name] = place.value(left.pop(0)[1])
        elif not place.may_be_fresh:
            missing.append(place)
    if not (left or missing):
        return found
    has = f"'{left[0][0].rpartition('/')[2]}' of shape {left[0][1].shape}" if left else "nothing"
    needs = "nothing"
    if missing:
        each = " in each expert" if missing[0].experts else ""
        needs = f"'{missing[0].spec.name}' of shape {missing[0].dense}{each}"
    raise NotUpcyclable(
        f"layer {layer + 1}: the dense model has {has}, and this program needs {needs}; an expert "
        "has to do what the dense block does there, and be as wide: the program's dims set that"
    )


def _kind(name: str) -> str:
    """What stands at the end of a weight's name: its operation."""
    return _COUNTER.sub("", name.rpartition("/")[2]).rpartition("_")[2]
