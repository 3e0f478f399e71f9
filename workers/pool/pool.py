"""The worker pool: processes that run jobs side by side and may die without harm."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

from workers.data.corpora import fingerprint, parts
from workers.machine.backends import BACKENDS
from workers.plugins import load, search_path, sources
from workers.pool.cluster import PoolError, join
from workers.pool.crew import Crew, Ticket
from workers.pool.roles import roles
from workers.pool.twins import Twins
from workers.pool.worker import Setup
from workers.spec.outcome import Compiled, Job, Outcome, Report
from workers.spec.pool import PoolSpec, ahead, cannot
from workers.spec.task import Task

ENTRY = "workers.training.evaluate:run_job"
WARM_UP = "workers.pool.worker:warm_up"
COMPILER = "workers.training.evaluate:compile_job", "workers.pool.worker:warm_up_compiler"

LOOK_S = 2.0
"""Seconds between two looks at Ray's servers while no worker answers."""


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
    `jobs_per_worker` jobs, that holds more than `memory_per_worker_mb` after one, or that has grown
    by `crew.GROWTH` since its first `crew.SETTLED` jobs.

    **Ahead.** With `PoolSpec.ahead` a job passes through two workers: one compiles it, another one,
    which has the device to itself, trains it. A device then trains one job after the other, in the
    order in which they were compiled; of the next one everything but its weights is loaded
    meanwhile. Both workers' deaths count. The time limit runs from when the device is free for the
    job; `PoolSpec.compile_limit` holds for its compilation. Where a worker that trains is killed or
    dies, the job that it had made ready runs again, with no loss counted. Jobs of one program and
    budget wait for one compilation.

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
        compiler: tuple[str, str] = COMPILER,
    ) -> None:
        """Starts Ray, or joins the cluster, and starts the workers without awaiting them.

        Args:
            task: What each job is trained on that says no other.
            spec: How many workers, and each one's share of the machine.
            entry: What a worker calls for a job, see `worker.Setup`.
            warm_up: What a worker calls before its first job, see `worker.Setup`.
            plugins: Names of plug-ins, see `workers.plugins`.
            compiler: Entry and warm-up of the workers that compile ahead.

        Raises:
            PluginError: a plug-in cannot be loaded.
            DataError: the task's text is missing.
            PoolError: the devices or the cluster are not as asked for.
        """
        loaded = load(plugins)
        for part in parts(task.data).values():
            fingerprint(part)
        self._spec = spec or PoolSpec()
        backend = BACKENDS[task.training.backend]
        if problem := cannot(self._spec, backend):
            raise PoolError(problem)
        self._cluster = join(self._spec, sources(loaded))
        self._answered: SimpleQueue[Future[Any]] = SimpleQueue()  # Ray's thread fills it
        self._queue: deque[Ticket] = deque()  # as they were submitted
        self._ready: deque[Ticket] = deque()  # to be trained
        self._reports: list[Report] = []
        self._restarted = False
        self._ended = False  # whether Ray has, as far as it is this pool's to end
        self._twins = Twins(task)
        path = search_path() if loaded else ()
        setup = Setup(
            task, self._cluster.layout, self._spec.memory_limit_mb, entry, warm_up,
            tuple(plugins), path,
        )  # fmt: skip
        self._ahead = ahead(self._spec, backend, self._cluster.layout)
        train, compile = roles(self._spec, setup, self._cluster, self._ahead, compiler)
        self._trainers = Crew(train, self._cluster, self._answered)
        self._compilers: Crew | None = None
        if compile is not None:
            self._compilers = Crew(compile, self._cluster, self._answered)

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
        """Returns how many jobs are in training or made ready for it side by side."""
        return self._trainers.role.count * (1 + self._ahead)

    def submit(self, job: Job) -> None:
        """Queues the job; it starts at once where a worker is idle."""
        (self._queue if self._compilers else self._ready).append(Ticket(job))
        self._dispatch()

    def wait(self, timeout_s: float) -> list[Report]:
        """Returns as soon as a job has ended, with all that have; empty when the time is up or no
        job is left. Raises PoolError where no worker can be kept alive."""
        end = time.monotonic() + timeout_s
        while not self._reports and (self._queue or self._ready or self._at_work()):
            left = end - time.monotonic()
            if left < 0:
                break
            for call in self._calls(left):
                any(crew.take(call) for crew in self._crews)
            self._restart_if_lost()
            for crew in self._crews:
                crew.kill_overdue()
            self._hear()
            self._dispatch()
        reports, self._reports = self._reports, []
        return reports

    def why_waiting(self) -> str | None:
        """Says in one line why no submitted job is running; None if one is, or there is none."""
        starting = [member for crew in self._crews for member in crew.starting.values()]
        if not (self._queue or self._ready) or self._at_work() or not starting:
            return None
        seconds = time.monotonic() - min(member.since for member in starting)
        what = "a worker is" if len(starting) == 1 else f"{len(starting)} workers are"
        unplaced = any(member.place is None for member in starting)
        return f"{what} starting ({seconds:.0f} s){self._cluster.shortage() if unplaced else ''}"

    def close(self) -> None:
        """Kills every worker, and ends Ray if the pool started it. Unfinished jobs are lost. Called
        again, it does nothing."""
        if self._ended:
            return
        lost = self._cluster.lost()
        for crew in self._crews:
            crew.drop() if lost else crew.kill()
            crew.news()
        self._queue.clear()
        self._ready.clear()
        self._leave()

    def _leave(self) -> None:
        """Ends Ray if the pool started it, once: one that has ended can be asked nothing."""
        self._ended = True
        self._cluster.leave()

    @property
    def _crews(self) -> tuple[Crew, ...]:
        return (self._trainers, self._compilers) if self._compilers else (self._trainers,)

    def _at_work(self) -> int:
        return sum(crew.busy for crew in self._crews)

    def _dispatch(self) -> None:
        """Gives queued jobs to idle workers. No more is compiled than will soon be trained."""
        compilers = self._compilers
        while compilers and compilers.free and self._queue and len(self._ready) < self.capacity():
            ticket = self._queue.popleft()
            if self._twins.must_compile(ticket):
                compilers.give(ticket)
            elif ticket.compiled:
                self._ready.append(ticket)
        while self._ready and self._trainers.give(self._ready[0]):
            self._ready.popleft()

    def _hear(self) -> None:
        """Takes in what became of the jobs: they go on from compiling to training, are reported, or
        run again, before all that queue."""
        ended, again = self._trainers.news()
        self._reports += [Report(end.ticket.job, _outcome(end.answer), end.worker) for end in ended]
        self._ready.extendleft(reversed(again))
        if self._compilers is None:
            return
        ended, again = self._compilers.news()
        self._queue.extendleft(reversed(again))
        for ticket, made, worker in ended:
            if isinstance(made, Compiled):
                self._ready += self._twins.made(ticket, made)
            else:
                self._reports.append(Report(ticket.job, made, worker))
                self._queue.extendleft(reversed(self._twins.failed(ticket)))

    def _calls(self, timeout_s: float) -> list[Future[Any]]:
        """The calls that have ended: waits for a first one until somebody's time is up or Ray's
        servers are to be looked at."""
        deadline = min(crew.next_deadline for crew in self._crews)
        timeout_s = min(timeout_s, LOOK_S, deadline - time.monotonic())
        calls = []
        try:
            calls.append(self._answered.get(timeout=max(0.0, timeout_s)))
            while True:
                calls.append(self._answered.get_nowait())
        except Empty:
            return calls

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
        for crew in self._crews:
            crew.drop()
        self._leave()
        try:
            self._cluster = join(self._spec)
        except PoolError as error:
            raise PoolError(f"Ray's {server} has died, and {error}: {go_on}") from error
        self._ended = False
        for crew in self._crews:
            crew.fill(self._cluster)


def _outcome(answer: Outcome | Compiled) -> Outcome:
    assert isinstance(answer, Outcome), "a worker that trains has compiled instead"
    return answer
