"""A campaign whose candidates somebody else evaluates: ask for some, tell how they ended.

The controller stays what it is; the caller takes the evaluator's place. So what is proposed,
recorded and resumed is the same as in a campaign that workers run.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from search.campaign.controller import Controller, Show
from search.campaign.progress import Progress
from search.config.plugins import stored_config
from search.errors import UsageError
from search.storage.store import CampaignRow, Store
from workers.spec.outcome import Job, Outcome, Report

Key = tuple[int, int]
"""A run in a campaign: the candidate's number and the seed."""


class Hands:
    """An evaluator (search.campaign.controller.Evaluator) that trains nothing: jobs wait in `fresh`
    until they are handed out, and reports come from whoever was given them."""

    def __init__(self) -> None:
        self.room = 0
        self.fresh: list[Job] = []
        self.out: dict[Key, Job] = {}
        self.told: list[Report] = []

    def capacity(self) -> int:
        return self.room

    def submit(self, job: Job) -> None:
        self.fresh.append(job)
        self.out[job.id, job.seed] = job

    def wait(self, timeout_s: float) -> list[Report]:
        reports, self.told = self.told, []
        return reports

    def why_waiting(self) -> str | None:
        return "for outcomes of the candidates that were asked for" if self.out else None


class Asking:
    """Holds a campaign between `__enter__` and `__exit__` and gives its candidates out.

    A candidate that was asked for and never told is given out again, with its number and seed, the
    next time that the campaign is opened."""

    def __init__(self, store: Store, campaign: CampaignRow, show: Show | None = None) -> None:
        if stored_config(campaign.config, campaign.name).search.budget.promotes:
            raise UsageError(
                "search.budget.rule promote pauses candidates, which Primevo's own workers alone "
                "can; for candidates that somebody else trains set it to top"
            )
        self._hands = Hands()
        self._controller = Controller(store, campaign, self._hands, show)
        self._held = ExitStack()
        self._over = False

    def __enter__(self) -> Self:
        self._held.enter_context(self._controller.opened())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.__exit__(kind, error, trace)

    def ask(self, count: int = 1) -> list[Job]:
        """Up to `count` runs to be done, each recorded before it is given out.

        There are fewer, or none, where the next ones depend on outcomes that were not told yet
        (those of the seed programs, of all candidates before the final phase), and none at the end
        of the campaign. Raises a PrimevoError where no child passes the gates."""
        hands = self._hands
        hands.room = len(hands.out) + count
        before: tuple[int, int] | None = None
        while not self._over and len(hands.fresh) < count:
            now = self._controller.progress().recorded, len(hands.fresh)
            if now == before:  # a step that adds nothing: only an outcome can change that
                break
            before = now
            self._step()
        given, hands.fresh = hands.fresh, []
        return given

    def tell(self, key: Key, outcome: Outcome, worker: str = "caller") -> None:
        """Records how a run ended; it is in the database when this returns. A UsageError where the
        run was not asked for, or was told before."""
        hands = self._hands
        if key not in hands.out:
            waiting = ", ".join(str(id) for id, _ in hands.out) or "none"
            raise UsageError(
                f"candidate {key[0]} (seed {key[1]}) waits for no outcome; those that were asked "
                f"for and not told: {waiting}"
            )
        hands.told.append(Report(hands.out.pop(key), outcome, worker))
        hands.room = len(hands.out) + len(hands.told)  # nothing new is given out
        self._step()  # collects
        hands.room = len(hands.out)
        self._step()  # records

    def progress(self) -> Progress:
        """Where the campaign stands."""
        return self._controller.progress()

    def _step(self) -> None:
        self._over = not self._controller.step(0.0)
