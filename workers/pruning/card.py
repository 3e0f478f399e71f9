"""What a pruned model's card says: what was asked for, what went, and what could not go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from primitives.cutting.units import Cuttable
from workers.pruning.plan import shared
from workers.pruning.pruning import Pruned, Settings
from workers.pruning.speed import BATCHES
from workers.pruning.table import Row


def about(pruned: Pruned, settings: Settings) -> dict[str, Any]:
    """The card's entry `pruned`."""
    layers, channels = [], pruned.shape.channels
    for number, (layer, own) in enumerate(_layers(pruned)):
        groups = [
            {"kind": group.kind, "name": group.name, "kept": int(mask.sum()), "of": group.count}
            for group, mask in zip(layer.groups, own[:-1], strict=True)
            if not shared(group)
        ]
        layers.append({"layer": number, "kept": number in pruned.shape.layers, "groups": groups})
    whole = {tuple(each) for layer in pruned.plan.layers for each in layer.whole}
    fields = ("kind", "name", "count", "reason")
    return {
        "target": asdict(settings.target),
        "share_gone": pruned.share_gone,
        "steps": settings.steps,
        "distillation": asdict(settings.distillation),
        "layers": layers,
        "channels": {"kept": int(channels.sum()), "of": len(channels)},
        "not_cut": [dict(zip(fields, each, strict=True)) for each in sorted(whole)],
        "table": records(pruned.rows),
        "said": said(pruned, settings),
    }


def said(pruned: Pruned, settings: Settings) -> str:
    """What went, in a sentence."""
    total, left = len(pruned.plan.layers), len(pruned.shape.layers)
    counts: dict[str, list[int]] = {}
    for number, (layer, own) in enumerate(_layers(pruned)):
        for group, mask in zip(layer.groups, own[:-1], strict=True):
            if shared(group):
                continue
            found = counts.setdefault(group.kind, [0, 0])
            found[0] += int(mask.sum()) if number in pruned.shape.layers else 0
            found[1] += group.count
    units = ", ".join(f"{kept} of {count} {kind}" for kind, (kept, count) in counts.items())
    words = {"parameters": "of the blocks' parameters", "flops": "of the FLOPs"}
    gone = f"{pruned.share_gone:.1%} {words[settings.target.measure]} went"
    channels = pruned.shape.channels
    width = f", {channels.sum()} of {len(channels)} channels" if pruned.plan.channels else ""
    inside = f", and in all layers {units}" if units else ""
    return f"{gone}; {left} of {total} layers are left{width}{inside}"


def _layers(pruned: Pruned) -> list[tuple[Cuttable, list[Any]]]:
    """Each layer with its masks."""
    return list(zip(pruned.plan.layers, pruned.plan.of_layers(pruned.kept), strict=True))


def records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The table's rows: speeds in tokens a second, and over those of the whole model."""
    whole = rows[0]
    found = []
    for row in rows:
        record: dict[str, Any] = {
            "model": row.name,
            "layers": row.layers,
            "parameters": row.cost.parameters,
            "flops_per_token": row.cost.flops_per_token,
            "val_bpb": row.val_bpb,
            "test_bpb": row.test_bpb,
            "steps": row.steps,
        }
        for batch, own, base in zip(BATCHES, row.speed, whole.speed, strict=True):
            record[f"tokens_per_s_batch_{batch}"] = own
            record[f"speedup_batch_{batch}"] = own / base
        found.append(record)
    return found
