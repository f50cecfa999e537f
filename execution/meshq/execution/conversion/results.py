"""What workers report, as the ends of attempts."""

from __future__ import annotations

from typing import Final, NamedTuple

from meshq.contract.errors import InvalidRequest
from meshq.contract.limits import (
    MAX_CONTENT_TYPE_LENGTH,
    MAX_ERROR_MESSAGE_LENGTH,
    MAX_ERROR_TYPE_LENGTH,
    MAX_LEDGER_MESSAGE_LENGTH,
    MAX_PAYLOAD_BYTES,
    MAX_REASON_LENGTH,
    MAX_TRACEBACK_LENGTH,
)
from meshq.execution.conversion.tokens import decode_token
from meshq.execution.model import Ended, Lease, Outcome
from meshq.v1 import worker_service_pb2 as pb
from meshq.v1.task_pb2 import TaskError

RESULT_TOO_LARGE: Final = "RESULT_TOO_LARGE"
_CANCELLED: Final = "CANCELLED"


class Reported(NamedTuple):
    """One reported result: its end, or None for a task that is given back unrun."""

    token: bytes
    lease: Lease
    ended: Ended | None


def reported(result: pb.TaskResult, worker_id: str, now_ms: int, field: str, *, strict: bool) -> Reported:
    """The result that a worker reports.

    Args:
        result: The message.
        worker_id: Who reports.
        now_ms: The end of the attempt.
        field: The path of the result in the request, for errors.
        strict: Refuse a result that is too large. Otherwise it is recorded as a failure, because a session
            cannot refuse one result without losing the others.

    Raises:
        InvalidRequest: A field breaks its rule.
    """
    lease = decode_token(result.lease_token, f"{field}.lease_token")
    kind = result.WhichOneof("outcome")
    if kind == "success":
        ended = _success(result.success, lease, worker_id, f"{field}.success", strict=strict)
    elif kind == "failure":
        ended = _failure(result.failure, lease, worker_id, f"{field}.failure")
    elif kind == "cancelled":
        message = _text(result.cancelled.message, MAX_REASON_LENGTH, f"{field}.cancelled.message")
        ended = _failed(lease, worker_id, Outcome.CANCELLED, TaskError(type=_CANCELLED, message=message))
    elif kind == "release":
        _text(result.release.reason, MAX_REASON_LENGTH, f"{field}.release.reason")
        return Reported(result.lease_token, lease, None)
    else:
        raise InvalidRequest.field(f"{field}.outcome", "must be success, failure, cancelled or release")
    start_ms = _start_ms(result, lease, now_ms)
    return Reported(result.lease_token, lease, ended._replace(start_ms=start_ms, end_ms=now_ms))


def lost(lease: Lease, worker_id: str, now_ms: int) -> Ended:
    """The end of an attempt whose worker vanished."""
    error = TaskError(type="LOST", message="The worker vanished, or its lease ended, before it answered.")
    ended = _failed(lease, worker_id, Outcome.LOST, error)
    return ended._replace(start_ms=lease.leased_ms, end_ms=max(now_ms, lease.leased_ms))


def with_error_text(ended: Ended) -> Ended:
    """An end as it was read from the database, with what the ledger wants to know of its error."""
    if not ended.error:
        return ended
    error = TaskError.FromString(ended.error)
    return ended._replace(error_type=error.type, error_message=error.message[:MAX_LEDGER_MESSAGE_LENGTH])


def _success(success: pb.Success, lease: Lease, worker_id: str, field: str, *, strict: bool) -> Ended:
    size = len(success.data) if success.HasField("data") else success.result.ByteSize()
    if len(success.content_type) > MAX_CONTENT_TYPE_LENGTH:
        raise InvalidRequest.field(
            f"{field}.content_type", f"must be at most {MAX_CONTENT_TYPE_LENGTH} characters"
        )
    if size > MAX_PAYLOAD_BYTES:
        part = "data" if success.HasField("data") else "result"
        rule = f"must be at most {MAX_PAYLOAD_BYTES} bytes encoded, not {size}"
        if strict:
            raise InvalidRequest.field(f"{field}.{part}", rule)
        error = TaskError(type=RESULT_TOO_LARGE, message=f"The result {rule}.")
        return _failed(lease, worker_id, Outcome.FAILED, error)
    return _end(lease, worker_id, Outcome.SUCCEEDED)._replace(success=success.SerializeToString())


def _failure(failure: pb.Failure, lease: Lease, worker_id: str, field: str) -> Ended:
    error = failure.error
    if not error.type:
        raise InvalidRequest.field(f"{field}.error.type", "must not be empty")
    return _failed(lease, worker_id, Outcome.FAILED, error)


def _failed(lease: Lease, worker_id: str, outcome: Outcome, error: TaskError) -> Ended:
    kept = TaskError(
        type=_clean(error.type, MAX_ERROR_TYPE_LENGTH),
        message=_clean(error.message, MAX_ERROR_MESSAGE_LENGTH),
        traceback=_clean(error.traceback, MAX_TRACEBACK_LENGTH),
    )
    return _end(lease, worker_id, outcome)._replace(
        error=kept.SerializeToString(),
        error_type=kept.type,
        error_message=kept.message[:MAX_LEDGER_MESSAGE_LENGTH],
    )


def _end(lease: Lease, worker_id: str, outcome: Outcome) -> Ended:
    return Ended(
        lease.task_id, lease.attempt, lease.tenant, outcome, lease.epoch, lease.number, worker_id,
        0, 0, None, None, "", "", lease.shard,
    )  # fmt: skip


def _clean(text: str, most: int) -> str:
    """Cut, and without the one character that PostgreSQL's text cannot hold."""
    return text[:most].replace("\x00", "\ufffd")


def _text(text: str, most: int, field: str) -> str:
    if len(text) > most:
        raise InvalidRequest.field(field, f"must be at most {most} characters")
    return text


def _start_ms(result: pb.TaskResult, lease: Lease, now_ms: int) -> int:
    """The worker's clock may be wrong; a start outside of the lease says nothing."""
    if not result.HasField("start_time"):
        return lease.leased_ms
    start_ms = result.start_time.seconds * 1000 + result.start_time.nanos // 1_000_000
    return start_ms if lease.leased_ms <= start_ms <= now_ms else lease.leased_ms
