"""The worker pool: processes that run jobs side by side and may die without harm."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
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
    """A worker. Its place is known once its process runs. While it is busy it has a ticket. `since`
    is when it started to warm up or to run the ticket; past its deadline it is killed (monotonic
    seconds)."""

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

    **Reports.** Every submitted job is reported once by `wait`, in the order in which jobs end,
    unless the pool is closed before or raises PoolError. At most `capacity` jobs run at a time; the
    others queue, first in, first out, also while no worker is warm yet.

    **Failures.** A job that takes longer than `PoolSpec.time_limit` is killed with its process and
    reported as timed_out. A job whose worker died by itself runs once more, on another worker,
    before all that queue; if that dies, too, it is reported as crashed, or as out_of_memory where
    the machine ran out of it. So a job may run twice and must bear it; its report says only how it
    ended. An exception that a job's entry lets through is a crashed outcome, and its worker stays.

    **Workers.** A worker that was lost is replaced. So is one that needs more than
    `start_timeout_s` to warm up (waiting for room on a cluster does not count), that has run
    `jobs_per_worker` jobs, or that holds more than `memory_per_worker_mb` after one.

    **Ray.** If a Ray that the pool started loses one of its servers, the pool starts it again,
    once, and runs the unfinished jobs anew. Then `wait` takes some 20 s longer than it was told.

    **Threads.** One thread makes the pool and calls it, and must live as long: Ray's processes end
    with the thread that started them. Nothing happens between the calls: time limits are watched
    and queued jobs are handed out in `submit` and `wait`, so call `wait` often.

    **Ownership.** The pool owns its workers. It owns Ray if it started it, and ends it in `close`;
    a Ray that was running, here or as a cluster, is left as it was. Use the pool as a context
    manager, or call `close`, also after an exception. If this process is killed, its workers and
    its Ray end, too.

    **Plug-ins.** Every worker loads them before its first job, in the same order as the driver. It
    looks for modules where the driver does, after all places that it knows itself. To a cluster
    that the pool joins by its address, Ray takes their source with it (`py_modules` in its runtime
    environment). A Ray that this process is connected to already is used as it is.

    **Errors.** PoolError where no worker can be kept alive: a warm-up raised, FAILED_STARTS workers
    in a row did not start (those of machines that leave a cluster do not count), or Ray died twice.
    What becomes of single jobs is never raised.
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
        """Says in one line why no submitted job is running; None if one is, or there is none."""
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
            self._cluster.kill(member.actor)  # it may be alive where only the network failed
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
        if member.ticket is None and death.lost:
            pass  # Ray starts workers on a lost machine until it has noticed
        elif member.ticket is None:
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
