"""Data for stdout: records as a table for a person, as JSON for a program, or as CSV for a
spreadsheet."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from textwrap import fill
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

UNLIMITED = 100_000
"""Columns where nothing says how many there are, so that nothing is cut for the next program."""

HASH = 8
"""Characters of a hash in a table; JSON has all 32."""

GAP = 2
"""Spaces between two columns."""

NARROWEST = 20
"""Columns that flexible text must have, else other columns make room for it."""


def stdout(width: int | None = None) -> Console:
    """A console on the present stdout, `width` columns wide or as wide as it is; colour on a
    terminal only."""
    return Console(file=sys.stdout, highlight=False, width=width or columns_of_stdout())


def columns_of_stdout() -> int:
    """COLUMNS where it is set, else the terminal's width; no limit where there is no terminal."""
    said = os.environ.get("COLUMNS", "")
    if said.isdigit() and int(said) > 0:
        return int(said)
    return Console(file=sys.stdout).width if sys.stdout.isatty() else UNLIMITED


def stderr() -> Console:
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document; a number that JSON has not (nan, inf) becomes null."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def print_csv(records: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """All fields of the records, in the order in which they first come: a header, then a line each.
    `columns` is the header where there is no record. What is unknown is empty; a list or a mapping
    is JSON text."""
    rows = list(records)
    header = list(dict.fromkeys(key for row in rows for key in row)) or list(columns)
    writer = csv.DictWriter(sys.stdout, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _csv_cell(value) for key, value in row.items()} for row in rows)


def _csv_cell(value: Any) -> Any:
    plain = _plain(value)
    if isinstance(plain, bool | Mapping | list):
        return json.dumps(plain, ensure_ascii=False)
    return plain


def print_records(
    records: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    output: str,
    title: str = "",
    *,
    flexible: str = "",
    cut: bool = False,
    wide: bool | None = None,
) -> None:
    """Records under their column names: `columns` of each in the table, all of them in JSON and
    in CSV.

    A table fits the width of stdout. The column `flexible` goes on in the next line where it is too
    long, or ends in an ellipsis where `cut` says so; every other cell stays on its line. Columns
    that leave no room are left out, from the last one on, and stderr names them. `wide` keeps all
    of them whole on lines of any length; None says that the verb has no such option.
    """
    rows = list(records)
    if output == "json":
        print_json(rows)
        return
    if output == "csv":
        print_csv(rows, columns)
        return
    width = UNLIMITED if wide else columns_of_stdout()
    cells = {column: [_short(column, row.get(column)) for row in rows] for column in columns}
    widths = _fitting(cells, flexible, width)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    for column, needed in widths.items():
        bends = column == flexible and not cut
        table.add_column(
            column,
            justify="right" if _numbers(row.get(column) for row in rows) else "left",
            overflow="fold" if bends else "ellipsis",
            no_wrap=not bends,
            width=needed,
        )
    for line in zip(*(cells[column] for column in widths), strict=True):
        table.add_row(*map(Text, line))
    if title:
        print(title)
    _print_table(table, width)
    _say_left_out([column for column in columns if column not in widths], width, wide is not None)


def print_fields(record: Mapping[str, Any], output: str) -> None:
    """One record, a field a line; in CSV a column each."""
    if output == "json":
        print_json(record)
        return
    if output == "csv":
        print_csv([record], ())
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in record.items():
        table.add_row(Text(key, style="bold"), Text(cell(value)))
    _print_table(table, columns_of_stdout())


def print_wrapped(text: str, mark: str = "") -> None:
    """A paragraph in the width of stdout, after a mark such as `- `."""
    width = columns_of_stdout()
    print(fill(text, width, initial_indent=mark, subsequent_indent=" " * len(mark)))


def _short(column: str, value: Any) -> str:
    return cell(value)[:HASH] if column == "hash" else cell(value)


def _numbers(values: Iterable[Any]) -> bool:
    """Whether a column holds any, and so is aligned at its right."""
    return any(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _fitting(cells: Mapping[str, Sequence[str]], flexible: str, width: int) -> dict[str, int]:
    """The columns that fit, with their widths. Where they are too wide together, the flexible one
    gives way first, down to NARROWEST, and then the last ones go; the first one stays. Widths of
    id 4, about 60, hash 8 become 4, 24, 8 in 40 columns, and 4, 24 in 30."""
    needs = {column: max(map(cell_len, (column, *text))) for column, text in cells.items()}
    wanted = needs.get(flexible, 0)
    if flexible in needs:
        needs[flexible] = min(wanted, NARROWEST)
    droppable = [column for column in list(needs)[1:] if column != flexible]
    while droppable and _spare(needs, width) < 0:
        del needs[droppable.pop()]
    if flexible in needs:
        needs[flexible] = max(1, min(wanted, needs[flexible] + _spare(needs, width)))
    return needs


def _spare(widths: Mapping[str, int], width: int) -> int:
    """Columns of stdout that a table of these columns leaves free."""
    return width - sum(widths.values()) - GAP * (len(widths) - 1)


def _say_left_out(columns: Sequence[str], width: int, has_wide: bool) -> None:
    if columns:
        where = "--wide shows all, and so does -o json" if has_wide else "-o json has all"
        print(f"left out at {width} columns: {', '.join(columns)}; {where}", file=sys.stderr)


def _print_table(table: Table, width: int) -> None:
    """Lines end with their text: rich fills them up to the table's width."""
    console = stdout(width)
    with console.capture() as drawn:
        console.print(table)
    text = drawn.get()
    if not console.is_terminal:
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    print(text, end="")


def cell(value: Any) -> str:
    """A value as a table shows it: four decimals, thousands apart, '-' for none."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value) if abs(value) < 10_000 else f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10_000 else f"{value:,.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {cell(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value) or "-"
    return str(value)


def mean_and_deviation(mean: float | None, deviation: float | None) -> str:
    """3.1460 ± 0.0080, without a deviation for a single run."""
    if mean is None:
        return "-"
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"


def duration(seconds: float | None) -> str:
    """1:02:03 or 2:03; '?' while nobody can tell."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def moment(at: float | None) -> str | None:
    """2026-11-26 09:47:30+00:00, of seconds since the epoch."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(" ", "seconds")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, int | str) else str(value)
