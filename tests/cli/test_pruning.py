"""`primevo prune`: what it refuses, and the finalists of a campaign made smaller."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command import primevo, refusal

SEED = ("--seed-program", "transformer", "--config", "small.yaml")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (SEED, "--sparsity SHARE or --target-speedup N"),
        ((*SEED, "--sparsity", 0.5, "--target-speedup", 2), "--sparsity SHARE or"),
        ((*SEED, "--sparsity", 1), "--sparsity must be above 0 and below 1, got 1"),
        ((*SEED, "--target-speedup", 0.5), "--target-speedup must be above 1, got 0.5"),
        ((*SEED, "--target-speedup", "nan"), "--target-speedup must be above 1, got nan"),
        (("small", 1, "--finalists", "--sparsity", 0.5), "--finalists goes with a campaign's NAME"),
        (("small", 1, "--sparsity", 0.5, "--to", "."), "not an empty folder"),
    ],
)
def test_what_is_wrong_is_said_at_once(
    campaign: Path, arguments: tuple[object, ...], told: str
) -> None:
    assert told in refusal(2, "prune", *arguments)


def test_without_kept_weights_there_are_no_finalists(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # weights are looked for here
    storage = ("--storage", f"sqlite:///{campaign}/primevo.db")
    told = refusal(1, "prune", "small", "--finalists", "--sparsity", 0.5, *storage)
    assert "no weights of small are kept" in told and "primevo prune small ID" in told


@pytest.mark.slow
def test_finalists_are_made_smaller(campaign: Path) -> None:
    from primitives.graph.build import Graph, build
    from primitives.language.jsonform import from_json
    from search.storage.store import Store
    from tests.cli.command import data
    from workers.model.shape import initial_model, model_shape

    with Store.open("sqlite:///primevo.db", create=False) as store:
        from search.cli.commands.opening import stored_config

        config = stored_config(store, "small")
    ids = [1, 12, 23]  # the last one cannot become so small
    for id in ids:
        graph = build(from_json(data("show", "small", id)["dna"]))
        assert isinstance(graph, Graph)
        shape = model_shape(graph, config.task.model, 256)
        file = config.weights_file("small", id)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **dict(zip(shape.names, initial_model(shape, id), strict=True)))
    options = ("--sparsity", 0.9975, "--steps", 4, "--no-baselines", "--to", "smaller")
    made = primevo("prune", "small", "--finalists", *options, "-o", "csv")
    rows = list(csv.DictReader(io.StringIO(made.stdout)))
    assert [row["model"] for row in rows] == ["whole", "pruned"] * 2
    assert "small-23: the target leaves" in made.stderr
    assert any(row["front"] == "true" for row in rows)
    for id in ids[:2]:
        card = json.loads(Path(f"smaller/small-{id}/card.json").read_text())
        assert card["pruned"]["share_gone"] >= 0.9975
        assert card["candidate"]["id"] == id and card["campaign"] == "small"
        assert "of 32 channels" in card["pruned"]["said"]
