"""The runner of a study: it looks up the runs that were made before, and trains and records the
rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from primitives.language.dna import DNA
from primitives.language.text import render
from search.campaign.controller import POLL_S, Evaluator
from search.config.programfile import checked
from search.errors import INTERRUPTED, PrimevoError
from search.storage.store import Store
from search.study.runs import keep, known
from search.study.setting import Setting
from workers.spec.outcome import Job, Outcome, Report


@dataclass(frozen=True, slots=True)
class Subject:
    """A program in a study. `hash` is that of its canonical graph in the study's task."""

    title: str
    dna: DNA
    hash: str

    @classmethod
    def of(cls, title: str, dna: DNA, setting: Setting) -> Subject:
        """A UsageError where the program has no type in the task."""
        return cls(title, dna, checked(dna, title, setting.task).hash)


@dataclass(frozen=True, slots=True)
class Planned:
    """A run that a study wants: a program under a setting and one of its seeds."""

    setting: Setting
    subject: Subject
    seed: int

    @property
    def key(self) -> str:
        """What the run is found by in the database."""
        return self.setting.key(self.subject.hash, self.seed)


class Drained(PrimevoError):
    """The study was asked to stop. What has ended is recorded."""

    exit_code = INTERRUPTED


class Runner:
    """Makes the runs of a study, of one setting or of several, whose tasks have one backend.

    Ownership: a runner owns neither store nor workers. `workers` is called when there is something
    to train for the first time; `store` None keeps nothing. `tell` is given a line for a person at
    each run's end.

    Interruption: a run is recorded when it ends. A study that was killed, made anew with the same
    settings and store, trains only what it had not recorded.
    """

    def __init__(
        self,
        name: str,
        workers: Callable[[], Evaluator],
        store: Store | None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.name = name
        self._workers, self._store, self._tell = workers, store, tell
        self._draining = False

    def drain(self) -> None:
        """Starts no more runs; `run` raises Drained when those under way have ended. Safe to call
        from a signal handler."""
        self._draining = True

    def run(self, planned: Sequence[Planned]) -> dict[str, Outcome]:
        """The outcomes by the runs' keys. What is planned twice is run once; the rest is trained in
        the order in which it comes."""
        wanted: dict[str, Planned] = {}
        for each in planned:
            wanted.setdefault(each.key, each)
        found = self._known(wanted.values())
        if found:
            self._tell(f"{self.name}: {len(found)} of {len(wanted)} runs are known")
        missing = {key: each for key, each in wanted.items() if key not in found}
        found |= self._train(missing)
        self._warn_of_devices(wanted, found)
        return found

    def _warn_of_devices(self, wanted: Mapping[str, Planned], found: Mapping[str, Outcome]) -> None:
        """A second of training is more steps on a faster device."""
        timed = (key for key, each in wanted.items() if each.setting.budget.unit == "seconds")
        counts = Counter(found[key].device or "not recorded" for key in timed if key in found)
        if len(counts) > 1:
            told = ", ".join(f"{name} ({count} runs)" for name, count in counts.most_common())
            self._tell(
                f"{self.name}: warning: runs were timed on different devices, and a budget in "
                f"seconds buys more steps on a faster one: {told}. `primevo studies delete` "
                "forgets runs of studies; the same command then trains them again on one device"
            )

    def _known(self, planned: Iterable[Planned]) -> dict[str, Outcome]:
        if self._store is None:
            return {}
        by_setting: dict[int, list[Planned]] = {}
        for each in planned:
            by_setting.setdefault(id(each.setting), []).append(each)
        found: dict[str, Outcome] = {}
        for group in by_setting.values():
            trials = {(each.subject.hash, each.seed): each.key for each in group}
            outcomes = known(self._store, group[0].setting, trials)
            found |= {trials[trial]: outcome for trial, outcome in outcomes.items()}
        return found

    def _train(self, planned: Mapping[str, Planned]) -> dict[str, Outcome]:
        found: dict[str, Outcome] = {}
        if not planned:
            return found
        waiting = list(enumerate(planned))
        running: dict[int, str] = {}
        workers = self._workers()
        while running or (waiting and not self._draining):
            while waiting and not self._draining and len(running) < workers.capacity():
                number, key = waiting.pop(0)
                running[number] = key
                workers.submit(_job(number, planned[key]))
            for report in workers.wait(POLL_S):
                key = running.pop(report.job.id)
                found[key] = report.outcome
                self._keep(planned[key], report)
                self._say(len(found), len(planned), planned[key].subject, report)
        if waiting:
            raise Drained(
                f"{self.name} was drained; {len(waiting)} of its runs are left: the same command "
                "goes on from there"
            )
        return found

    def _keep(self, planned: Planned, report: Report) -> None:
        if self._store is not None:
            trial = planned.subject.hash, planned.seed
            keep(self._store, self.name, planned.setting, trial, report)

    def _say(self, done: int, total: int, subject: Subject, report: Report) -> None:
        outcome = report.outcome
        loss = "" if outcome.val_loss is None else f", validation loss {outcome.val_loss:.4f}"
        ended = f"{outcome.status} {outcome.reason}".strip()
        self._tell(f"{self.name}: run {done} of {total}: {subject.title}: {ended}{loss}")


def _job(number: int, planned: Planned) -> Job:
    setting = planned.setting
    text = render(planned.subject.dna)
    return Job(number, text, setting.budget, planned.seed, test=True, task=setting.task)
