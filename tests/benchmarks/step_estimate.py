"""Can a step's time be told from the graph?

    python -m tests.benchmarks.step_estimate STORAGE_URL CAMPAIGN CAMPAIGN ...

The step times of recorded candidates, over their campaign's median, are fitted by least squares of
the relative error, no coefficient below zero, on a constant, FLOPs a token, bytes of activations
and the number of operations. Each campaign is predicted from the others. Prints a JSON object a
line: `ratio` has the 5th, 50th and 95th percentile of predicted over measured time, `correlation`
is that of the logarithms, `slow` counts the candidates above SLOW medians, and `caught` those of
them that the prediction says.
"""

from __future__ import annotations

import json
import sys
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from search.campaign.queries import stored_program
from search.config.plugins import stored_config
from search.config.programfile import checked
from search.report import queries
from search.storage.store import Store
from workers.spec.fit import task_cost, vocabulary_of

SLOW = 3.0


class Steps(NamedTuple):
    """Of one campaign: features [candidate, 4] and times over the median [candidate]."""

    features: npt.NDArray[np.float64]
    times: npt.NDArray[np.float64]


def main(url: str, names: list[str]) -> None:
    with Store.open(url, create=False) as store:
        steps = {name: recorded(store, name) for name in names}
    for name, own in steps.items():
        others = [each for key, each in steps.items() if key != name]
        features = np.concatenate([each.features for each in others])
        fitted = non_negative(features, np.concatenate([each.times for each in others]))
        predicted = own.features @ fitted
        slow = own.times > SLOW
        print(
            json.dumps(
                {
                    "campaign": name,
                    "candidates": len(own.times),
                    "ratio": np.percentile(predicted / own.times, [5, 50, 95]).round(2).tolist(),
                    "correlation": round(float(correlation(predicted, own.times)), 2),
                    "slow": int(slow.sum()),
                    "caught": int((slow & (predicted > SLOW)).sum()),
                }
            )
        )


def recorded(store: Store, name: str) -> Steps:
    campaign = store.campaign(name)
    task = stored_config(campaign.config, name).task
    features, times = [], []
    for run in queries.runs(store, name):
        if run.duplicate_of is not None or not run.step_time_s:
            continue
        graph = checked(stored_program(store, campaign, run.id), "a recorded program", task)
        cost = task_cost(graph, task, vocabulary_of(task))
        features.append([1.0, cost.flops_per_token, cost.activation_bytes, len(graph.nodes)])
        times.append(run.step_time_s)
    return Steps(np.array(features), np.array(times) / np.median(times))


def non_negative(
    features: npt.NDArray[np.float64], times: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Least squares of the relative error; the lowest coefficient goes while one is below zero."""
    size, kept = features.max(axis=0), list(range(features.shape[1]))
    while True:
        rows = features[:, kept] / size[kept] / times[:, None]
        found = np.linalg.lstsq(rows, np.ones(len(times)), rcond=None)[0]
        if (found >= 0).all():
            break
        kept.pop(int(found.argmin()))
    whole = np.zeros(features.shape[1])
    whole[kept] = found / size[kept]
    return whole


def correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    return float(np.corrcoef(np.log(one), np.log(other))[0, 1])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
