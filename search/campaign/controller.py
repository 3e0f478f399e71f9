"""The loop of a campaign: collect what ended, propose what comes next, record both, dispatch.

Ownership
    The controller is the only writer of its campaign. It owns neither the store nor the evaluator:
    whoever made them closes them.

Consistency
    The state is nothing but a fold over what was recorded, and whatever a step decided is recorded
    in one transaction before a job of it leaves the process.

Interruption
    So a controller may be killed at any point: run again, it dispatches the candidates that have no
    outcome, under the same numbers and seeds, and goes on. With one worker and a budget in steps it
    ends where an uninterrupted one does.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

from primitives.language.dna import DNA
from primitives.language.text import render
from search.campaign.history import fold
from search.campaign.length import with_candidates
from search.campaign.pace import Pace
from search.campaign.progress import Progress, phase, progress
from search.campaign.proposal import ProgramCache, derive, final_seed
from search.campaign.proposer import Proposer, taken_over
from search.campaign.queries import stored_program
from search.campaign.version import deciding
from search.campaign.weights import discard
from search.collection import seldom_collected
from search.config.plugins import stored_config
from search.errors import PrimevoError, ended_by
from search.storage.entries import CopiedEvaluation, Entry, NewCandidate, NewEvaluation
from search.storage.events import Ended, Heartbeat, Kind, Proposed
from search.storage.store import CampaignRow, Store
from workers.spec.outcome import Budget, Hurdle, Job, Pause, Report, StepLimit

POLL_S = 0.5
"""How often a request to stop is looked for, and the longest wait for an outcome."""

BEAT_S = 1.0
SHOW_S = 0.1

BATCH = 64
"""Proposals in one transaction, where duplicates leave the workers free."""


class Evaluator(Protocol):
    """Runs jobs and reports how they ended. Workers are one (workers.pool.pool.Pool).

    Every submitted job is reported exactly once, in any order, whatever becomes of it: a job that
    fails, hangs or kills its process is an outcome, too. An exception means that no more jobs can
    be run at all; it ends the campaign, which can be resumed. All calls come from one thread.
    """

    def capacity(self) -> int:
        """How many jobs run side by side at the moment; it may change, and may be 0 for a while."""

    def submit(self, job: Job) -> None:
        """Takes a job and returns at once. No more than `capacity` are submitted and unreported."""

    def wait(self, timeout_s: float) -> list[Report]:
        """The jobs that have ended since the last call: as soon as there is one, or an empty list
        after `timeout_s` seconds."""

    def why_waiting(self) -> str | None:
        """Why submitted jobs stand still, for a person to read; None when they do not."""


Show = Callable[[Progress, Heartbeat], None]


class Planned(NamedTuple):
    """A recorded run that has not been dispatched. `dna` is the program's text; `band` counts the
    bands of the budget, from 0, that an earlier stage of it has been through."""

    id: int
    kind: Kind
    seed: int
    dna: str
    band: int = 0


class Controller:
    """Runs one campaign. `show` is given snapshots, at most ten a second; `clock` counts seconds
    from any moment and is asked instead of the system's. `hours` from now on the search ends with
    the candidates that it has then: they end, and the final phase follows."""

    def __init__(
        self,
        store: Store,
        campaign: CampaignRow,
        evaluator: Evaluator,
        show: Show | None = None,
        clock: Callable[[], float] = time.monotonic,
        hours: float | None = None,
    ) -> None:
        self._store, self._campaign, self._evaluator = store, campaign, evaluator
        self._show, self._clock = show, clock
        self._until = math.inf if hours is None else clock() + 3600 * hours
        self._config = stored_config(campaign.config, campaign.name)
        self._queue: deque[Planned] = deque()
        self._running: dict[tuple[int, int], float] = {}
        self._going: set[int] = set()  # paused candidates that are queued or run again
        self._over: list[Path] = []  # checkpoints that nobody goes on from
        self._entries: list[Entry] = []
        self._finals_planned = self._draining = False
        self._polled = self._beaten = self._shown = float("-inf")

    def drain(self) -> None:
        """Starts nothing more; `run` returns when what is running has ended. Safe to call from a
        signal handler."""
        self._draining = True

    def run(self) -> Progress:
        """Runs the campaign from wherever it stands until it is done or drained.

        Raises a PrimevoError where another process runs it, the database fails, no seed program
        completes, or no child passes the gates.
        """
        with self.opened():
            while self.step():
                pass
            self._tell(now=True)
        return self.progress()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Holds the campaign and reads where it stands. `step` may be called inside."""
        with self._store.holding(self._campaign), seldom_collected():
            try:
                self._begin()
                yield
            except BaseException as error:
                self._leave_word(ended_by(error))
                raise
            if phase(self._state) != "done":
                drained = "it was asked to drain, and did"
                self._leave_word(drained if self._draining else "it was closed before its end")

    def step(self, patience_s: float = POLL_S) -> bool:
        """Plans, records, dispatches and collects once, and waits no longer than `patience_s` for
        an outcome. What it collects is recorded by the next step. False when there is nothing more
        to do: the campaign is done, or was drained."""
        try:
            self._plan()
        finally:  # whatever stops the planning, what was collected is kept
            self._commit()
        self._dispatch()
        self._tell()
        if self._running:
            self._collect(0.0 if self._may_start() else patience_s)
            return True
        if phase(self._state) == "done":
            self._store.finish(self._campaign.id)
            return False
        if self._draining:
            return False
        if self._evaluator.capacity() == 0:
            time.sleep(patience_s)
        return True

    def progress(self) -> Progress:
        """Where the campaign stands, what is not recorded yet included."""
        return progress(self._state)

    def _begin(self) -> None:
        """State and queue from what is recorded; a new campaign sows its seed programs."""
        spec, id = self._config.search, self._campaign.id
        with self._store.understanding():
            self._state = fold(spec, self._store.events(id, spec.goals))
        self._programs = ProgramCache(
            lambda number: stored_program(self._store, self._campaign, number),
            capacity=2 * spec.population + BATCH,  # what is not recorded yet is among them
        )
        self._pace = Pace(self._state, self._clock())
        self._proposer = Proposer(self._config, self._campaign.seed, self._state, self._programs)
        self._store.note_versions(id, self._state.candidates + 1, deciding(self._config))
        if self._state.candidates == 0:
            for dna, event in self._proposer.seeds():
                self._add(dna, event)
        else:
            for number in self._state.pending:
                self._queue.append(self._search_run(number, self._store.dna(id, number)))

    def _plan(self) -> None:
        """For the free workers paused candidates that are to go on, else children; the final runs,
        once, when the search has ended."""
        if self._state.seeds_done and not self._state.population:
            self._commit()  # what is told now stands in the database
            raise PrimevoError(f"no seed program could be trained; {'; '.join(self._endings())}")
        if self._clock() >= self._until and self._state.seeds_done:
            self._end_search()
        while self._may_start() and len(self._entries) < BATCH:
            paused = self._state.promotable(self._going)
            if paused is None:
                self._add(*self._proposer.child())
            else:
                self._promote(paused)
        if self._state.searched and not self._finals_planned:
            self._finals_planned = True
            if self._config.search.budget.promotes:
                discard(self._config.weights_folder(self._campaign.name))
            self._queue.extend(self._final_runs())

    def _end_search(self) -> None:
        """The campaign has as many candidates as it has now; its stored config says so, too."""
        count = self._state.candidates
        if count < self._state.spec.candidates:
            self._config = with_candidates(self._config, count)
            self._state.spec = self._config.search
            self._store.reconfigure(self._campaign.id, self._config.model_dump_json())

    def _endings(self) -> Iterator[str]:
        """How each candidate that has ended did, and why."""
        for end in self._state.results.values():
            reason = self._store.reason(self._campaign.id, end.sequence)
            yield f"candidate {end.id}: {end.status}" + (f" ({reason})" if reason else "")

    def _may_start(self) -> bool:
        """Whether a worker is free, and there is a candidate to train."""
        state, busy = self._state, len(self._running) + len(self._queue)
        return (
            not self._draining
            and state.seeds_done
            and busy < self._evaluator.capacity()
            and (state.open or state.promotable(self._going) is not None)
        )

    def _promote(self, id: int) -> None:
        """A paused candidate goes on to the next hurdle. Nothing is recorded before it is there:
        after an interruption it is still paused, and chosen again."""
        self._going.add(id)
        run = self._search_run(id, self._store.dna(self._campaign.id, id))
        self._queue.append(run._replace(band=self._state.rungs.hurdle(id) + 1))

    def _add(self, dna: DNA, event: Proposed) -> None:
        """A new candidate: to be trained, or ended at once where its outcome is known."""
        text = render(dna)
        self._programs[event.id] = dna
        entries: list[Entry] = [NewCandidate(event, text)]
        end = taken_over(event, self._state)
        if end is None or event.duplicate_of is None:
            self._queue.append(self._search_run(event.id, text))
        else:
            entries.append(CopiedEvaluation(end, event.duplicate_of))
        self._entries += entries
        for entry in entries:
            self._state.apply(entry.event)

    def _search_run(self, id: int, text: str) -> Planned:
        return Planned(id, "search", derive(self._campaign.seed, id), text)

    def _final_runs(self) -> list[Planned]:
        """Those still to do. All programs get the same seeds, which makes the comparison paired."""
        count = self._config.search.final.seeds
        return [
            Planned(id, "final", seed, self._store.dna(self._campaign.id, id))
            for seed in (final_seed(self._campaign.seed, index) for index in range(count))
            for id in self._state.finalists
            if (id, seed) not in self._state.finals
        ]

    def _commit(self) -> None:
        if self._entries:
            self._store.record(self._campaign.id, self._entries)
            self._entries = []
        while self._over:
            with suppress(OSError):
                self._over.pop().unlink()

    def _dispatch(self) -> None:
        while self._queue and not self._draining:
            if len(self._running) >= self._evaluator.capacity():
                return
            run = self._queue.popleft()
            self._running[run.id, run.seed] = self._clock()
            self._evaluator.submit(self._job(run))

    def _job(self, run: Planned) -> Job:
        """The first of a finalist's runs keeps its weights: they are what is exported."""
        final, weights, budget = run.kind == "final", None, self._budget(run)
        limit = self._config.workers.time_limit(budget)
        if final and run.seed == final_seed(self._campaign.seed, 0):
            weights = str(self._config.weights_file(self._campaign.name, run.id))
        limited = replace(budget, time_limit_s=limit)
        pause = self._pause(run)
        return Job(run.id, run.dna, limited, run.seed, test=final, weights=weights, pause=pause)

    def _pause(self, run: Planned) -> Pause | None:
        """Where a child is paused, if the campaign does that. Seed programs never are."""
        budget = self._config.search.budget
        if not budget.promotes or run.kind == "final" or self._of_seed(run):
            return None
        file = str(self._config.checkpoint_file(self._campaign.name, run.id))
        hurdle = run.band if run.band < budget.hurdles else None
        return Pause(file, hurdle, self._config.workers.checkpoints_mb)

    def _of_seed(self, run: Planned) -> bool:
        return run.id <= len(self._config.search.seeds)

    def _budget(self, run: Planned) -> Budget:
        """The hurdles' bars are those of the moment. A seed program is stopped neither by them nor
        for its step: it is what children are compared with. A child's step is judged in its first
        stage."""
        spec = self._config.search
        if run.kind == "final":
            return Budget(spec.budget.unit, spec.final_amount, points=spec.final_points)
        whole = Budget(spec.budget.unit, spec.budget.full, points=spec.budget.points_at)
        if self._of_seed(run):
            return replace(whole, hurdles=tuple(map(Hurdle, spec.budget.hurdles_at)))
        limit = self._step_limit() if run.band == 0 else None
        return replace(whole, hurdles=self._state.hurdles.bars(), step_limit=limit)

    def _step_limit(self) -> StepLimit | None:
        """The longest step that a child may take. None without a limit, and where the first seed
        program ended before it had made a step."""
        factor = self._config.search.limits.step_time_max
        seed_s = self._state.results[1].step_time_s
        if factor is None or not seed_s:
            return None
        return StepLimit(seed_s, factor * self._config.workers.sharers)

    def _collect(self, timeout_s: float) -> None:
        for report in self._evaluator.wait(timeout_s):
            job, outcome = report.job, report.outcome
            began = self._running.pop((job.id, job.seed))
            kind: Kind = "final" if job.test else "search"
            paused_at = self._paused_at(job) if kind == "search" else None
            if paused_at is not None:
                self._going.discard(job.id)
                passed = max(outcome.hurdles_passed, paused_at + 1)  # a worker that died knows none
                outcome = replace(outcome, hurdles_passed=passed)
            sequence, goals = self._state.sequence + 1, self._state.spec.goals
            end = Ended.of(sequence, job.id, kind, job.seed, outcome, goals)
            entry = NewEvaluation(end, job.budget, outcome, report.worker, paused_at)
            self._entries.append(entry)
            self._state.apply(end)
            if job.pause is not None:
                if job.id not in self._state.rungs:
                    self._over.append(Path(job.pause.file))
            elif end.status == "completed" and end.hurdles_passed == len(job.budget.hurdles):
                self._pace.completed_in_full(self._clock() - began)

    def _paused_at(self, job: Job) -> int | None:
        """The hurdle at which an earlier stage of this run was paused."""
        rungs = self._state.rungs
        return rungs.hurdle(job.id) if job.id in rungs else None

    def _tell(self, now: bool = False) -> None:
        """Looks for a request to stop, leaves a heartbeat and shows progress, each when due."""
        clock = self._clock()
        if clock - self._polled >= POLL_S:
            self._polled = clock
            self._draining |= self._store.stop_requested(self._campaign.id)
        beat_due, show_due = clock - self._beaten >= BEAT_S, clock - self._shown >= SHOW_S
        if not (beat_due or show_due or now):
            return
        beat = self._heartbeat(clock)
        if beat_due or now:
            self._beaten = clock
            self._store.beat(self._campaign.id, beat)
        if self._show is not None:
            self._shown = clock
            self._show(progress(self._state), beat)

    def _leave_word(self, why: str) -> None:
        """Leaves in the database why this controller ends, if the database can be written."""
        beat = Heartbeat(time.time(), 0, 0, "", None, socket.gethostname(), os.getpid(), why)
        with suppress(PrimevoError):
            self._store.beat(self._campaign.id, beat)

    def _heartbeat(self, clock: float) -> Heartbeat:
        capacity = self._evaluator.capacity()
        waiting = self._evaluator.why_waiting() or ""
        if self._draining and self._running:
            waiting = f"draining: {len(self._running)} still in training"
        elif not waiting and not self._state.seeds_done and len(self._running) < capacity:
            waiting = "for the seed programs, which every child descends from"
        return Heartbeat(
            at=time.time(),
            running=len(self._running),
            capacity=capacity,
            waiting=waiting,
            eta_s=self._pace.eta_s(self._state, capacity, clock, self._until),
            host=socket.gethostname(),
            pid=os.getpid(),
        )
