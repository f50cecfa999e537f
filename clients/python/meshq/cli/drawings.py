"""Tables and sheets for people. Pure: values in, rich drawings out; everything shown is made printable."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from meshq.cli.output import printable

STYLES = {
    "SUCCEEDED": "green",
    "ACTIVE": "green",
    "FAILED": "bold red",
    "UNREACHABLE": "bold red",
    "OUT": "bold red",
    "CANCELLED": "yellow",
    "CANCELLING": "yellow",
    "EXPIRED": "yellow",
    "RETRYING": "yellow",
    "STALE": "yellow",
    "DRAINING": "yellow",
    "RECOVERING": "yellow",
    "RUNNING": "cyan",
    "LOST": "bold red",
    "TIMED_OUT": "bold red",
    "SNOOZED": "cyan",
    "PAUSED": "yellow",
}
WIDE = 120
"""Columns of a terminal from which on tables show everything."""
_SHORT = 60
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, whole: Sequence[str] = ()
) -> Table:
    """A table without lines, which reads well and pastes well.

    Args:
        columns: The headings.
        rows: The cells, in the order of the headings; only texts may be styled.
        whole: Headings of columns that are never wrapped or cut.
    """
    drawing = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        drawing.add_column(name, no_wrap=name in whole, overflow="fold")
    for row in rows:
        drawing.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    return drawing


def sheet(rows: Iterable[tuple[str, str | Text]]) -> Table:
    """Names and values of one thing; empty values are left out."""
    drawing = Table(box=None, pad_edge=False, show_header=False)
    drawing.add_column(style="bold", no_wrap=True)
    drawing.add_column(overflow="fold")
    for name, value in rows:
        if value:
            drawing.add_row(name, value if isinstance(value, Text) else Text(printable(value)))
    return drawing


def state(name: str) -> Text:
    """A state in its colour."""
    return Text(name, style=STYLES.get(name, ""))


def with_numbers(drawing: Table, names: Sequence[str]) -> Table:
    """The table with columns of numbers to the right."""
    for column in drawing.columns:
        if column.header in names:
            column.justify = "right"
    return drawing


def clock(time: dt.datetime | None) -> str:
    """A time in the local zone, to the second."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else ""


def short_clock(time: dt.datetime | None) -> str:
    """A time in the local zone, no longer than a person needs today."""
    if time is None:
        return ""
    local, now = time.astimezone(), dt.datetime.now().astimezone()
    if local.date() == now.date():
        return local.strftime("%H:%M:%S")
    return local.strftime("%m-%d %H:%M" if local.year == now.year else "%Y-%m-%d")


def span(length: dt.timedelta | None) -> str:
    """A length of time in the unit that fits."""
    if length is None:
        return ""
    seconds = length.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    if seconds < _DAY:
        return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"
    return f"{seconds // _DAY:.0f} d {seconds % _DAY // _HOUR:.0f} h"


def ago(time: dt.datetime | None, now: dt.datetime | None = None) -> str:
    """A time in the local zone, and how far it is from now."""
    if time is None:
        return ""
    passed = (now or dt.datetime.now(dt.UTC)) - time
    apart = f"in {span(-passed)}" if passed < dt.timedelta() else f"{span(passed)} ago"
    return f"{clock(time)} ({apart})"


def pairs(entries: Mapping[str, str]) -> str:
    """Keys and values in one line."""
    return ", ".join(f"{key}={value}" for key, value in sorted(entries.items()))


def short(text: str) -> str:
    """The first line of a text, cut to fit a column."""
    first = text.partition("\n")[0]
    return first if len(first) <= _SHORT else first[: _SHORT - 1] + "…"
