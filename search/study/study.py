"""The runner of a study: what was run before is looked up, the rest is trained and recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from primitives.language.dna import DNA
from primitives.language.text import render
from search.campaign.controller import POLL_S, Evaluator
from search.config.programfile import checked
from search.errors import INTERRUPTED, PrimevoError
from search.storage.store import Store
from search.study.runs import Trial, keep, known
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


Runs = Mapping[int, Outcome]
"""A program's outcomes by seed."""


class Drained(PrimevoError):
    """The study was asked to stop. What has ended is recorded."""

    exit_code = INTERRUPTED


class Study:
    """Trains programs under one setting.

    Ownership: a study owns neither store nor workers. `workers` is called when there is something
    to train for the first time; `store` None keeps nothing. `tell` is given a line for a person at
    each run's end.

    Interruption: a run is recorded when it ends. A study that was killed, made anew with the same
    setting and store, trains only what it had not recorded.
    """

    def __init__(
        self,
        name: str,
        setting: Setting,
        workers: Callable[[], Evaluator],
        store: Store | None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.name, self.setting = name, setting
        self._workers, self._store, self._tell = workers, store, tell
        self._draining = False

    def drain(self) -> None:
        """Starts no more runs; `run` raises Drained when those under way have ended. Safe to call
        from a signal handler."""
        self._draining = True

    def run(self, subjects: Sequence[Subject], seeds: Sequence[int] | None = None) -> list[Runs]:
        """The outcomes of each subject, in their order, under the setting's seeds or other ones.
        Programs with one hash are trained once."""
        seeds = self.setting.seeds if seeds is None else seeds
        titles: dict[str, Subject] = {}
        for subject in subjects:
            titles.setdefault(subject.hash, subject)
        trials = [(hash, seed) for hash in titles for seed in seeds]  # one program compiles once
        found = {} if self._store is None else known(self._store, self.setting, trials)
        missing = [trial for trial in trials if trial not in found]
        if found:
            self._tell(f"{self.name}: {len(found)} of {len(trials)} runs are known")
        found |= self._train(missing, titles)
        return [{seed: found[subject.hash, seed] for seed in seeds} for subject in subjects]

    def _train(
        self, trials: Sequence[Trial], subjects: Mapping[str, Subject]
    ) -> dict[Trial, Outcome]:
        found: dict[Trial, Outcome] = {}
        if not trials:
            return found
        waiting = list(enumerate(trials))
        running: dict[int, Trial] = {}
        workers = self._workers()
        while running or (waiting and not self._draining):
            while waiting and not self._draining and len(running) < workers.capacity():
                number, (hash, seed) = waiting.pop(0)
                running[number] = hash, seed
                text = render(subjects[hash].dna)
                workers.submit(Job(number, text, self.setting.budget, seed, test=True))
            for report in workers.wait(POLL_S):
                trial = running.pop(report.job.id)
                found[trial] = report.outcome
                self._keep(trial, report)
                self._say(len(found), len(trials), subjects[trial[0]], report)
        if waiting:
            raise Drained(
                f"{self.name} was drained; {len(waiting)} of its runs are left: the same command "
                "goes on from there"
            )
        return found

    def _keep(self, trial: Trial, report: Report) -> None:
        if self._store is not None:
            keep(self._store, self.name, self.setting, trial, report)

    def _say(self, done: int, total: int, subject: Subject, report: Report) -> None:
        outcome = report.outcome
        loss = "" if outcome.val_loss is None else f", validation loss {outcome.val_loss:.4f}"
        ended = f"{outcome.status} {outcome.reason}".strip()
        self._tell(f"{self.name}: run {done} of {total}: {subject.title}: {ended}{loss}")


def completed(runs: Runs) -> Iterable[tuple[int, Outcome]]:
    """The runs that have a score, by seed."""
    return [(seed, each) for seed, each in runs.items() if each.status == "completed"]
