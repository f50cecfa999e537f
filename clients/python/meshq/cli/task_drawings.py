"""Tasks and attempts, drawn for people."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from meshq.cli.drawings import ago, clock, pairs, sheet, short, short_clock, span, state, table
from meshq.cli.output import printable

if TYPE_CHECKING:  # imports grpc
    from meshq.client import models

WIDE = 120
"""Columns of a terminal from which on tables show everything."""
_BAR = 20


def tasks(items: Iterable[models.Task], *, width: int = WIDE) -> Table:
    """Tasks, one a row; with fewer columns where there is no room."""
    columns = ["TASK", "TYPE", "QUEUE", "STATE", "ATTEMPT", "CREATED", "TOOK", "NOTE"]
    shown = columns if width >= WIDE else ["TASK", "TYPE", "STATE", "CREATED", "TOOK"]
    rows = []
    for item in items:
        cells: dict[str, str | Text] = {
            "TASK": item.task_id,
            "TYPE": item.type,
            "QUEUE": item.queue,
            "STATE": state(item.state),
            "ATTEMPT": attempts_made(item).replace(" of ", "/"),
            "CREATED": short_clock(item.create_time),
            "TOOK": took(item.attempt_start_time, item.end_time),
            "NOTE": short(_waits_short(item.waiting) if item.waiting else failure(item.error)),
        }
        rows.append([cells[name] for name in shown])
    return table(shown, rows, whole=("TASK", "STATE", "CREATED"))


def task(item: models.Task, tried: tuple[models.Attempt, ...] | None = ()) -> RenderableType:
    """Everything about one task: what matters most comes first, what is at its default is left out.

    Args:
        item: The task.
        tried: Its attempts that have ended; None when nobody could say.
    """
    parts: list[RenderableType] = [
        sheet([*_standing(item), *_asked(item), *_outcome(item, tried)]),
    ]
    if tried and not (item.succeeded and len(tried) == 1):
        parts += ["", attempts(tried)]
    return Group(*parts)


def _standing(item: models.Task) -> list[tuple[str, str | Text]]:
    return [
        ("task", item.task_id),
        ("type", item.type),
        ("queue", item.queue),
        ("state", state(item.state)),
        ("waits", _waits_for(item.waiting) if item.waiting else ""),
        ("next try", "" if item.waiting and item.waiting.due_time else ago(item.next_start_time)),
        ("progress", _progress(item.progress) if item.progress else ""),
        ("attempt", _attempt_text(item)),
        ("worker", item.worker_id),
        ("error", failure(item.error)),
        ("created", ago(item.create_time)),
        ("started", ago(item.attempt_start_time)),
        ("ended", ago(item.end_time)),
        ("took", took(item.attempt_start_time, item.end_time)),
        ("cancelled", ago(item.cancel_time)),
        ("reason", item.cancel_reason),
        ("made good by", item.redriven_to),
        ("makes good for", item.redriven_from),
    ]


def _asked(item: models.Task) -> list[tuple[str, str | Text]]:
    timeouts = {
        "to start": item.schedule_to_start_timeout,
        "per attempt": item.start_to_close_timeout,
        "in all": item.schedule_to_close_timeout,
        "silent": item.heartbeat_timeout,
    }
    return [
        ("input", input_text(item)),
        ("headers", pairs(item.headers)),
        ("labels", pairs(item.labels)),
        ("priority", str(item.priority) if item.priority else ""),
        ("not before", clock(item.start_time)),
        ("retries", retry_text(item.retry) if item.retry else ""),
        ("timeouts", ", ".join(f"{name} {span(length)}" for name, length in timeouts.items() if length)),
        ("ordering key", item.ordering_key),
        ("limit key", item.limit_key),
        ("rate units", str(item.rate_units) if item.rate_units != 1 else ""),
        ("fairness", _fairness(item)),
        ("unique key", _uniqueness(item)),
    ]


def _outcome(item: models.Task, tried: tuple[models.Attempt, ...] | None) -> list[tuple[str, str | Text]]:
    return [
        ("result", result_text(item)),
        ("traceback", item.error.traceback.rstrip() if item.error else ""),
        ("note", "the attempts cannot be shown now" if tried is None else ""),
    ]


def attempts(items: Iterable[models.Attempt]) -> Table:
    """Attempts, one a row, each with its error whole; the trace of the last one is that of the task."""
    rows = [
        (
            str(item.attempt),
            state(item.outcome),
            item.worker_id,
            short_clock(item.start_time),
            took(item.start_time, item.end_time),
            _attempt_note(item),
        )
        for item in items
    ]
    columns = ["ATTEMPT", "OUTCOME", "WORKER", "STARTED", "TOOK", "ERROR"]
    return table(columns, rows, whole=("ATTEMPT", "OUTCOME", "STARTED"))


def attempts_whole(items: Iterable[models.Attempt]) -> RenderableType:
    """Attempts with everything that is known of each."""
    parts: list[RenderableType] = []
    for item in items:
        parts += [""] if parts else []
        parts.append(
            sheet(
                [
                    ("attempt", str(item.attempt)),
                    ("outcome", state(item.outcome)),
                    ("worker", item.worker_id),
                    ("started", ago(item.start_time)),
                    ("ended", ago(item.end_time)),
                    ("took", took(item.start_time, item.end_time)),
                    ("error", _attempt_note(item)),
                    ("traceback", item.error.traceback.rstrip() if item.error else ""),
                ]
            )
        )
    return Group(*parts)


def change(item: models.Task) -> str:
    """A change of a task as one line."""
    note = f" {short(failure(item.error))}" if item.error else ""
    attempt = f"attempt {attempts_made(item)}"
    now = dt.datetime.now().astimezone()
    line = f"{now:%H:%M:%S} {item.state:<10} {item.task_id} {item.type} in {item.queue}, {attempt}{note}"
    return printable(line)


def _waits_for(item: models.Waiting) -> str:
    """What a task waits for in a sentence, with the figures behind it that the sentence leaves out."""
    said = item.message.rstrip(".") or _WAITS.get(item.reason, str(item.reason))
    told = set(re.findall(r"\d+", said))
    figures = []
    if item.limit and str(item.limit) not in told:
        busy = f"{item.in_use:,} of {item.limit:,} at workers" if item.in_use else f"limit {item.limit:,}"
        figures.append(busy)
    if item.reason == "IN_LINE":
        figures += [f"{item.ahead:,} before it"] if str(item.ahead) not in told else []
        figures.append("1 worker" if item.workers == 1 else f"{item.workers:,} workers")
    if item.predecessor_task_id and item.predecessor_task_id not in said:
        figures.append(item.predecessor_task_id)
    if item.due_time:
        figures.append(f"due {ago(item.due_time)}")
    return f"{said} [{item.reason}]" + (f": {'; '.join(figures)}" if figures else "")


def _waits_short(item: models.Waiting) -> str:
    """The same for a column."""
    parts = [str(item.reason)]
    parts += [f"{item.in_use:,} of {item.limit:,}"] if item.in_use else []
    parts += [f"due {short_clock(item.due_time)}"] if item.due_time else []
    return ", ".join(parts)


_WAITS = {
    "IN_LINE": "others are before it",
    "NOT_DUE": "its time has not come",
    "PREDECESSOR": "an earlier task with its ordering key has not ended",
    "QUEUE_PAUSED": "its queue is paused",
    "NO_WORKER": "no worker serves its queue and handles its type",
    "QUEUE_LIMIT": "its queue has as many tasks at workers as it may",
    "KEY_BUSY": "its limit key has as many tasks at workers as it may",
    "RATE_LIMIT": "the rate limit of its queue leaves nothing for it",
    "SHARD_RECOVERING": "its shard is being compared with the ledger",
    "DISPATCHING": "it is on its way to its shard",
    "UNSPECIFIED": "nobody could be asked",
}


def _progress(item: models.TaskProgress) -> str:
    done = round(min(max(item.fraction, 0.0), 1.0) * _BAR)
    bar = "█" * done + "░" * (_BAR - done)
    when = f" ({span(dt.datetime.now(dt.UTC) - item.report_time)} ago)" if item.report_time else ""
    return f"{bar} {item.fraction:.0%} {item.message}".rstrip() + when


def attempts_made(item: models.Task) -> str:
    """Which of the attempts that count is made, of how many; those that cost nothing are left out."""
    return f"{item.attempt - item.spared_attempts} of {item.max_attempts}"


def _attempt_text(item: models.Task) -> str:
    spared = item.spared_attempts
    note = f" (number {item.attempt}; {spared} before it cost nothing)" if spared else ""
    return attempts_made(item) + note


def _attempt_note(item: models.Attempt) -> str:
    notes = [failure(item.error)]
    notes += [f"again after {span(item.retry_delay)}"] if item.retry_delay is not None else []
    notes += ["the worker said: never again"] if item.non_retryable else []
    return "; ".join(note for note in notes if note)


def retry_text(item: models.RetryPolicy) -> str:
    """A retry policy in one line; what it does not say is the server's default."""
    parts = []
    if item.initial_delay is not None:
        parts.append(f"after {_span(item.initial_delay)}")
    if item.multiplier is not None:
        parts.append(f"times {item.multiplier:g}")
    if item.max_delay is not None:
        parts.append(f"at most {_span(item.max_delay)}")
    if item.jitter is not None:
        parts.append(f"jitter {item.jitter:g}")
    if item.non_retryable_errors:
        parts.append(f"never after {', '.join(item.non_retryable_errors)}")
    return ", ".join(parts)


def _span(length: dt.timedelta | float) -> str:
    return span(length if isinstance(length, dt.timedelta) else dt.timedelta(seconds=length))


def _fairness(item: models.Task) -> str:
    weight = f"weight {item.fairness_weight:g}" if item.fairness_weight != 1 else ""
    return ", ".join(part for part in (item.fairness_key, weight) if part)


def _uniqueness(item: models.Task) -> str:
    if not item.unique_key:
        return ""
    scope = item.unique_scope.lower().replace("_", " ") if item.unique_scope else "until finished"
    return f"{item.unique_key} ({f'for {span(item.unique_window)}' if item.unique_window else scope})"


def took(start: dt.datetime | None, end: dt.datetime | None) -> str:
    """How long an attempt took."""
    return span(end - start) if start and end else ""


def failure(error: models.TaskError | None) -> str:
    """An error in one line; empty when there is none."""
    if error is None:
        return ""
    return f"{error.type}: {error.message}" if error.message else error.type


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
