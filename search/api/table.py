"""Records for a notebook: a list of mappings that shows itself as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, overload

from search.cli.output import HASH, cell
from search.errors import PrimevoError

if TYPE_CHECKING:
    from pandas import DataFrame

Row = Mapping[str, Any]


class Table(Sequence[Row]):
    """Rows, each a mapping by column name. `columns` are those that are shown, all keys of the
    first row by default; a row may hold more."""

    def __init__(self, rows: Iterable[Row], columns: Sequence[str] | None = None) -> None:
        self._rows = tuple(rows)
        self.columns = tuple(
            columns if columns is not None else self._rows[0] if self._rows else ()
        )

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> Table: ...

    def __getitem__(self, place: int | slice) -> Row | Table:
        if isinstance(place, slice):
            return Table(self._rows[place], self.columns)
        return self._rows[place]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def to_pandas(self) -> DataFrame:
        """All that the rows hold, as a pandas DataFrame; needs the extra `pandas`."""
        return frame(self._rows)

    def __repr__(self) -> str:
        lines = [self.columns, *([_short(name, row) for name in self.columns] for row in self)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_short(n, row))}</td>" for n in self.columns) + "</tr>"
            for row in self
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def frame(rows: Iterable[Row]) -> DataFrame:
    """A pandas DataFrame of the rows, a PrimevoError where there is no pandas."""
    try:
        from pandas import DataFrame
    except ModuleNotFoundError:
        raise PrimevoError("to_pandas needs pandas: pip install 'primevo[pandas]'") from None
    return DataFrame([dict(row) for row in rows])


def _short(name: str, row: Row) -> str:
    text = cell(row.get(name))
    return text[:HASH] if name == "hash" else text
