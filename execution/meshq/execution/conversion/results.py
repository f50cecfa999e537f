"""What workers report, as the ends of attempts."""

from __future__ import annotations

from typing import Final, NamedTuple

from meshq.contract.errors import InvalidRequest
from meshq.contract.limits import (
    MAX_ATTEMPT_SECONDS,
    MAX_CONTENT_TYPE_LENGTH,
    MAX_ERROR_MESSAGE_LENGTH,
    MAX_ERROR_TYPE_LENGTH,
    MAX_LEDGER_MESSAGE_LENGTH,
    MAX_PAYLOAD_BYTES,
    MAX_REASON_LENGTH,
    MAX_SNOOZE_SECONDS,
    MAX_TRACEBACK_LENGTH,
    MIN_FINISH_LATER_SECONDS,
)
from meshq.execution.conversion.times import milliseconds_of
from meshq.execution.conversion.tokens import carried, decode_token
from meshq.execution.model import Deferral, Ended, Lease, Outcome
from meshq.v1 import worker_service_pb2 as pb
from meshq.v1.task_pb2 import TaskError

RESULT_TOO_LARGE: Final = "RESULT_TOO_LARGE"
_CANCELLED: Final = "CANCELLED"
_SNOOZED: Final = "SNOOZED"

NOBODYS_LEASE: Final = 0

_CLOSED: Final = {
    "lost": (Outcome.LOST, "LOST", "The worker vanished, or its lease ended, before it answered."),
    "start_by": (
        Outcome.TIMED_OUT,
        "SCHEDULE_TO_START_TIMEOUT",
        "No worker took the task within its schedule_to_start_timeout.",
    ),
    "start_to_close": (
        Outcome.TIMED_OUT,
        "START_TO_CLOSE_TIMEOUT",
        "The attempt took longer than its start_to_close_timeout.",
    ),
    "heartbeat": (
        Outcome.TIMED_OUT,
        "HEARTBEAT_TIMEOUT",
        "The handler was silent for longer than its heartbeat_timeout.",
    ),
    "finish_later": (
        Outcome.TIMED_OUT,
        "FINISH_LATER_TIMEOUT",
        "Nobody completed the task within the time that its handler gave.",
    ),
    "grace": (
        Outcome.CANCELLED,
        "CANCEL_GRACE_ENDED",
        "The task was cancelled, and its worker did not stop it within the grace.",
    ),
    "withdrawn": (
        Outcome.CANCELLED,
        _CANCELLED,
        "The task was cancelled when no worker was known to have it, though one may have had it.",
    ),
}
"""Outcome, error type and message, by the kind of what was over."""


class Reported(NamedTuple):
    """One reported result.

    Attributes:
        ended: Its end; None for a task that is given back unrun, or that somebody else will complete.
        deferral: What is left to somebody else.
    """

    token: bytes
    lease: Lease
    ended: Ended | None
    deferral: Deferral | None = None


class _End(NamedTuple):
    """How an attempt ended, without which one it was."""

    outcome: Outcome
    success: bytes | None
    error: bytes | None
    error_type: str = ""
    error_message: str = ""
    retry_ms: int | None = None
    non_retryable: bool = False


def reported(
    result: pb.TaskResult,
    worker_id: str,
    now_ms: int,
    field: str,
    *,
    strict: bool,
    lease: Lease | None = None,
) -> Reported:
    """The result that a worker reports.

    Args:
        result: The message.
        worker_id: Who reports.
        now_ms: The end of the attempt.
        field: The path of the result in the request, for errors.
        strict: Refuse a result that is too large. Otherwise it is recorded as a failure, because a session
            cannot refuse one result without losing the others.
        lease: What the token names, where that is known already.

    Raises:
        InvalidRequest: A field breaks its rule.
    """
    lease = lease or decode_token(result.lease_token, f"{field}.lease_token")
    kind = result.WhichOneof("outcome")
    if kind == "success":
        end = _success(result.success, field, strict=strict)
    elif kind == "failure":
        end = _failure(result.failure, field)
    elif kind == "cancelled":
        message = _text(result.cancelled.message, f"{field}.cancelled.message")
        end = _error(Outcome.CANCELLED, TaskError(type=_CANCELLED, message=message))
    elif kind == "snooze":
        end = _snooze(result.snooze, f"{field}.snooze")
    elif kind == "finish_later":
        timeout_ms = _timeout(result.finish_later, field)
        deferral = Deferral(lease, worker_id, *carried(result.lease_token), timeout_ms)
        return Reported(result.lease_token, lease, None, deferral)
    elif kind == "release":
        _text(result.release.reason, f"{field}.release.reason")
        return Reported(result.lease_token, lease, None)
    else:
        raise InvalidRequest.field(
            f"{field}.outcome", "must be success, failure, cancelled, release, snooze or finish_later"
        )
    ended = _ended(lease, worker_id, _start_ms(result, lease, now_ms), now_ms, end)
    return Reported(result.lease_token, lease, ended)


def closed(kind: str, lease: Lease, worker_id: str, now_ms: int) -> Ended:
    """The end of an attempt that a shard has closed, by the kind of what was over."""
    outcome, error_type, message = _CLOSED[kind]
    end = _error(outcome, TaskError(type=error_type, message=message))
    if outcome is Outcome.CANCELLED:
        # No lease's own word: what its worker says after this comes second.
        lease = lease._replace(number=NOBODYS_LEASE)
    # Where no worker ever had it, there is no start but the end.
    return _ended(lease, worker_id, lease.leased_ms or now_ms, now_ms, end)


def lost(lease: Lease, worker_id: str, now_ms: int) -> Ended:
    """The end of an attempt whose worker vanished."""
    return closed("lost", lease, worker_id, now_ms)


def withdrawn(lease: Lease, worker_id: str, now_ms: int) -> Ended:
    """The end of an attempt that was cancelled when nobody had it as far as is known."""
    return closed("withdrawn", lease, worker_id, now_ms)


def with_error_text(ended: Ended) -> Ended:
    """An end as it was read from the database, with what the ledger wants to know of its error."""
    if not ended.error:
        return ended
    error = TaskError.FromString(ended.error)
    return ended._replace(error_type=error.type, error_message=error.message[:MAX_LEDGER_MESSAGE_LENGTH])


def _success(success: pb.Success, field: str, *, strict: bool) -> _End:
    size = len(success.data) if success.HasField("data") else success.result.ByteSize()
    if len(success.content_type) > MAX_CONTENT_TYPE_LENGTH:
        raise InvalidRequest.field(
            f"{field}.success.content_type",
            f"must be at most {MAX_CONTENT_TYPE_LENGTH} characters, not {len(success.content_type)}",
        )
    if size > MAX_PAYLOAD_BYTES:
        part = "data" if success.HasField("data") else "result"
        rule = f"must be at most {MAX_PAYLOAD_BYTES} bytes encoded, not {size}"
        if strict:
            raise InvalidRequest.field(f"{field}.success.{part}", rule)
        return _error(Outcome.FAILED, TaskError(type=RESULT_TOO_LARGE, message=f"The result {rule}."))
    return _End(Outcome.SUCCEEDED, success.SerializeToString(), None)


def _failure(failure: pb.Failure, field: str) -> _End:
    if not failure.error.type:
        raise InvalidRequest.field(f"{field}.failure.error.type", "must not be empty")
    end = _error(Outcome.FAILED, failure.error)
    if failure.HasField("retry_delay"):
        path = f"{field}.failure.retry_delay"
        end = end._replace(retry_ms=milliseconds_of(failure.retry_delay, 0, MAX_ATTEMPT_SECONDS, path))
    return end._replace(non_retryable=True) if failure.non_retryable else end


def _snooze(snooze: pb.Snooze, field: str) -> _End:
    delay_ms = milliseconds_of(snooze.delay, 0, MAX_SNOOZE_SECONDS, f"{field}.delay")
    reason = _text(snooze.reason, f"{field}.reason")
    if not reason:
        return _End(Outcome.SNOOZED, None, None, retry_ms=delay_ms)
    return _error(Outcome.SNOOZED, TaskError(type=_SNOOZED, message=reason))._replace(retry_ms=delay_ms)


def _timeout(finish_later: pb.FinishLater, field: str) -> int:
    path = f"{field}.finish_later.timeout"
    return milliseconds_of(finish_later.timeout, MIN_FINISH_LATER_SECONDS, MAX_ATTEMPT_SECONDS, path)


def _error(outcome: Outcome, error: TaskError) -> _End:
    kept = TaskError(
        type=_clean(error.type, MAX_ERROR_TYPE_LENGTH),
        message=_clean(error.message, MAX_ERROR_MESSAGE_LENGTH),
        traceback=_clean(error.traceback, MAX_TRACEBACK_LENGTH),
    )
    text = kept.message[:MAX_LEDGER_MESSAGE_LENGTH]
    return _End(outcome, None, kept.SerializeToString(), kept.type, text)


def _ended(lease: Lease, worker_id: str, start_ms: int, now_ms: int, end: _End) -> Ended:
    """The clocks of shards and instances differ a little; an end is never before its start."""
    return Ended(
        lease.task_id, lease.attempt, lease.tenant, end.outcome, lease.epoch, lease.number, worker_id,
        start_ms, max(start_ms, now_ms), end.success, end.error, end.error_type, end.error_message,
        lease.shard, end.retry_ms, end.non_retryable,
    )  # fmt: skip


def _clean(text: str, most: int) -> str:
    """Cut, and without the one character that PostgreSQL's text cannot hold."""
    return text[:most].replace("\x00", "\ufffd")


def _text(text: str, field: str) -> str:
    if len(text) > MAX_REASON_LENGTH:
        raise InvalidRequest.field(field, f"must be at most {MAX_REASON_LENGTH} characters, not {len(text)}")
    return text


def _start_ms(result: pb.TaskResult, lease: Lease, now_ms: int) -> int:
    """The worker's clock may be wrong; a start outside of the lease says nothing."""
    if not result.HasField("start_time"):
        return lease.leased_ms
    start_ms = result.start_time.seconds * 1000 + result.start_time.nanos // 1_000_000
    return start_ms if lease.leased_ms <= start_ms <= now_ms else lease.leased_ms
