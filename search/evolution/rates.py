"""How often each mutation is drawn, from what came of it: probability matching (Goldberg 1990).

A mutation pays where its child beats its parent. Its rate is its configured weight times the share
of its children that did, where every mutation is lent some children with the share of all: so a
rate moves as far as there is evidence, and none falls to zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

LENT = 10
"""Children that every mutation is lent, which paid as often as those of all mutations."""


@dataclass
class Rates:
    """Counts, by mutation, the children that have ended and those of them that beat their parent.
    They are a fold over a campaign's endings, as all of its state is."""

    ended: Counter[str] = field(default_factory=Counter)
    paid: Counter[str] = field(default_factory=Counter)

    def record(self, mutation: str, paid: bool) -> None:
        self.ended[mutation] += 1
        self.paid[mutation] += paid

    def weights(self, configured: Mapping[str, float]) -> dict[str, float]:
        """The relative weights by which the next mutation is drawn."""
        lent = LENT * (self.paid.total() + 1) / (self.ended.total() + 2)
        return {
            name: weight * (self.paid[name] + lent) / (self.ended[name] + LENT)
            for name, weight in configured.items()
        }


def beats(child: tuple[float | None, ...], parent: tuple[float | None, ...]) -> bool:
    """Whether losses along a child's run are lower than its parent's at the last point that both
    reached; False where either has none there."""
    shared = min(len(child), len(parent))
    if shared == 0:
        return False
    after, before = child[shared - 1], parent[shared - 1]
    return after is not None and before is not None and after < before
