"""Who has the device: threads that wait in line for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Line:
    """Lets one thread through at a time, in the order of their numbers 0, 1, 2, ...; a number whose
    thread has left before its turn is passed over."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._next = 0
        self._gone: set[int] = set()

    @contextmanager
    def turn(self, number: int) -> Iterator[None]:
        """Waits until all lower numbers have left, and leaves at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._next >= number)
        try:
            yield
        finally:
            self.leave(number)

    def leave(self, number: int) -> None:
        """This number does not come, or not again."""
        with self._changed:
            if number >= self._next:
                self._gone.add(number)
            while self._next in self._gone:
                self._gone.remove(self._next)
                self._next += 1
            self._changed.notify_all()
