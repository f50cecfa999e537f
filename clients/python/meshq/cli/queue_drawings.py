"""Queues, drawn for people."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from meshq.cli.drawings import STYLES, ago, sheet, span, table, with_numbers
from meshq.cli.output import printable
from meshq.cli.task_drawings import retry_text

if TYPE_CHECKING:  # imports grpc
    from meshq.client import models


def queues(items: Iterable[models.Queue]) -> Table:
    """Queues, one a row."""
    rows: list[list[str | Text]] = [
        [
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
            _held(item),
        ]
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
        "HELD",
    ]
    return with_numbers(table(columns, rows), columns[1:-1])


def _held(item: models.Queue) -> Text:
    words = ["PAUSED"] if item.pause else []
    words += ["DRAINING"] if item.drain else []
    return Text(" ".join(words), style=STYLES["PAUSED"])


def queue(item: models.Queue) -> Table:
    """Everything about one queue; settings at their defaults are left out."""
    counts = [(name, f"{count:,}") for name, count in dataclasses.asdict(item.counts).items()]
    note = "" if item.complete else "a shard does not answer, so that open tasks may be more"
    by_type = [(f"defaults of {kind}", _defaults(found)) for kind, found in item.type_defaults.items()]
    return sheet(
        [
            ("queue", item.queue),
            ("paused", Text(_hold(item.pause), style=STYLES["PAUSED"])),
            ("draining", Text(_hold(item.drain), style=STYLES["DRAINING"])),
            ("resumed", _hold(item.resumed, "")),
            ("created", ago(item.create_time)),
            *counts,
            ("oldest", span(item.oldest_pending_age)),
            ("in", f"{item.arrival_rate:,.1f}/s"),
            ("out", f"{item.completion_rate:,.1f}/s"),
            ("limits", _limits(item.limits)),
            ("most open", f"{item.max_open_tasks:,}" if item.max_open_tasks else ""),
            ("defaults", _defaults(item.defaults)),
            *by_type,
            ("retention", f"{item.retention_days} days" if item.retention_days else ""),
            ("poison limit", str(item.poison_limit) if item.poison_limit else ""),
            ("changed", ago(item.update_time)),
            ("note", note),
        ]
    )


def live(stream: Iterable[models.QueueNews], console: Console) -> None:
    """Show queues on a terminal as they change, until the stream ends."""
    known: dict[str, models.Queue] = {}
    with Live(console=console, auto_refresh=False, transient=False) as display:
        for news in stream:
            known |= {item.queue: item for item in news.queues}
            for name in news.deleted:
                known.pop(name, None)
            display.update(queues(known[name] for name in sorted(known)), refresh=True)


def lines(news: models.QueueNews) -> Iterator[str]:
    """What has changed, one line a queue."""
    for item in news.queues:
        counts = item.counts
        held = f", {_held(item).plain.lower()}" if item.pause or item.drain else ""
        yield printable(
            f"{item.queue}: {counts.pending:,} pending, {counts.running:,} running, "
            f"{counts.scheduled:,} scheduled, {counts.waiting:,} waiting, "
            f"{item.arrival_rate:,.1f}/s in, {item.completion_rate:,.1f}/s out{held}"
        )
    for name in news.deleted:
        yield printable(f"{name}: deleted")


def _hold(item: models.QueueHold | None, since: str = "since ") -> str:
    if item is None:
        return ""
    who = f"by {item.actor}" if item.actor else ""
    when = since + ago(item.time) if item.time else ""
    return ", ".join(part for part in (who, when, item.reason) if part) or "yes"


def _limits(item: models.QueueLimits) -> str:
    parts = []
    if item.max_running:
        parts.append(f"{item.max_running:,} at workers")
    if item.max_running_per_key:
        parts.append(f"{item.max_running_per_key:,} per key")
    if item.rate:
        parts.append(_rate(item.rate))
    if item.rate_per_key:
        parts.append(f"{_rate(item.rate_per_key)} per key")
    return ", ".join(parts)


def _rate(item: models.RateLimit) -> str:
    period = item.period if isinstance(item.period, dt.timedelta) else dt.timedelta(seconds=item.period)
    burst = f" (burst {item.burst:,})" if item.burst and item.burst != item.units else ""
    return f"{item.units:,} starts in {span(period)}{burst}"


def _defaults(item: models.TaskDefaults) -> str:
    parts = [f"priority {item.priority}"] if item.priority is not None else []
    parts += [f"{item.max_attempts} attempts"] if item.max_attempts else []
    parts += [f"retries {retry_text(item.retry)}"] if item.retry else []
    for name in ("schedule_to_start", "start_to_close", "schedule_to_close", "heartbeat"):
        length = getattr(item, f"{name}_timeout")
        if length is not None:
            parts.append(f"{name.replace('_', ' ')} {span(length)}")
    return ", ".join(parts)
