"""Progress of long work on stderr, such as a campaign: a live panel on a terminal, plain lines
elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.campaign.progress import Progress
from search.cli.output import duration
from search.storage.events import Heartbeat

LINE_INTERVAL_S = 10.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is shown of work at one moment: its phase, what is done of it, and facts in words."""

    phase: str
    done: int
    total: int
    facts: Mapping[str, str]


class Display(Protocol):
    """Shows snapshots while it is entered."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, snapshot: Snapshot) -> None:
        """Called at every event; how often something is drawn is the display's affair."""

    def note(self, text: str) -> None:
        """A line of its own that stays."""


def make_display(console: Console, name: str) -> Display:
    return LivePanel(console, name) if console.is_terminal else Lines(console, name)


class LivePanel:
    """Redrawn in place, four times a second."""

    def __init__(self, console: Console, name: str) -> None:
        self._name = name
        self._live = Live(console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        self._live.update(panel(self._name, snapshot))

    def note(self, text: str) -> None:
        self._live.console.print(Text(text))


class Lines:
    """A line when the phase changes, and one at intervals."""

    def __init__(
        self, console: Console, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._name, self._clock = console, name, clock
        self._next, self._phase = 0.0, ""
        self._last = self._printed = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._print()

    def show(self, snapshot: Snapshot) -> None:
        self._last = line(self._name, snapshot)
        if snapshot.phase != self._phase or self._clock() >= self._next:
            self._phase = snapshot.phase
            self._print()

    def note(self, text: str) -> None:
        self._console.print(Text(text))

    def _print(self) -> None:
        if self._last != self._printed:
            self._console.print(Text(self._last))
        self._printed, self._next = self._last, self._clock() + LINE_INTERVAL_S


def panel(name: str, snapshot: Snapshot) -> Group:
    """What the live display draws."""
    done, total = snapshot.done, snapshot.total
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(name, style="bold"),
        Text(snapshot.phase),
        ProgressBar(total=max(total, 1), completed=done, width=30),
        Text(f"{done}/{total}"),
    )
    body = Table.grid(padding=(0, 2))
    for key, value in snapshot.facts.items():
        body.add_row(Text(key, style="dim"), Text(value))
    return Group(head, body)


def line(name: str, snapshot: Snapshot) -> str:
    """The same on one line, for logs."""
    parts = [f"{name} {snapshot.phase} {snapshot.done}/{snapshot.total}"]
    return " | ".join([*parts, *(f"{key} {value}" for key, value in snapshot.facts.items())])


def of_campaign(progress: Progress, heartbeat: Heartbeat | None) -> Snapshot:
    """What is shown of a campaign."""
    facts = {**machine(heartbeat), **details(progress)}
    return Snapshot(progress.phase, *_done(progress), facts)


def machine(heartbeat: Heartbeat | None) -> dict[str, str]:
    """What the running controller says of its workers, in words."""
    if heartbeat is None:
        return {}
    busy = f"{heartbeat.running} of {heartbeat.capacity} busy"
    shown = {"workers": busy, "ETA": duration(heartbeat.eta_s)}
    return {**shown, "waiting": heartbeat.waiting} if heartbeat.waiting else shown


def details(progress: Progress) -> dict[str, str]:
    """Counts and scores in words; what is still unknown is left out."""
    counts = [f"{count} {outcome}" for outcome, count in progress.outcomes.items() if count]
    shown = {"outcomes": ", ".join(counts) or "none yet"}
    if progress.duplicates:
        shown["duplicates saved"] = str(progress.duplicates)
    full = progress.spent + saved(progress)
    if saved(progress) > 0 and full > 0:
        shown["budget saved"] = f"{saved(progress) / full:.0%} of training every child in full"
    if progress.in_full is not None:
        real, meant = progress.in_full
        places = zip(progress.went_on, progress.reached, strict=True)
        shares = ", ".join(f"{on / there:.0%}" if there else "-" for on, there in places)
        shown["hurdles"] = (
            f"{shares} go on ({progress.meant:.0%} meant), "
            f"{real:.1%} to the end ({meant:.1%} meant)"
        )
    if progress.paused:
        shown["paused"] = f"{progress.paused} at hurdles; the best of them go on"
    if progress.best is not None:
        shown["best"] = f"#{progress.best.id} {_score(progress.best.val_bpb)}"
    if progress.seed is not None:
        gain = "" if progress.gain is None else f" (best is {progress.gain:.3f} under it)"
        shown["seed"] = f"#{progress.seed.id} {_score(progress.seed.val_bpb)}{gain}"
    return shown


def saved(progress: Progress) -> float:
    """Budget that was not spent, in the campaign's unit."""
    return progress.saved_by_duplicates + progress.saved_by_hurdles


def _score(bpb: float | None) -> str:
    return "no score" if bpb is None else f"{bpb:.4f} bits/byte"


def _done(progress: Progress) -> tuple[int, int]:
    if progress.phase in ("seeds", "search"):
        return progress.recorded - progress.pending, progress.candidates
    return progress.finals_done, progress.finals_planned
