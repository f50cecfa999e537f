"""What a report of execution does to a task, and what execution is told to do next.

Pure functions over the row; `meshq.management.finish` brings them to the database.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, NamedTuple

from meshq.contract.limits import DEFAULT_POISON_LIMIT
from meshq.management.model.queues import RetryPolicy
from meshq.management.model.states import STARTABLE, TERMINAL, State
from meshq.management.model.task import DISPATCH_HORIZON_MS, TaskId, TaskRow

LOST: Final = "LOST"
POISON: Final = "POISON"
SCHEDULE_TO_START: Final = "SCHEDULE_TO_START_TIMEOUT"
SCHEDULE_TO_CLOSE: Final = "SCHEDULE_TO_CLOSE_TIMEOUT"
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
    retry_delay_ms: int | None = None
    non_retryable: bool = False


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
    """Begin the next attempt, if the row still stands at this one.

    Attributes:
        spared: 1 when the attempt that has ended costs nothing.
        unanswered: 1 when it ended without an answer; with 0 the count begins anew.
    """

    task_id: TaskId
    attempt: int
    next_attempt: int
    state: int
    ready_ms: int
    error_type: str
    error_message: str
    spared: int = 0
    unanswered: int = 0


class Wish(NamedTuple):
    """Have a task come to an end.

    Attributes:
        ending: The terminal state that it is to lead to: CANCELLED or EXPIRED.
        error_type: With EXPIRED: which time has passed.
        expected: The state in which the task must be; 0 for any.
    """

    task_id: TaskId
    reason: str
    ending: int = State.CANCELLED
    error_type: str = ""
    expected: int = 0


class Start(NamedTuple):
    """Note that the attempt runs."""

    task_id: TaskId
    attempt: int
    start_ms: int
    worker_id: str


class Rules(NamedTuple):
    """What decides about further attempts of a task.

    Attributes:
        retry: When failed attempts are made again.
        poison_limit: So many attempts in a row may end without an answer, or all that a task has.
        chance: A random number from 0 to 1, for the jitter.
    """

    retry: RetryPolicy = RetryPolicy()
    poison_limit: int = DEFAULT_POISON_LIMIT
    chance: float = 0.5


KEEP: Final = Directive(DirectiveKind.KEEP)
GONE: Final = Directive(DirectiveKind.GONE)
DONE: Final[dict[int, Directive]] = {state: Directive(DirectiveKind.DONE, state=state) for state in TERMINAL}

_END_OF: Final = {Outcome.SUCCEEDED: State.SUCCEEDED, Outcome.CANCELLED: State.CANCELLED}
"""Outcomes that end most tasks whatever their rows say. Others have to ask the row."""
_REPORT_AGE_MS: Final = 3_600_000


def certain_finish(report: Report, now_ms: int) -> Finish | None:
    """The end that the outcome means for any open row of that attempt; None if the row decides."""
    state = _END_OF.get(report.outcome)  # type: ignore[call-overload]
    return None if state is None else _finish(report, state, now_ms)


def decide(
    report: Report, row: TaskRow | None, now_ms: int, rules: Callable[[TaskRow], Rules]
) -> Finish | Retry | Directive:
    """What an end does to the task that the row shows: a change of the ledger, or only an answer.

    Args:
        report: An end of an attempt.
        row: The task as the ledger has it; None when it is unknown or was deleted.
        now_ms: The time.
        rules: Asked where another attempt is possible.
    """
    if row is None:
        return GONE
    if row.ended or row.attempt > report.attempt:
        return directive_for(row, now_ms)
    if row.attempt < report.attempt:
        return _catch_up(report, row, now_ms)
    state = _end_of(report, row)
    if state is not None:
        return _finish(report, state, now_ms)
    if report.outcome == Outcome.SNOOZED:
        return _again(report, row, State.SCHEDULED, now_ms + (report.retry_delay_ms or 0))._replace(spared=1)
    after = _after_loss if report.outcome == Outcome.LOST else _after_failure
    return after(report, row, now_ms, rules(row))


def _catch_up(report: Report, row: TaskRow, now_ms: int) -> Finish | Retry:
    """What an end of a later attempt does, which only a ledger hears of that has come back from a copy.

    The attempts up to this one were made, and each but this one asked for the next: the row goes on to it,
    and is looked at again. One that is to end ends where it stands.
    """
    if row.state == State.CANCELLING:
        return _finish(report._replace(attempt=row.attempt), _end_of(report, row) or State.CANCELLED, now_ms)
    return Retry(row.task_id, row.attempt, report.attempt, State.PENDING, row.ready_ms, "", "")


def _end_of(report: Report, row: TaskRow) -> State | None:
    """The end that the outcome means for the row, whatever attempts are left."""
    certain: State | None = _END_OF.get(report.outcome)  # type: ignore[call-overload]
    if certain is None and row.state == State.CANCELLING:
        return State(row.ending or State.CANCELLED)
    if report.outcome == Outcome.TIMED_OUT and report.error_type == SCHEDULE_TO_START:
        return State.EXPIRED
    return certain


def directive_for(row: TaskRow | None, now_ms: int) -> Directive:
    """What execution is to do with a task, by the row alone."""
    if row is None:
        return GONE
    if row.ended:
        return DONE[row.state]
    if row.ready_ms > now_ms + DISPATCH_HORIZON_MS:
        return Directive(DirectiveKind.LATER, row.attempt, row.ready_ms)
    return Directive(DirectiveKind.RUN, row.attempt, row.ready_ms)


def answer_to_start(report: Report, row: TaskRow | None, now_ms: int) -> Directive:
    """What execution is to do after the word of a start that changed nothing.

    A start that is said again, or of a task that is to be cancelled, is as good as the first one.
    """
    if row is not None and not row.ended and row.attempt == report.attempt:
        return KEEP
    return directive_for(row, now_ms)


def retry_delay_ms(policy: RetryPolicy, failures: int, chance: float) -> int:
    """How long to wait after an attempt that failed.

    Args:
        policy: How it grows.
        failures: Attempts that have failed so far, at least one.
        chance: From 0 to 1; 0.5 leaves the delay as it is, below the longest.
    """
    # A multiplier of 100 to the power of 99 is no float of use, and no reason to fail.
    growth = min(policy.multiplier ** min(failures - 1, 64), 1e12)
    # With room for chance: were the result cut instead, many tasks would come back at the same moment.
    delay_ms = min(policy.initial_ms * growth, policy.max_ms / (1 + policy.jitter))
    return round(delay_ms * (1 + policy.jitter * (2 * chance - 1)))


def _after_loss(report: Report, row: TaskRow, now_ms: int, rules: Rules) -> Finish | Retry:
    report = report._replace(
        error_type=report.error_type or LOST, error_message=report.error_message or _LOST_MESSAGE
    )
    if report.error_type in rules.retry.non_retryable:
        return _finish(report, State.FAILED, now_ms)
    unanswered = row.unanswered + 1
    # One attempt alone proves nothing.
    if row.max_attempts > 1 and unanswered >= min(rules.poison_limit, row.max_attempts):
        message = f"{unanswered} attempts in a row ended without an answer; the last: "
        poison = report._replace(error_type=POISON, error_message=message + report.error_message)
        return _finish(poison, State.FAILED, now_ms)
    if not _attempts_left(row):
        return _finish(report, State.FAILED, now_ms)
    return _again(report, row, State.PENDING, now_ms)._replace(unanswered=1)


def _after_failure(report: Report, row: TaskRow, now_ms: int, rules: Rules) -> Finish | Retry:
    final = report.non_retryable or report.error_type in rules.retry.non_retryable
    if final or not _attempts_left(row):
        return _finish(report, State.FAILED, now_ms)
    delay_ms = report.retry_delay_ms
    if delay_ms is None:
        delay_ms = retry_delay_ms(rules.retry, row.attempt - row.spared, rules.chance)
    return _again(report, row, State.RETRYING, now_ms + delay_ms)


def _attempts_left(row: TaskRow) -> bool:
    return row.attempt - row.spared < row.max_attempts


def _again(report: Report, row: TaskRow, state: State, ready_ms: int) -> Retry:
    return Retry(
        row.task_id, row.attempt, row.attempt + 1, state, ready_ms, report.error_type, report.error_message
    )


def _finish(report: Report, state: State, now_ms: int) -> Finish:
    task_id, attempt, _, start_ms, end_ms, worker_id, error_type, error_message, _, _ = report
    # Ends are filed by day: a report that was held up is filed when it arrives, within reason.
    end_ms = end_ms if now_ms - _REPORT_AGE_MS <= end_ms <= now_ms else now_ms
    return Finish(task_id, attempt, state, start_ms, end_ms, worker_id, error_type, error_message)


def is_start(report: Report) -> bool:
    """Whether the report says only that the attempt has started."""
    return report.outcome == Outcome.UNSPECIFIED


STARTABLE_NUMBERS: Final = sorted(int(state) for state in STARTABLE)
