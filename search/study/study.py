"""Programs trained under one setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from search.campaign.controller import Evaluator
from search.storage.store import Store
from search.study.runner import Drained, Planned, Runner, Subject
from search.study.setting import Setting
from workers.spec.outcome import Outcome

__all__ = ["Drained", "Runs", "Study", "Subject", "completed"]

Runs = Mapping[int, Outcome]
"""A program's outcomes by seed."""


class Study:
    """Trains programs under one setting; see `Runner` for ownership and interruption."""

    def __init__(
        self,
        name: str,
        setting: Setting,
        workers: Callable[[], Evaluator],
        store: Store | None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.setting = setting
        self._runner = Runner(name, workers, store, tell)

    def drain(self) -> None:
        """See `Runner.drain`."""
        self._runner.drain()

    def run(self, subjects: Sequence[Subject], seeds: Sequence[int] | None = None) -> list[Runs]:
        """The outcomes of each subject, in their order, under the setting's seeds or other ones.
        Programs with one hash are trained once."""
        seeds = self.setting.seeds if seeds is None else seeds
        plans = [  # seeds last: one program compiles once
            {seed: Planned(self.setting, subject, seed) for seed in seeds} for subject in subjects
        ]
        found = self._runner.run([each for plan in plans for each in plan.values()])
        return [{seed: found[each.key] for seed, each in plan.items()} for plan in plans]


def completed(runs: Runs) -> Iterable[tuple[int, Outcome]]:
    """The runs that have a score, by seed."""
    return [(seed, each) for seed, each in runs.items() if each.status == "completed"]
