"""A campaign at the edge: its workers, its progress display, and Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Protocol

import numpy as np

from search.campaign.controller import Controller
from search.campaign.progress import Progress
from search.cli.display import make_display, of_campaign
from search.cli.output import stderr
from search.cli.waiting import waiting
from search.errors import PrimevoError
from search.storage.events import Heartbeat
from search.storage.store import CampaignRow, Store
from workers.data.corpora import DataError, downloads
from workers.plugins import PluginError
from workers.pool.cluster import PoolError
from workers.pool.pool import Pool
from workers.spec.fit import needed_tokens, window_length
from workers.spec.objectives import OBJECTIVES
from workers.spec.pool import PoolSpec
from workers.spec.task import Task


class Staffed(Protocol):
    """A config that says which workers it wants, and for what."""

    @property
    def task(self) -> Task: ...
    @property
    def workers(self) -> PoolSpec: ...
    @property
    def plugins(self) -> tuple[str, ...]: ...


@contextmanager
def started(config: Staffed, tasks: Iterable[Task] = ()) -> Iterator[Pool]:
    """The config's workers, ended however the block ends; what they lack is a PrimevoError. `tasks`
    are those of the jobs that say one of their own."""
    try:
        for task in tasks or (config.task,):
            _check_text(task)
        with waiting("starting Ray"):
            pool = Pool(config.task, config.workers, plugins=config.plugins)
        with pool:
            yield pool
    except (PoolError, DataError, PluginError) as error:
        raise PrimevoError(str(error)) from None


@contextmanager
def on_demand(
    config: Staffed, tasks: Iterable[Task] = ()
) -> Iterator[Callable[[], Pool]]:  # fmt: skip
    """A function that gives the config's workers (see `started`), started when it is called."""
    with ExitStack() as stack:
        pools: list[Pool] = []

        def workers() -> Pool:
            if not pools:
                pools.append(stack.enter_context(started(config, tasks)))
            return pools[0]

        yield workers


def _check_text(task: Task) -> None:
    """Before workers start, the text is made into tokens, which they would do first, and a split
    too short for a sequence is a PrimevoError. What must be downloaded is left to the workers."""
    if downloads(task.data):
        return
    from workers.data.tokens import load_tokens, too_short

    with waiting("making tokens of the text") as tell:
        tokens = load_tokens(task.data, tell=tell)
    if problem := too_short(tokens, needed_tokens(task)):
        raise PrimevoError(problem)
    objective = OBJECTIVES[task.training.objective]
    if objective.group > 1:  # similar texts are looked for at the first draw
        shape, rng = (1, task.training.batch_size), np.random.default_rng(0)
        with waiting("grouping the text"):
            objective.draw(tokens.train, window_length(task), shape, rng)
    if task.transfer is not None and not downloads(task.transfer):
        with waiting("making tokens of the other text") as tell:
            other = load_tokens(task.transfer, tell=tell, like=task.data)
        if len(other.test) < window_length(task):
            raise PrimevoError(
                f"the test split of task.transfer has {len(other.test)} tokens, fewer than a "
                f"sequence with its targets, {window_length(task)}: give it more text"
            )


def run(store: Store, campaign: CampaignRow, pool: Pool, hours: float | None = None) -> Progress:
    """Runs the campaign to its end, or until it is drained, showing progress on stderr. After
    `hours` its search ends with what it has."""
    asked: list[str] = []  # a signal handler must not print: the next snapshot does

    def drain() -> None:
        controller.drain()
        asked.append("draining: running candidates end first; Ctrl-C again stops at once")

    def show(progress: Progress, heartbeat: Heartbeat) -> None:
        while asked:
            display.note(asked.pop())
        display.show(of_campaign(progress, heartbeat))

    with make_display(stderr(), campaign.name) as display:
        controller = Controller(store, campaign, pool, show, hours=hours)
        with interruptions(drain):
            return controller.run()


@contextmanager
def interruptions(drain: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM inside calls `drain`; the next one is a KeyboardInterrupt. Only
    the main thread may handle signals: in another one they do what they did."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        drain()

    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
