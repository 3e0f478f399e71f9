"""Data for stdout: records as a table for a person or as JSON for a program."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 240
"""Columns where stdout is no terminal, so that nothing is cut for the next program."""


def stdout() -> Console:
    """A console on the present stdout; colour on a terminal only."""
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else WIDE)


def stderr() -> Console:
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document; a number that JSON has not (nan, inf) becomes null."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def print_records(
    records: Iterable[Mapping[str, Any]], columns: Sequence[str], output: str, title: str = ""
) -> None:
    """Records under their column names: `columns` of each in the table, all of them in JSON."""
    rows = list(records)
    if output == "json":
        print_json(rows)
        return
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        numbers = any(isinstance(row.get(column), int | float) for row in rows)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(row.get(column))) for column in columns))
    stdout().print(table)


def print_fields(record: Mapping[str, Any], output: str) -> None:
    """One record, a field a line."""
    if output == "json":
        print_json(record)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for key, value in record.items():
        table.add_row(Text(key, style="bold"), Text(cell(value)))
    stdout().print(table)


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


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, int | str) else str(value)
