"""The workers of one kind: started, given jobs, watched, killed and replaced."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, NamedTuple

from workers.pool.cluster import Cluster, Place, PoolError, WorkerDied
from workers.pool.worker import Setup
from workers.spec.outcome import Budget, Compiled, Job, Outcome, Status

ATTEMPTS = 2
"""How often a job may lose its worker before it is reported as crashed."""

FAILED_STARTS = 3
"""How many workers in a row may fail to start before the pool gives up."""

SETTLED, GROWTH = 20, 1.4
"""After its first SETTLED jobs a worker is replaced once it holds more than GROWTH times what it
held then: frameworks do not give back all the memory of what they compiled."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A submitted job.

    Attributes:
        job: The job.
        lost: How many workers it has lost.
        alone: Whether it was with a worker that died: it is then tried with no other at its side.
        compiled: Its steps, once a worker has compiled them for another one to train.
    """

    job: Job
    lost: int = 0
    alone: bool = False
    compiled: Compiled | None = None


class Ended(NamedTuple):
    """What became of a ticket, by the worker of this name."""

    ticket: Ticket
    answer: Outcome | Compiled
    worker: str


@dataclass(slots=True, eq=False)
class Member:
    """A worker. Its place is known once its process runs. `since` is when it started to warm up, or
    to work on the first of its jobs; past its deadline it is killed (monotonic seconds).

    Attributes:
        calls: Its jobs under way, in the order in which it was given them.
        given: How many it was given in its life.
        settled_mb: The memory that it held after the SETTLED first, infinite before.
        leaving: Whether it is replaced as soon as it has no job.
    """

    actor: Any
    since: float
    place: Place | None = None
    deadline: float = math.inf
    calls: dict[Future[Any], Ticket] = field(default_factory=dict)
    given: int = 0
    settled_mb: float = math.inf
    leaving: bool = False

    @property
    def name(self) -> str:
        return "{}/{}".format(*self.place) if self.place else "starting"

    @property
    def tickets(self) -> list[Ticket]:
        return list(self.calls.values())


@dataclass(frozen=True, slots=True)
class Role:
    """What the workers of a crew are for.

    Attributes:
        setup: What each is told when it starts; it is given `setup.jobs` jobs at once.
        count: How many work at a time.
        limit: The seconds that a job with this budget may take before it is killed.
        killed: What is said of such a job, before the seconds.
        start_timeout_s: The seconds that a worker has to warm up.
        jobs_per_worker: After so many jobs one is replaced,
        memory_mb: and after a job with which it holds more than this, or has grown by GROWTH.
        spare: Whether, once a worker has died, one more is kept warm in reserve.
    """

    setup: Setup
    count: int
    limit: Callable[[Budget], float]
    killed: str
    start_timeout_s: float
    jobs_per_worker: float
    memory_mb: float
    spare: bool


class Crew:
    """The workers of one role.

    Jobs go in by `give`. What becomes of them is told by `news`: those that ended, and those that
    are to run again, because they lost their worker. See `pool.Pool` for the rules. The future of
    every call to a worker is put into `answered` when it ends; the caller hands it to `take`.
    """

    def __init__(self, role: Role, cluster: Cluster, answered: SimpleQueue[Future[Any]]) -> None:
        self.role = role
        self.idle: list[Member] = []
        self.starting: dict[Future[Any], Member] = {}
        self.next_deadline = math.inf  # nobody's is earlier
        self._working: dict[Future[Any], Member] = {}  # a member once for each of its jobs
        self._busy: dict[int, Member] = {}  # by id, those of them
        self._answered = answered
        self._size = role.count
        self._failed_starts = 0
        self._ended: list[Ended] = []
        self._again: list[Ticket] = []
        self.fill(cluster)

    @property
    def busy(self) -> int:
        """How many workers have a job."""
        return len(self._busy)

    @property
    def free(self) -> bool:
        """Whether a worker has no job and may get one."""
        return bool(self.idle) and self.busy < self.role.count

    def fill(self, cluster: Cluster) -> None:
        """Starts all workers on this Ray."""
        self._cluster = cluster
        for _ in range(self._size):
            self._start()

    def news(self) -> tuple[list[Ended], list[Ticket]]:
        """What has ended since the last call, and what is to run again, first things first."""
        news = self._ended, self._again
        self._ended, self._again = [], []
        return news

    def give(self, ticket: Ticket) -> bool:
        """Gives the job to a worker, and says whether there was one free for it."""
        member = self._free(ticket)
        if member is None:
            return False
        if not member.calls:
            self.idle.pop()
            self._busy[id(member)] = member
            self._watch(member, ticket)
        more = () if ticket.compiled is None else (ticket.compiled, member.given)
        member.given += 1
        call = self._call(member.actor.run, ticket.job, *more)
        member.calls[call] = ticket
        self._working[call] = member
        return True

    def take(self, call: Future[Any]) -> bool:
        """Takes in the answer or the death of a worker, and says whether it is one of this crew. A
        worker that was killed meanwhile is nobody's."""
        calls = self._working if call in self._working else self.starting
        member = calls.get(call)
        if member is None:
            return False
        try:
            answer = self._cluster.answer(call, member.place)
        except WorkerDied as death:
            if not self._cluster.lost():  # else as all the others have
                self._dismiss(member, call)
                self._cluster.kill(member.actor)  # it may be alive where only the network failed
                self._mourn(member, death)
        else:
            del calls[call]
            self._welcome(member, call, answer)
        return True

    def kill_overdue(self) -> None:
        """Kills the workers whose time is up. Looks at all of them only when the earliest deadline
        that there was has passed, which with time limits far above durations is seldom."""
        now = time.monotonic()
        if now < self.next_deadline:
            return
        for call, member in [*self.starting.items(), *self._first_calls()]:
            if member.deadline <= now:
                self._dismiss(member, call)
                self._cluster.kill(member.actor)
                self._blame(member)
                self._replace()
        waiting = (*self.starting.values(), *self._busy.values())
        self.next_deadline = min((member.deadline for member in waiting), default=math.inf)

    def kill(self) -> None:
        """Kills all workers, and drops them."""
        for member in (*self.idle, *self.starting.values(), *self._busy.values()):
            self._cluster.kill(member.actor)
        self.drop()

    def drop(self) -> None:
        """Drops all workers, their jobs to run again. Whatever their calls answer is ignored."""
        for member in self._busy.values():
            self._again += member.tickets
        self.idle.clear()
        self.starting.clear()
        self._working.clear()
        self._busy.clear()

    def _start(self) -> None:
        """Starts a worker; on a cluster it gets its place when there is room, however late."""
        member = Member(self._cluster.start_worker(self.role.setup), time.monotonic())
        limit = math.inf if self._cluster.session is None else self.role.start_timeout_s
        self._warm(member, limit, member.actor.place)

    def _warm(self, member: Member, limit: float, method: Any) -> None:
        self._limit(member, limit)
        self.starting[self._call(method)] = member

    def _call(self, method: Any, *arguments: Any) -> Future[Any]:
        call = self._cluster.call(method, *arguments)
        call.add_done_callback(self._answered.put)
        return call

    def _limit(self, member: Member, seconds: float) -> None:
        member.deadline = time.monotonic() + seconds
        self.next_deadline = min(self.next_deadline, member.deadline)

    def _watch(self, member: Member, ticket: Ticket) -> None:
        """The member's time runs for this job from now on."""
        member.since = time.monotonic()
        self._limit(member, self.role.limit(ticket.job.budget))

    def _free(self, ticket: Ticket) -> Member | None:
        """A worker for this job: the last idle one, of which a spare may be one, as long as no more
        than `count` work; else one that takes another job beside what it has."""
        if self.free:
            return self.idle[-1]
        if self.role.setup.jobs == 1 or ticket.alone:
            return None
        fits = (member for member in self._busy.values() if self._takes_more(member))
        return min(fits, key=lambda member: len(member.calls), default=None)

    def _takes_more(self, member: Member) -> bool:
        if member.leaving or len(member.calls) >= self.role.setup.jobs:
            return False
        return not any(ticket.alone for ticket in member.tickets)

    def _first_calls(self) -> Iterator[tuple[Future[Any], Member]]:
        """Every busy member, once."""
        return ((next(iter(member.calls)), member) for member in self._busy.values())

    def _welcome(self, member: Member, call: Future[Any], answer: Any) -> None:
        """A worker runs, has warmed up, or brings what became of a job."""
        if member.place is None:
            member.place = answer
            self._warm(member, self.role.start_timeout_s, member.actor.prepare)
        elif not member.calls:
            self._failed_starts = 0
            self.idle.append(member)
            if self._alive() < self._size:
                self._start()
        else:
            self._end(member, call, *answer)

    def _end(
        self, member: Member, call: Future[Any], made: Outcome | Compiled, held_mb: float
    ) -> None:
        first = next(iter(member.calls)) is call
        self._ended.append(Ended(member.calls.pop(call), made, member.name))
        member.leaving |= self._worn(member, held_mb)
        if member.calls:
            if first:
                self._watch(member, member.tickets[0])
            return
        del self._busy[id(member)]
        if member.leaving:
            self._cluster.kill(member.actor)
            self._start()
        else:
            self.idle.append(member)

    def _worn(self, member: Member, held_mb: float) -> bool:
        """Whether the member has run enough jobs, or holds too much memory."""
        if member.given >= SETTLED and math.isinf(member.settled_mb):
            member.settled_mb = held_mb
        most = min(self.role.memory_mb, GROWTH * member.settled_mb)
        return member.given >= self.role.jobs_per_worker or held_mb > most

    def _dismiss(self, member: Member, call: Future[Any]) -> None:
        """The member is gone, with all its calls."""
        self.starting.pop(call, None)
        self._busy.pop(id(member), None)
        for each in member.calls:
            del self._working[each]

    def _mourn(self, member: Member, death: WorkerDied) -> None:
        """A worker died by itself: the job that had the device gets another chance, once, and those
        that were made ready beside it run again. Any of them may have done it, so each is tried
        alone."""
        tickets = member.tickets
        if not tickets:
            if not death.lost:  # Ray starts workers on a lost machine until it has noticed
                self._count_failed_start(f"the last one died: {death}")
        else:
            first, lost = tickets[0], tickets[0].lost + 1
            for ticket in tickets:
                ticket.alone = True
            if lost < ATTEMPTS:
                first.lost = lost
                self._again += tickets
            else:
                status: Status = "out_of_memory" if death.starved else "crashed"
                self._fail(member, status, f"its worker died {ATTEMPTS} times: {death}")
                self._again += tickets[1:]
        self._replace()

    def _blame(self, member: Member) -> None:
        """A worker was killed because its time was up, or rather its first job's."""
        if not member.calls:
            limit = self.role.start_timeout_s
            self._count_failed_start(
                f"the last one took more than {limit:g} s, which is workers.start_timeout_s"
            )
            return
        first, *others = member.tickets
        limit = self.role.limit(first.job.budget)
        self._fail(member, "timed_out", f"{self.role.killed} {limit:g} s")
        self._again += others

    def _fail(self, member: Member, status: Status, reason: str) -> None:
        """Ends the member's first job."""
        outcome = Outcome(status, reason, setup_seconds=time.monotonic() - member.since)
        self._ended.append(Ended(member.tickets[0], outcome, member.name))

    def _count_failed_start(self, reason: str) -> None:
        self._failed_starts += 1
        if self._failed_starts >= FAILED_STARTS:
            raise PoolError(f"{FAILED_STARTS} workers in a row did not start: {reason}")

    def _replace(self) -> None:
        """Makes up for a lost worker. Where one dies, more will: from then on there may be one warm
        in reserve. (It starts when the replacement is warm, see `_welcome`.)"""
        if self.role.spare:
            self._size = self.role.count + 1
        if self._alive() < self._size:
            self._start()

    def _alive(self) -> int:
        return len(self.idle) + len(self.starting) + len(self._busy)
