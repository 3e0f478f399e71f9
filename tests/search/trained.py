"""A campaign that is really trained, one candidate after the other, in this process and without
Ray: python -m tests.search.trained URL. It prints what was recorded, without times."""

from __future__ import annotations

import json
import sys
from typing import Any

from sqlalchemy import select

from search.campaign.controller import Controller
from search.config.schema import BudgetSpec, CampaignConfig, FinalSpec, SearchSpec
from search.storage.models import Candidate, Evaluation
from search.storage.store import Store
from tests.search.instant import InstantEvaluator
from workers.spec.task import DataSpec, ModelSpec, OptimizerSpec, Task, TrainingSpec
from workers.training.evaluate import run_job

TASK = Task(
    data=DataSpec(max_documents=40),
    model=ModelSpec(d_model=16, layers=1, sequence_length=16),
    optimizer=OptimizerSpec(warmup_steps=10),
    training=TrainingSpec(batch_size=4, eval_batches=2),
)
SEARCH = SearchSpec(
    seeds=("transformer", "noisy_top_k"),
    population=4,
    tournament=2,
    candidates=6,
    budget=BudgetSpec(unit="steps", base=3.0, hurdles=1),
    final=FinalSpec(top=1, seeds=1),
)
TIMES = ("created_at", "finished_at", "train_seconds", "setup_seconds", "step_time_s")


def main(url: str) -> None:
    config = CampaignConfig(task=TASK, search=SEARCH, weights="")
    with Store.open(url) as store:
        campaign = store.create_campaign("trained", config.model_dump_json(), seed=5)
        evaluator = InstantEvaluator(outcome=lambda job: run_job(job, TASK))
        Controller(store, campaign, evaluator).run()
        print(json.dumps(rows(store)))


def rows(store: Store) -> list[list[Any]]:
    """Every candidate and every evaluation; of a curve all but the seconds."""
    found = []
    with store.reading() as connection:
        for model, order in ((Candidate, "id"), (Evaluation, "sequence")):
            columns = [c for c in model.__table__.c if c.name not in TIMES]
            statement = select(*columns).order_by(model.__table__.c[order])
            for row in connection.execute(statement):
                values = dict(row._mapping)
                if "curve" in values:
                    values["curve"] = [[*point[:2], point[3]] for point in values["curve"]]
                found.append(list(values.values()))
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
