"""The worker pool: processes that run jobs side by side and may die without harm.

What becomes of a job:

- It ends: its outcome is reported.
- It exceeds its time limit: it is killed with its process and reported as timed out.
- Its worker dies by itself: it runs once more on another one, and is reported as crashed, or as out
  of memory, if that dies, too.
- Ray dies: it runs anew once Ray has been started again.

So every job that is submitted is reported once, unless the pool is closed or raises PoolError
before.
"""

from __future__ import annotations

import math
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

from workers.data.corpora import fingerprint
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
"""How many workers in a row may fail to start before the pool gives up."""

LOOK_S = 2.0
"""Seconds between two looks at Ray's servers while no worker answers."""


@dataclass(slots=True)
class _Ticket:
    """A submitted job and how many workers it has lost."""

    job: Job
    lost: int = 0


@dataclass(slots=True, eq=False)
class _Member:
    """A worker, and since when it has been starting or busy with a ticket; past its deadline it is
    killed. Its place is known once its process runs."""

    actor: Any
    since: float
    place: Place | None = None
    ticket: _Ticket | None = None
    deadline: float = math.inf
    jobs: int = 0

    @property
    def name(self) -> str:
        return "{}/{}".format(*self.place) if self.place else "starting"


_Calls = dict["Future[Any]", _Member]


class Pool:
    """Workers for one task.

    Ownership: a pool owns its workers, and Ray if it started it. `close` ends both, and so does the
    end of this process, however it comes. A cluster that was joined goes on.

    Threads: one thread makes the pool, calls all its methods, and must live as long, because Ray's
    processes end with the thread that started them. All is done inside these calls: between them
    nobody starts, kills or dispatches anything.

    Starting: the constructor starts Ray and does not await the workers; jobs that are submitted
    meanwhile queue. A worker that dies while it starts, or needs more than `start_timeout_s`, is
    replaced. After FAILED_STARTS of them in a row comes a PoolError, and at once where a warm-up
    raises. Waiting for free CPUs and GPUs of a cluster does not count.

    Replacement: a worker that died is replaced, and so is one that has run `jobs_per_worker` jobs
    or holds more than `memory_per_worker_mb` after one: frameworks grow by megabytes a candidate.
    If a Ray that was started here loses one of its servers, it is started again, which takes
    `wait` some 20 s beyond its time. The second time is a PoolError.
    """

    def __init__(
        self, task: Task, spec: PoolSpec | None = None, entry: str = ENTRY, warm_up: str = WARM_UP
    ) -> None:
        """Starts Ray, or joins the cluster, and starts the workers without awaiting them.

        Raises DataError where the task's text is missing, PoolError where the devices or the
        cluster are not as asked for. `entry` and `warm_up`: see `worker.Setup`.
        """
        fingerprint(task.data)
        self._spec = spec or PoolSpec()
        self._cluster = join(self._spec)
        self._capacity = self._cluster.layout.count
        self._size = self._capacity
        limit = self._spec.memory_limit_mb
        self._setup = Setup(task, self._cluster.layout, limit, entry, warm_up)
        self._memory_mb = self._spec.memory_per_worker_mb or self._cluster.memory_share_mb()
        self._queue: deque[_Ticket] = deque()
        self._idle: list[_Member] = []
        self._starting: _Calls = {}  # by the call that is to end
        self._running: _Calls = {}
        self._ended: SimpleQueue[Future[Any]] = SimpleQueue()  # Ray's thread fills it
        self._next_deadline = math.inf  # nobody's is earlier
        self._restarted = False
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
        """How many jobs run side by side."""
        return self._capacity

    def submit(self, job: Job) -> None:
        """Queues the job; it starts at once where a worker is idle."""
        self._queue.append(_Ticket(job))
        self._dispatch()

    def wait(self, timeout_s: float) -> list[Report]:
        """Returns as soon as a job has ended, with all that have; empty when the time is up or no
        job is left. Raises PoolError where no worker can be kept alive."""
        end = time.monotonic() + timeout_s
        while not self._reports and (self._queue or self._running):
            left = end - time.monotonic()
            if left < 0:
                break
            for call in self._answered(left):
                self._take(call)
            self._restart_if_lost()
            self._kill_overdue()
            self._dispatch()
        reports, self._reports = self._reports, []
        return reports

    def why_waiting(self) -> str | None:
        """Why no submitted job is running, in one line; None if one is, or there is none."""
        if not self._queue or self._running:
            return None
        starting = self._starting.values()
        seconds = time.monotonic() - min(member.since for member in starting)
        what = "a worker is" if len(starting) == 1 else f"{len(starting)} workers are"
        unplaced = any(member.place is None for member in starting)
        return f"{what} starting ({seconds:.0f} s){self._cluster.shortage() if unplaced else ''}"

    def close(self) -> None:
        """Kills every worker, and ends Ray if the pool started it. Unfinished jobs are lost."""
        if not self._cluster.lost():
            for member in [*self._idle, *self._starting.values(), *self._running.values()]:
                self._cluster.kill(member.actor)
        self._forget()
        self._queue.clear()
        self._cluster.leave()

    def _forget(self) -> None:
        """Drops all workers. Whatever their calls still answer is ignored."""
        self._idle.clear()
        self._starting.clear()
        self._running.clear()

    def _start(self) -> None:
        """Starts a worker; on a cluster it gets its place when there is room, however late."""
        member = _Member(self._cluster.start_worker(self._setup), time.monotonic())
        limit = math.inf if self._cluster.session is None else self._spec.start_timeout_s
        self._call(self._starting, member, limit, member.actor.place)

    def _dispatch(self) -> None:
        """Gives queued jobs to idle workers, of which a spare may be one: no more than `capacity`
        jobs run at a time."""
        while self._queue and self._idle and len(self._running) < self._capacity:
            member, ticket = self._idle.pop(), self._queue.popleft()
            member.ticket, member.since = ticket, time.monotonic()
            limit = self._spec.time_limit(ticket.job.budget)
            self._call(self._running, member, limit, member.actor.run, ticket.job)

    def _call(
        self, calls: _Calls, member: _Member, limit: float, method: Any, *arguments: Any
    ) -> None:
        """Calls the worker, which has `limit` seconds to answer."""
        member.deadline = time.monotonic() + limit
        self._next_deadline = min(self._next_deadline, member.deadline)
        call = self._cluster.call(method, *arguments)
        calls[call] = member
        call.add_done_callback(self._ended.put)

    def _answered(self, timeout_s: float) -> list[Future[Any]]:
        """The calls that have ended: waits for a first one until somebody's time is up or Ray's
        servers are to be looked at."""
        timeout_s = min(timeout_s, LOOK_S, self._next_deadline - time.monotonic())
        calls = []
        try:
            calls.append(self._ended.get(timeout=max(0.0, timeout_s)))
            while True:
                calls.append(self._ended.get_nowait())
        except Empty:
            return calls

    def _take(self, call: Future[Any]) -> None:
        """Takes in the answer or the death of a worker, unless it was killed meanwhile."""
        calls = self._running if call in self._running else self._starting
        member = calls.get(call)
        if member is None:
            return
        try:
            answer = self._cluster.answer(call, member.place)
        except WorkerDied as death:
            if self._cluster.lost():
                return  # as all the others have: see _restart_if_lost
            del calls[call]
            self._mourn(member, death)
        else:
            del calls[call]
            self._welcome(member, answer)

    def _welcome(self, member: _Member, answer: Any) -> None:
        """A worker runs, has warmed up, or brings an outcome. The latter two make it idle."""
        if member.place is None:
            member.place = answer
            limit = self._spec.start_timeout_s
            self._call(self._starting, member, limit, member.actor.prepare)
            return
        if member.ticket is None:
            self._failed_starts = 0
            if self._alive() + 1 < self._size:
                self._start()
        else:
            outcome, held_mb = answer
            self._reports.append(Report(member.ticket.job, outcome, member.name))
            member.ticket = None
            member.jobs += 1
            if member.jobs == self._spec.jobs_per_worker or held_mb > self._memory_mb:
                self._cluster.kill(member.actor)
                self._start()
                return
        self._idle.append(member)

    def _mourn(self, member: _Member, death: WorkerDied) -> None:
        """A worker died by itself: its job gets another chance, once."""
        if member.ticket is None:
            self._count_failed_start(f"the last one died: {death}")
        elif member.ticket.lost + 1 < ATTEMPTS:
            member.ticket.lost += 1
            self._queue.appendleft(member.ticket)
        else:
            status: Status = "out_of_memory" if death.starved else "crashed"
            self._fail(member, status, f"its worker died {ATTEMPTS} times: {death}")
        self._replace()

    def _kill_overdue(self) -> None:
        """Kills the workers whose time is up. Looks at all of them only when the earliest deadline
        that there was has passed, which with time limits far above durations is seldom."""
        now = time.monotonic()
        if now < self._next_deadline:
            return
        for calls in (self._starting, self._running):
            for call, member in list(calls.items()):
                if member.deadline <= now:
                    del calls[call]
                    self._cluster.kill(member.actor)
                    self._blame(member)
                    self._replace()
        waiting = (*self._starting.values(), *self._running.values())
        self._next_deadline = min((member.deadline for member in waiting), default=math.inf)

    def _blame(self, member: _Member) -> None:
        if member.ticket is None:
            limit = self._spec.start_timeout_s
            self._count_failed_start(
                f"the last one took more than {limit:g} s, which is workers.start_timeout_s"
            )
        else:
            limit = self._spec.time_limit(member.ticket.job.budget)
            self._fail(member, "timed_out", f"killed at its time limit of {limit:g} s")

    def _fail(self, member: _Member, status: Status, reason: str) -> None:
        assert member.ticket is not None
        seconds = time.monotonic() - member.since
        outcome = Outcome(status, reason, setup_seconds=seconds)
        self._reports.append(Report(member.ticket.job, outcome, member.name))

    def _count_failed_start(self, reason: str) -> None:
        self._failed_starts += 1
        if self._failed_starts >= FAILED_STARTS:
            raise PoolError(f"{FAILED_STARTS} workers in a row did not start: {reason}")

    def _replace(self) -> None:
        """Makes up for a lost worker. Where one dies, more will: from then on, CPU pools keep one
        warm in reserve. (It starts when the replacement is warm, see `_welcome`.)"""
        if self._spec.spare and not self._cluster.layout.gpus:
            self._size = self._capacity + 1
        if self._alive() < self._size:
            self._start()

    def _alive(self) -> int:
        return len(self._idle) + len(self._starting) + len(self._running)

    def _restart_if_lost(self) -> None:
        """If Ray has died, and its workers with it, starts it anew, once. Unfinished jobs come
        first in the queue."""
        server = self._cluster.lost()
        if server is None:
            return
        go_on = "what has ended is recorded, and `primevo resume` goes on from there"
        if self._restarted:
            raise PoolError(f"Ray's {server} has died twice, perhaps for want of memory: {go_on}")
        self._restarted = True
        tickets = [member.ticket for member in self._running.values() if member.ticket]
        self._queue.extendleft(reversed(tickets))
        self._forget()
        self._cluster.leave()
        try:
            self._cluster = join(self._spec)
        except PoolError as error:
            raise PoolError(f"Ray's {server} has died, and {error}: {go_on}") from error
        for _ in range(self._size):
            self._start()
