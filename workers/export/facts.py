"""What a reader of an exported module or of its README is told first, from the card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workers.export.source import plain

NOT_TRAINED = "untrained"
"""In the place of a precision: the weights are start values."""


def facts_of(card: Mapping[str, Any]) -> dict[str, str]:
    """What a reader of the module or the README is told first."""
    cost = card["static_cost"]
    facts = {"Program": plain(f"{card['program']}, canonical hash {card['hash']}")}
    for label, key in (("In the search", "candidate"), ("These weights", "weights")):
        if scores := _scores(card.get(key) or {}):
            facts[label] = scores
    if verdict := card.get("verdict"):
        facts["Against the seed program"] = plain(str(verdict))
    if changes := card.get("changes"):
        facts["Changed since the seed program"] = plain("; ".join(map(str, changes)))
    if pruned := card.get("pruned"):
        facts["Pruned"] = plain(str(pruned["said"]))
    facts["As exported"] = _as_exported(card["exported"], card["trained_in"])
    size = f"{cost['parameters']:,} parameters"
    if cost["active_parameters"] < cost["parameters"]:
        size += f", {cost['active_parameters']:,} of them at work on a token"
    facts["Size"] = f"{size}, {cost['flops_per_token']:,} forward FLOPs a token"
    return facts


_TRAINED_IN = {
    "float32": "the weights were trained in the same precision",
    "mixed_bfloat16": "the weights were trained with products of matrices in bfloat16, so scores "
    "of that run differ from these by roundings",
    NOT_TRAINED: "the weights are start values: nothing was trained",
    "unknown": "in which precision the weights were trained is not known",
}


def _as_exported(exported: Mapping[str, Any], trained_in: str) -> str:
    """What the exported model scores, and whether its arithmetic is that of the training run."""
    computes = f"{_scores(exported)}, computed in {exported['precision']}"
    said = _TRAINED_IN.get(trained_in, f"the weights were trained in {plain(trained_in)}")
    return f"{computes}; {said}"


_BESIDE = {"test_ece": "expected calibration error", "test_brier": "Brier score"}


def _scores(record: Mapping[str, Any]) -> str:
    """A training run in a line; nothing where the record has no score."""
    parts = []
    for split, word in (("val", "validation"), ("test", "test"), ("transfer", "transfer")):
        loss, bits = record.get(f"{split}_loss"), record.get(f"{split}_bpb")
        if loss is not None and bits is not None:
            parts.append(f"{word} loss {loss:.4f} nats a token, {bits:.4f} bits a byte")
    for name, word in _BESIDE.items():
        if record.get(name) is not None:
            parts.append(f"{word} {record[name]:.4f}")
    steps = f" after {record['steps']:,} steps" if parts and record.get("steps") else ""
    return "; ".join(parts) + steps
