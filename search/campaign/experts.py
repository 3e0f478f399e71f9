"""What the experts of a campaign's finalists are for, as final runs recorded it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from search.storage.models import Evaluation
from search.storage.store import Store

Call = Mapping[str, Any]
"""A routed call, see `workers.training.specialties.Specialty`."""


@dataclass(frozen=True, slots=True)
class Experts:
    """The routed calls of one final run, in the order of the model."""

    id: int
    seed: int
    calls: Sequence[Call]


def experts(store: Store, name: str, ids: Collection[int]) -> dict[int, Experts]:
    """By candidate: of its first final run that recorded its experts."""
    statement = (
        select(Evaluation.candidate_id, Evaluation.seed, Evaluation.experts)
        .where(
            Evaluation.campaign_id == store.campaign(name).id,
            Evaluation.candidate_id.in_(ids),
            Evaluation.kind == "final",
            Evaluation.experts.is_not(None),
        )
        .order_by(Evaluation.sequence)
    )
    found: dict[int, Experts] = {}
    with store.reading() as connection:
        for id, seed, calls in connection.execute(statement).tuples():
            found.setdefault(id, Experts(id, seed, calls or ()))
    return found


def told(call: Call) -> str:
    """layer 2: 8 experts, entropy of the load 1.90 of 2.08 nats, 1 without a token; agreement with
    the call before 0.21"""
    count, dead = call["experts"], call["dead"]
    line = (
        f"layer {call['layer']}: {count:,} experts, entropy of the load {call['entropy']:.2f} of "
        f"{math.log(count):.2f} nats, {dead:,} without a token"
    )
    agreed = call["agreement"]
    return line if agreed is None else f"{line}; agreement with the call before {agreed:.2f}"


def rows(call: Call, most: int) -> list[dict[str, Any]]:
    """The experts with the largest loads as a table has them: what each is sent most often, with
    its share of the load, and what it is sent more often than chance would, how many times so."""
    return [
        {
            "expert": each["expert"],
            "load": f"{100 * each['load']:.1f}%",
            "most often": ", ".join(
                f'"{text}" {100 * share:.0f}%' for text, share in each["often"]
            ),
            "more than by chance": ", ".join(
                f'"{text}" {lift:.1f}x' for text, lift in each["lifted"]
            ),
        }
        for each in call["fullest"][:most]
    ]
