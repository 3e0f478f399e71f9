"""A table of things of one kind, found by name, which plug-ins may add to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from primitives.errors import unknown


class Named(Protocol):
    """A row of a table."""

    @property
    def name(self) -> str: ...


Row = TypeVar("Row", bound=Named)


class RegistrationError(ValueError):
    """A row that a table cannot take: its name belongs to another one."""


class Registry(dict[str, Row]):
    """Rows by name, in the order of their registration. `kind` is what messages call a row.

    Rows are only ever added: whatever was computed from a row stays true.
    """

    def __init__(self, kind: str, rows: Iterable[Row] = ()) -> None:
        super().__init__()
        self.kind = kind
        for row in rows:
            self.register(row)

    def register(self, row: Row) -> Row:
        """Adds a row and returns it. A second registration of the same row changes nothing; another
        row of the same name is a RegistrationError."""
        if self.setdefault(row.name, row) is not row:
            raise RegistrationError(f"{self.kind} '{row.name}' exists already; choose another name")
        return row

    def problem(self, name: str) -> str | None:
        """What is wrong with a name that is not in the table, with the nearest one and all that
        are; None for one that is."""
        return None if name in self else unknown(self.kind, name, self)
