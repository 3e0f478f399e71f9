"""The pool's rules over random histories, in which simulated workers die, hang and answer in any
order. Time is simulated, too."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from primitives.language.text import render
from primitives.programs.seeds import load_seed
from workers.machine.devices import Layout
from workers.pool.cluster import PoolError, WorkerDied
from workers.pool.pool import ENTRY, Pool
from workers.pool.worker import Setup
from workers.spec.outcome import Budget, Compiled, Job, Outcome
from workers.spec.pool import PoolSpec
from workers.spec.task import Task, TrainingSpec

LIMIT_S = 100.0
STEPS = Budget("steps", 1)
PROGRAM = render(load_seed("prefix_mean"))
JAX = Task(training=TrainingSpec(backend="jax"))


class Actor:
    """A simulated worker and its calls that have not been answered, in order."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.pending: list[tuple[Future[Any], Job]] = []
        self.place, self.prepare, self.run = ((self, name) for name in ("place", "prepare", "run"))

    @property
    def trains(self) -> bool:
        return self.setup.entry == ENTRY

    @property
    def jobs(self) -> list[int]:
        return [job.id for _, job in self.pending]


class Simulated:
    """A Ray of simulated workers, which are warm at once."""

    session = folder = None
    leave = mock.Mock()

    def __init__(self, workers: int) -> None:
        self.layout = Layout(workers, 1, 0.0)
        self.actors: list[Actor] = []

    def start_worker(self, setup: Setup) -> Actor:
        self.actors.append(Actor(setup))
        return self.actors[-1]

    def call(self, method: tuple[Actor, str], *arguments: Any) -> Future[Any]:
        actor, name = method
        call: Future[Any] = Future()
        if name == "run":
            actor.pending.append((call, arguments[0]))
        else:
            call.set_result(("simulated", id(actor)))
        return call

    def answer(self, call: Future[Any], place: object) -> Any:
        return call.result()

    def memory_share_mb(self, processes: int) -> float:
        return 100.0

    def lost(self) -> None:
        return None

    def kill(self, actor: Actor) -> None:
        """It may have died before."""
        if actor in self.actors:
            self.actors.remove(actor)

    @property
    def busy(self) -> list[Actor]:
        return [actor for actor in self.actors if actor.pending]


class History:
    """What happens to the jobs, and what must become of each."""

    def __init__(self, cluster: Simulated) -> None:
        self.cluster = cluster
        self.now = 0.0
        self.losses: Counter[int] = Counter()
        self.with_the_dead: set[int] = set()
        self.expected: dict[int, str] = {}

    def clock(self) -> float:
        self.now += 1e-6
        return self.now

    def end(self, actor: Actor, status: Any, held_mb: float) -> None:
        """The worker's first job ends."""
        call, job = actor.pending.pop(0)
        made = actor.trains or status == "invalid"
        if made:
            self.expected[job.id] = status
        call.set_result((Outcome(status) if made else Compiled(b"", 1.0), held_mb))

    def die(self, actor: Actor) -> None:
        """The first job is at fault."""
        self.cluster.actors.remove(actor)
        first = actor.jobs[0]
        self.losses[first] += 1
        self.with_the_dead |= set(actor.jobs)
        if self.losses[first] == 2:
            self.expected[first] = "crashed"
        for call, _ in actor.pending:
            call.set_exception(WorkerDied("gone"))

    def hang(self) -> None:
        """Everybody's time is up."""
        for actor in self.cluster.busy:
            self.expected[actor.jobs[0]] = "timed_out"
        self.now += LIMIT_S

    def check(self, ahead: int) -> None:
        training = [actor for actor in self.cluster.busy if actor.trains]
        count = self.cluster.layout.count
        assert len(training) <= count and len(self.cluster.actors) <= count * (1 + ahead)
        for actor in self.cluster.busy:
            assert len(actor.pending) <= actor.setup.jobs
            if len(actor.pending) > 1:
                assert not self.with_the_dead & set(actor.jobs), "it was to run alone"


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_every_job_is_reported_once_as_what_became_of_it(data: st.DataObject) -> None:
    ahead, workers = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 2))
    texts = data.draw(st.lists(st.sampled_from(["none", PROGRAM]), min_size=3, max_size=8))
    faults = data.draw(st.integers(0, 6))
    cluster = Simulated(workers)
    history = History(cluster)
    spec = PoolSpec(count=workers, ahead=ahead, timeout_s=LIMIT_S, jobs_per_worker=3, spare=False)
    reported: dict[int, str] = {}
    with (
        mock.patch("workers.pool.pool.join", return_value=cluster),
        mock.patch("time.monotonic", history.clock),
        Pool(JAX, spec) as pool,
    ):
        for index, text in enumerate(texts):
            pool.submit(Job(index, text, STEPS, seed=index))
        for _ in range(200):
            for report in pool.wait(2e-5):
                assert report.job.id not in reported
                reported[report.job.id] = report.outcome.status
            history.check(ahead)
            if len(reported) == len(texts):
                break
            if cluster.busy:
                faults -= step(data, history, faults)
        assert pool.wait(2e-5) == []
    assert set(reported) == set(range(len(texts)))
    assert reported == history.expected


def step(data: st.DataObject, history: History, faults: int) -> bool:
    """Something happens to one worker, or to all; whether it was a fault."""
    actor = data.draw(st.sampled_from(history.cluster.busy))
    kind = data.draw(st.sampled_from(["end", "end", "die", "hang"])) if faults > 0 else "end"
    if kind == "die":
        history.die(actor)
    elif kind == "hang":
        history.hang()
    else:
        status = data.draw(st.sampled_from(["completed", "completed", "invalid"]))
        history.end(actor, status, data.draw(st.sampled_from([1.0, 1.0, 200.0])))
    return kind != "end"


class Dying(Simulated):
    """A Ray whose server dies, and which cannot be asked anything once it has ended."""

    ended = 0

    def lost(self) -> Any:
        assert not self.ended, "it has ended"
        return "raylet"

    def leave(self) -> None:  # type: ignore[override]
        self.ended += 1


def test_a_ray_that_cannot_start_again_is_the_pools_error_and_ends_once() -> None:
    cluster = Dying(1)
    rays = [cluster, PoolError("no room")]
    with (
        mock.patch("workers.pool.pool.join", side_effect=rays),
        pytest.raises(PoolError, match=r"raylet has died, and no room: .* `primevo resume`"),
        Pool(Task(), PoolSpec(count=1)) as pool,
    ):
        pool.submit(Job(0, PROGRAM, STEPS, seed=0))
        pool.wait(1)
    pool.close()
    assert cluster.ended == 1
