"""Memories that a trained model can be scored with: one row a memory.

A row is more than its model, however that was trained: what was trained without memories may be
scored with them. Temperature and weight are chosen on the validation split alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from primitives.registry import Registry

Scope = Literal["none", "segment", "document"]


@dataclass(frozen=True, slots=True)
class Memory:
    """A row of MEMORIES. The next token's probability is (1 - weight) P + weight P_m.

    Attributes:
        name: what `--memory` calls it.
        meaning: what is remembered, in a line.
        shared: the positions that share P's softmax with the vocabulary, as in training with
            memories: none, the earlier ones of the `segment`, or those of the `document`, too.
        apart: what gives P_m, a softmax of its own: nothing (then there is no weight), the earlier
            positions of the document by their last hidden `states`, or the nearest entries of a
            datastore by `product` or by `distance`.
    """

    name: str
    meaning: str
    shared: Scope = "none"
    apart: Literal["nothing", "states", "product", "distance"] = "nothing"

    @property
    def stored(self) -> bool:
        """Whether it needs a datastore of the training split."""
        return self.apart in ("product", "distance")


MEMORIES: Registry[Memory] = Registry(
    "memory",
    (
        Memory("none", "the vocabulary alone"),
        Memory("local", "earlier positions of the same sequence (TrimeLM)", "segment"),
        Memory("long", "earlier positions of the document (TrimeLM-long)", "document"),
        Memory(
            "external", "those, and the nearest contexts of the training split (TrimeLM-ext)",
            "document", "product",
        ),
        Memory(
            "cache", "earlier positions of the document (continuous cache, Grave et al. 2017)",
            "none", "states",
        ),
        Memory(
            "knn", "the nearest contexts of the training split (kNN-LM, Khandelwal et al. 2020)",
            "none", "distance",
        ),
    ),
)  # fmt: skip
