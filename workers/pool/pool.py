"""The worker pool: processes that run jobs side by side and may die without harm."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from workers.data.corpora import fingerprint
from workers.plugins import load, search_path, sources
from workers.pool.cluster import Place, PoolError, WorkerDied, join
from workers.pool.worker import Setup
from workers.spec.outcome import Job, Outcome, Report, Status
from workers.spec.pool import PoolSpec
from workers.spec.task import Task

ENTRY = "workers.training.evaluate:run_job"
WARM_UP = "workers.pool.worker:warm_up"

ATTEMPTS = 2
"""How often a job may lose its worker before it is reported as crashed."""

FAILED_STARTS = 3
"""How many workers in a row may die while they warm up before the pool gives up."""


@dataclass(slots=True)
class _Ticket:
    """A submitted job and how many workers it has lost."""

    job: Job
    lost: int = 0


@dataclass(slots=True, eq=False)
class _Member:
    """A worker. While it warms up, its place is not known yet. While it is busy it has a ticket.
    `since` is when it started to warm up or to run the ticket (monotonic seconds)."""

    actor: Any
    since: float
    place: Place | None = None
    ticket: _Ticket | None = None
    deadline: float = math.inf
    jobs: int = 0

    @property
    def name(self) -> str:
        return "{}/{}".format(*self.place) if self.place else "starting"


class Pool:
    """Workers for one task.

    **Reports.** Every submitted job is reported once by `wait`, in the order in which jobs end,
    unless the pool is closed before. At most `capacity` jobs run at a time; the others queue, first
    in, first out, also while no worker is warm yet.

    **Failures.** A job that takes longer than `PoolSpec.time_limit` is killed with its process and
    reported as timed_out. A job whose worker died by itself runs once more, on another worker,
    before all that queue; if that dies, too, it is reported as crashed, or as out_of_memory where
    the machine ran out of it. So a job may run twice and must bear it; its report says only how it
    ended. An exception that a job's entry lets through is a crashed outcome, and its worker stays.
    A worker that was lost is replaced.

    **Threads.** One thread makes the pool and calls it, and must live as long: Ray's processes end
    with the thread that started them. Nothing happens between the calls: time limits are watched
    and queued jobs are handed out in `submit` and `wait`, so call `wait` often.

    **Ownership.** The pool owns its workers. It owns Ray if it started it, and ends it in `close`;
    a Ray that was running, here or as a cluster, is left as it was. Use the pool as a context
    manager, or call `close`, also after an exception.

    **Plug-ins.** Every worker loads them before its first job, in the same order as the driver. It
    looks for modules where the driver does, after all places that it knows itself. To a cluster
    that the pool joins by its address, Ray takes their source with it (`py_modules` in its runtime
    environment). A Ray that this process is connected to already is used as it is.

    **Errors.** PoolError where no worker can be kept alive. What becomes of single jobs is never
    raised.
    """

    def __init__(
        self,
        task: Task,
        spec: PoolSpec | None = None,
        entry: str = ENTRY,
        warm_up: str = WARM_UP,
        plugins: Sequence[str] = (),
    ) -> None:
        """Starts Ray, or joins the cluster, and starts the workers without awaiting them.

        Args:
            task: What every job is trained on.
            spec: How many workers, and each one's share of the machine.
            entry: What a worker calls for a job, see `worker.Setup`.
            warm_up: What a worker calls before its first job, see `worker.Setup`.
            plugins: Names of plug-ins, see `workers.plugins`.

        Raises:
            PluginError: a plug-in cannot be loaded.
            DataError: the task's text is missing.
            PoolError: the devices or the cluster are not as asked for.
        """
        loaded = load(plugins)
        fingerprint(task.data)
        self._spec = spec or PoolSpec()
        self._cluster = join(self._spec, sources(loaded))
        self._capacity = self._cluster.layout.count
        self._size = self._capacity
        limit = self._spec.memory_limit_mb
        path = search_path() if loaded else ()
        self._setup = Setup(task, self._cluster.layout, limit, entry, warm_up, tuple(plugins), path)
        self._queue: deque[_Ticket] = deque()
        self._idle: list[_Member] = []
        self._waiting: dict[Any, _Member] = {}  # by the call that is to end: warming up or busy
        self._reports: list[Report] = []
        self._failed_starts = 0
        for _ in range(self._size):
            self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def capacity(self) -> int:
        """Returns how many jobs run side by side."""
        return self._capacity

    def submit(self, job: Job) -> None:
        """Queues the job; it starts at once where a worker is idle."""
        self._queue.append(_Ticket(job))
        self._dispatch()

    def wait(self, timeout_s: float) -> list[Report]:
        """Returns as soon as a job has ended, with all that have; empty when the time is up or no
        job is left. Raises PoolError where no worker can be kept alive."""
        end = time.monotonic() + timeout_s
        while not self._reports and (self._queue or self._busy()):
            left = end - time.monotonic()
            if left < 0:
                break
            self._collect(left)
            self._kill_overdue()
            self._dispatch()
        reports, self._reports = self._reports, []
        return reports

    def why_waiting(self) -> str | None:
        """Says in one line why no submitted job is running; None if one is, or there is none."""
        if not self._queue or self._busy():
            return None
        starting = list(self._waiting.values())
        seconds = time.monotonic() - min(member.since for member in starting)
        what = "a worker is" if len(starting) == 1 else f"{len(starting)} workers are"
        return f"{what} starting ({seconds:.0f} s){self._cluster.shortage()}"

    def close(self) -> None:
        """Kills every worker, and ends Ray if the pool started it. Unfinished jobs are lost."""
        for member in [*self._idle, *self._waiting.values()]:
            self._cluster.kill(member.actor)
        self._idle.clear()
        self._waiting.clear()
        self._queue.clear()
        self._cluster.leave()

    def _busy(self) -> int:
        return sum(member.ticket is not None for member in self._waiting.values())

    def _start(self) -> None:
        """Starts a worker; on a cluster it gets its place when there is room."""
        actor = self._cluster.start_worker(self._setup)
        self._waiting[actor.prepare.remote()] = _Member(actor, time.monotonic())

    def _dispatch(self) -> None:
        """Gives queued jobs to idle workers, of which a spare may be one: no more than `capacity`
        jobs run at a time."""
        while self._queue and self._idle and self._busy() < self._capacity:
            member, ticket = self._idle.pop(), self._queue.popleft()
            member.ticket = ticket
            member.since = time.monotonic()
            member.deadline = member.since + self._spec.time_limit(ticket.job.budget)
            self._waiting[member.actor.run.remote(ticket.job)] = member

    def _collect(self, timeout_s: float) -> None:
        """Waits until a worker answers, dies or exceeds its time, and takes in all that did."""
        deadline = min(member.deadline for member in self._waiting.values())
        timeout_s = max(0.0, min(timeout_s, deadline - time.monotonic()))
        for call in self._cluster.answers(list(self._waiting), timeout_s):
            member = self._waiting.pop(call)
            try:
                answer = self._cluster.answer(call, member.place)
            except WorkerDied as death:
                self._mourn(member, death)
            else:
                self._welcome(member, answer)

    def _welcome(self, member: _Member, answer: Any) -> None:
        """A worker is idle from now on: it has warmed up, or it brings an outcome."""
        if member.ticket is None:
            member.place = answer
            self._failed_starts = 0
            if len(self._idle) + len(self._waiting) + 1 < self._size:
                self._start()
        else:
            self._reports.append(Report(member.ticket.job, answer, member.name))
            member.ticket, member.deadline = None, math.inf
            member.jobs += 1
            if member.jobs == self._spec.jobs_per_worker:
                self._cluster.kill(member.actor)
                self._start()
                return
        self._idle.append(member)

    def _mourn(self, member: _Member, death: WorkerDied) -> None:
        """A worker died by itself: its job gets another chance, once."""
        if member.ticket is None:
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise PoolError(f"{FAILED_STARTS} workers in a row died while starting: {death}")
        elif member.ticket.lost + 1 < ATTEMPTS:
            member.ticket.lost += 1
            self._queue.appendleft(member.ticket)
        else:
            status: Status = "out_of_memory" if death.starved else "crashed"
            self._fail(member, status, f"its worker died {ATTEMPTS} times: {death}")
        self._replace()

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for call, member in list(self._waiting.items()):
            if member.deadline <= now:
                del self._waiting[call]
                self._cluster.kill(member.actor)
                limit = member.deadline - member.since
                self._fail(member, "timed_out", f"killed at its time limit of {limit:g} s")
                self._replace()

    def _fail(self, member: _Member, status: Status, reason: str) -> None:
        assert member.ticket is not None
        seconds = time.monotonic() - member.since
        outcome = Outcome(status, reason, setup_seconds=seconds)
        self._reports.append(Report(member.ticket.job, outcome, member.name))

    def _replace(self) -> None:
        """Makes up for a lost worker. Where one dies, more will: from then on, CPU pools keep one
        warm in reserve. (It starts when the replacement is warm, see `_welcome`.)"""
        if self._spec.spare and not self._cluster.layout.gpus:
            self._size = self._capacity + 1
        if len(self._idle) + len(self._waiting) < self._size:
            self._start()
