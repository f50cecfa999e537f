"""What a report of execution does to a task, and what execution is told to do next.

Pure functions over the row; `meshq.management.finish` brings them to the database.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from meshq.management.model.states import STARTABLE, TERMINAL, State
from meshq.management.model.task import TaskId, TaskRow

LOST: Final = "LOST"
_LOST_MESSAGE: Final = "the worker vanished, or its lease ended, before it answered"


class Outcome(enum.IntEnum):
    """The numbers of `meshq.v1.AttemptOutcome`; UNSPECIFIED means that the attempt has only started."""

    UNSPECIFIED = 0
    SUCCEEDED = 1
    FAILED = 2
    CANCELLED = 3
    LOST = 4
    TIMED_OUT = 5
    SNOOZED = 6


class DirectiveKind(enum.IntEnum):
    """The numbers of `meshq.internal.v1.DirectiveKind`."""

    DONE = 1
    RUN = 2
    GONE = 3
    KEEP = 4
    LATER = 5


class Report(NamedTuple):
    """What happened to one attempt."""

    task_id: TaskId
    attempt: int
    outcome: int
    start_ms: int
    end_ms: int
    worker_id: str
    error_type: str
    error_message: str


class Directive(NamedTuple):
    """What execution is to do."""

    kind: DirectiveKind
    attempt: int = 0
    not_before_ms: int = 0
    state: int = 0


class Finish(NamedTuple):
    """Move the row to its terminal state, if it still stands at this attempt."""

    task_id: TaskId
    attempt: int
    state: int
    start_ms: int
    end_ms: int
    worker_id: str = ""
    error_type: str = ""
    error_message: str = ""


class Retry(NamedTuple):
    """Begin the next attempt, if the row still stands at this one."""

    task_id: TaskId
    attempt: int
    next_attempt: int
    state: int
    ready_ms: int
    error_type: str
    error_message: str


class Start(NamedTuple):
    """Note that the attempt runs."""

    task_id: TaskId
    attempt: int
    start_ms: int
    worker_id: str


KEEP: Final = Directive(DirectiveKind.KEEP)
GONE: Final = Directive(DirectiveKind.GONE)
DONE: Final = {state: Directive(DirectiveKind.DONE, state=state) for state in TERMINAL}

_END_OF: Final = {
    Outcome.SUCCEEDED: State.SUCCEEDED,
    Outcome.FAILED: State.FAILED,
    Outcome.CANCELLED: State.CANCELLED,
}
"""Outcomes that end the task whatever its row says. A lost attempt has to ask the row."""


def certain_finish(report: Report, now_ms: int) -> Finish | None:
    """The end that the outcome means for any open row of that attempt; None if the row decides."""
    task_id, attempt, outcome, start_ms, end_ms, worker_id, error_type, error_message = report
    state = _END_OF.get(outcome)  # type: ignore[call-overload]
    if state is None:
        return None
    # Ends are filed by day: a report that was held up is filed when it arrives, within reason.
    end_ms = end_ms if now_ms - 3_600_000 <= end_ms <= now_ms else now_ms
    return Finish(task_id, attempt, state, start_ms, end_ms, worker_id, error_type, error_message)


def decide(report: Report, row: TaskRow | None, now_ms: int) -> Finish | Retry | Directive:
    """What an end does to the task that the row shows: a change of the ledger, or only an answer.

    Args:
        report: An end of an attempt.
        row: The task as the ledger has it; None when it is unknown or was deleted.
        now_ms: The time.
    """
    if row is None:
        return GONE
    if row.ended or row.attempt != report.attempt:
        return directive_for(row)
    return certain_finish(report, now_ms) or _after_loss(report, row, now_ms)


def directive_for(row: TaskRow | None) -> Directive:
    """What execution is to do with a task, by the row alone."""
    if row is None:
        return GONE
    if row.ended:
        return DONE[State(row.state)]
    return Directive(DirectiveKind.RUN, row.attempt, row.ready_ms)


def _after_loss(report: Report, row: TaskRow, now_ms: int) -> Finish | Retry:
    error_type = report.error_type or LOST
    message = report.error_message or _LOST_MESSAGE
    if row.state == State.CANCELLING:
        end = State.CANCELLED
    elif row.attempt < row.max_attempts:
        return Retry(row.task_id, row.attempt, row.attempt + 1, State.PENDING, now_ms, error_type, message)
    else:
        end = State.FAILED
    return Finish(
        row.task_id, row.attempt, end, report.start_ms, now_ms, report.worker_id, error_type, message
    )


def is_start(report: Report) -> bool:
    """Whether the report says only that the attempt has started."""
    return report.outcome == Outcome.UNSPECIFIED


STARTABLE_NUMBERS: Final = sorted(int(state) for state in STARTABLE)
