"""Tables and sheets for people. Pure: values in, rich drawings out; everything shown is made printable."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from meshq.cli.output import printable
from meshq.cli.shapes import fields

if TYPE_CHECKING:  # imports grpc
    from meshq.client import models

STYLES = {
    "SUCCEEDED": "green",
    "ACTIVE": "green",
    "FAILED": "bold red",
    "UNREACHABLE": "bold red",
    "CANCELLED": "yellow",
    "CANCELLING": "yellow",
    "EXPIRED": "yellow",
    "RETRYING": "yellow",
    "STALE": "yellow",
    "DRAINING": "yellow",
    "RECOVERING": "yellow",
    "RUNNING": "cyan",
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


def tasks(items: Iterable[models.Task], *, wide: bool) -> Table:
    """Tasks, one a row; with fewer columns where there is no room."""
    columns = ["TASK", "TYPE", "QUEUE", "STATE", "ATTEMPT", "CREATED", "TOOK", "ERROR"]
    shown = columns if wide else ["TASK", "TYPE", "STATE", "CREATED", "TOOK"]
    rows = []
    for item in items:
        cells: dict[str, str | Text] = {
            "TASK": item.task_id,
            "TYPE": item.type,
            "QUEUE": item.queue,
            "STATE": state(item.state),
            "ATTEMPT": f"{item.attempt}/{item.max_attempts}",
            "CREATED": short_clock(item.create_time),
            "TOOK": took(item),
            "ERROR": short(failure(item)),
        }
        rows.append([cells[name] for name in shown])
    return table(shown, rows, whole=("TASK", "STATE", "CREATED"))


def task(item: models.Task) -> Table:
    """Everything about one task."""
    return sheet(
        [
            ("task", item.task_id),
            ("type", item.type),
            ("queue", item.queue),
            ("state", state(item.state)),
            ("attempt", f"{item.attempt} of {item.max_attempts}"),
            ("created", clock(item.create_time)),
            ("started", clock(item.attempt_start_time)),
            ("ended", clock(item.end_time)),
            ("took", took(item)),
            ("worker", item.worker_id),
            ("input", input_text(item)),
            ("headers", ", ".join(f"{key}={value}" for key, value in sorted(item.headers.items()))),
            ("result", result_text(item)),
            ("cancelled", clock(item.cancel_time)),
            ("reason", item.cancel_reason),
            ("error", failure(item)),
            ("traceback", item.error.traceback.rstrip() if item.error else ""),
        ]
    )


def queues(items: Iterable[models.Queue]) -> Table:
    """Queues, one a row."""
    rows = [
        (
            item.queue if item.complete else f"{item.queue} *",
            *(
                f"{count:,}"
                for count in (
                    item.counts.open,
                    item.counts.pending,
                    item.counts.running,
                    item.counts.scheduled,
                    item.counts.succeeded,
                    item.counts.failed,
                )
            ),
            f"{item.arrival_rate:,.1f}",
            f"{item.completion_rate:,.1f}",
            span(item.oldest_pending_age),
        )
        for item in items
    ]
    columns = [
        "QUEUE",
        "OPEN",
        "PENDING",
        "RUNNING",
        "SCHEDULED",
        "SUCCEEDED",
        "FAILED",
        "IN/S",
        "OUT/S",
        "OLDEST",
    ]
    return _with_numbers(table(columns, rows), columns[1:])


def queue(item: models.Queue) -> Table:
    """Everything about one queue."""
    counts = [(name, f"{count:,}") for name, count in fields(item.counts).items()]
    note = "" if item.complete else "a shard does not answer, so that open tasks may be more"
    return sheet(
        [
            ("queue", item.queue),
            ("created", clock(item.create_time)),
            *counts,
            ("oldest", span(item.oldest_pending_age)),
            ("in", f"{item.arrival_rate:,.1f}/s"),
            ("out", f"{item.completion_rate:,.1f}/s"),
            ("note", note),
        ]
    )


def workers(items: Iterable[models.Worker]) -> Table:
    """Workers, one a row."""
    rows = [
        (
            item.worker_id,
            state(item.state),
            item.mode.lower(),
            f"{item.leases}/{item.slots}" if item.slots else str(item.leases),
            ", ".join(item.queues),
            ", ".join(item.task_types),
            short_clock(item.last_seen_time),
        )
        for item in items
    ]
    return table(["WORKER", "STATE", "MODE", "BUSY", "QUEUES", "TYPES", "LAST SEEN"], rows, whole=("WORKER",))


def worker(item: models.Worker) -> Table:
    """Everything about one worker."""
    return sheet(
        [
            ("worker", item.worker_id),
            ("state", state(item.state)),
            ("mode", item.mode.lower()),
            ("slots", f"{item.slots:,}" if item.slots else ""),
            ("leases", f"{item.leases:,}"),
            ("queues", ", ".join(item.queues)),
            ("types", ", ".join(item.task_types)),
            ("labels", ", ".join(f"{key}={value}" for key, value in sorted(item.labels.items()))),
            ("build", item.build_id),
            ("agent", item.user_agent),
            ("instance", item.instance_id),
            ("session", item.session_id),
            ("connected", clock(item.connect_time)),
            ("last seen", clock(item.last_seen_time)),
        ]
    )


def services(items: Iterable[models.Service]) -> Table:
    """GRPC services, one a row."""
    rows = [(item.service, item.component, str(item.instances)) for item in items]
    return _with_numbers(table(["SERVICE", "COMPONENT", "INSTANCES"], rows), ["INSTANCES"])


def instances(items: Iterable[models.Instance]) -> Table:
    """Processes of the mesh, one a row."""
    rows = [
        (
            item.component,
            item.instance_id,
            state(item.state),
            item.address,
            item.admin_address,
            item.version,
            item.zone,
            short_clock(item.register_time),
        )
        for item in items
    ]
    columns = ["COMPONENT", "INSTANCE", "STATE", "ADDRESS", "ADMIN", "VERSION", "ZONE", "REGISTERED"]
    return table(columns, rows, whole=("INSTANCE", "ADDRESS"))


def shards(ring: models.Ring) -> Table:
    """The ring, one shard a row."""
    rows = [
        (
            item.shard,
            state(item.state),
            item.address,
            f"{item.share:.1%}",
            str(item.weight),
            str(item.epoch),
            f"{item.ready:,}",
            f"{item.delayed:,}",
            f"{item.leased:,}",
            f"{item.used_memory_bytes / 2**20:,.1f} MiB",
        )
        for item in ring.shards
    ]
    columns = [
        "SHARD",
        "STATE",
        "ADDRESS",
        "SHARE",
        "WEIGHT",
        "EPOCH",
        "READY",
        "DELAYED",
        "LEASED",
        "MEMORY",
    ]
    return _with_numbers(table(columns, rows), columns[3:])


def _with_numbers(drawing: Table, names: Sequence[str]) -> Table:
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


def took(item: models.Task) -> str:
    """How long the attempt that counts took."""
    return span(item.end_time - item.attempt_start_time) if item.attempt_start_time and item.end_time else ""


def failure(item: models.Task) -> str:
    """The error of a task in one line; empty when there is none."""
    if item.error is None:
        return ""
    return f"{item.error.type}: {item.error.message}" if item.error.message else item.error.type


def short(text: str) -> str:
    """The first line of a text, cut to fit a column."""
    first = text.partition("\n")[0]
    return first if len(first) <= _SHORT else first[: _SHORT - 1] + "…"


def input_text(item: models.Task) -> str:
    """A task's input for people; empty when there is none."""
    if item.data is not None:
        return _bytes_text(item.data, item.content_type)
    # UNSET, the absence of a payload, is false and no JSON value.
    return "" if type(item.payload).__name__ == "Unset" else value_text(item.payload)


def result_text(item: models.Task) -> str:
    """A task's result for people; empty when there is none."""
    if item.result_data is not None:
        return _bytes_text(item.result_data, item.result_content_type)
    return "" if item.result is None else value_text(item.result)


def value_text(value: Any) -> str:
    """A JSON value: a string as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _bytes_text(data: bytes, content_type: str) -> str:
    return f"{len(data):,} bytes of {content_type or 'unknown type'}"
