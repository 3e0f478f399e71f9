"""A tiny campaign that pauses candidates, trained in one process: python -m tests.faults.promoting
FOLDER"""

from __future__ import annotations

import sys
from pathlib import Path

from search.campaign.controller import Controller
from search.config.schema import BudgetSpec, CampaignConfig, FinalSpec, LimitsSpec, SearchSpec
from search.storage.store import Store
from tests.benchmarks.promotion import Here
from workers.spec.task import DataSpec, ModelSpec, Task, TrainingSpec

NAME = "promoting"


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/primevo.db"


def config(folder: Path) -> CampaignConfig:
    return CampaignConfig(
        task=Task(
            data=DataSpec(max_documents=40),
            model=ModelSpec(d_model=16, layers=1, sequence_length=16),
            training=TrainingSpec(batch_size=4, eval_batches=2),
        ),
        search=SearchSpec(
            candidates=10,
            population=8,
            tournament=3,
            budget=BudgetSpec(unit="steps", base=2, hurdles=2, rule="promote"),
            limits=LimitsSpec(step_time_max=None),
            final=FinalSpec(top=0),
        ),
        weights=str(folder / "weights"),
    )


def go_on(folder: Path) -> None:
    """Runs the campaign from wherever it stands to its end."""
    with Store.open(url(folder)) as store:
        campaign = store.campaign(NAME)
        Controller(store, campaign, Here(config(folder).task)).run()


if __name__ == "__main__":
    go_on(Path(sys.argv[1]))
