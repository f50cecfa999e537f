"""Between the messages of the contract and the rows of the ledger; the one place where both are known.

A task is encoded once, when it is accepted: what the caller wrote, followed by what the server adds.
Two encodings one after the other are the encoding of both together, so the caller's part is also what
tells whether a repeated request is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from meshq.contract.errors import FieldViolation, InvalidRequest
from meshq.contract.ids import ID_BYTES, new_task_id
from meshq.contract.limits import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_QUEUE,
    MAX_ATTEMPTS,
    MAX_LEDGER_MESSAGE_LENGTH,
    MAX_PAYLOAD_BYTES,
)
from meshq.internal.v1 import (
    attempt_service_pb2,
    commit_service_pb2,
    dispatch_service_pb2,
    ledger_service_pb2,
)
from meshq.management.model.reports import Directive, Report
from meshq.management.model.states import State
from meshq.management.model.task import (
    NewTask,
    QueueFigures,
    Sendable,
    TaskFilter,
    TaskId,
    TaskRow,
    shown_state,
)
from meshq.management.model.validation import (
    Violations,
    check_content_type,
    check_headers,
    check_max_attempts,
    check_name,
    check_payload_size,
    is_name,
    storable,
)
from meshq.v1 import queue_service_pb2, task_pb2, task_service_pb2

_WRITTEN_BY_SERVER: Final = (
    "task_id",
    "tenant",
    "create_time",
    "state",
    "attempt",
    "attempt_start_time",
    "end_time",
    "worker_id",
    "result",
    "result_data",
    "result_content_type",
    "error",
    "cancel_reason",
    "cancel_time",
)
_TASK_ID_KEY: Final = task_pb2.Task(task_id="x" * 36).SerializeToString()[:-36]
"""The encoded key and length of a task_id, which stand before its 36 characters."""
_STATES: Final = frozenset(map(int, State))
_MS: Final = 1_000
_NS_OF_MS: Final = 1_000_000


def accept_content(task: task_pb2.Task, path: str) -> bytes:
    """Check what a caller wrote, complete it with defaults, and encode it.

    Args:
        task: Is changed: defaults are filled in, and what the server writes is removed.
        path: The field's path in the request, for the violations.

    Returns:
        The encoded specification without the server's part.

    Raises:
        InvalidRequest: Fields break their rules.
    """
    if _claims_to_know(task):
        for field in _WRITTEN_BY_SERVER:
            task.ClearField(field)
    task.DiscardUnknownFields()
    if not task.queue:
        task.queue = DEFAULT_QUEUE
    if not task.max_attempts:
        task.max_attempts = DEFAULT_MAX_ATTEMPTS
    has_headers = bool(task.headers)
    # Only maps have no order of their own, and sorting them takes time.
    sort_maps = has_headers or task.WhichOneof("input") == "payload"
    content = task.SerializeToString(deterministic=sort_maps)
    if has_headers or not _plainly_good(task, len(content)):
        violations = _violations(task, path)
        if violations:
            raise InvalidRequest(violations)
    return content


def _plainly_good(task: task_pb2.Task, size: int) -> bool:
    """Whether no rule can be broken; looks only at what is cheap to look at, as most tasks are plain."""
    return (
        size <= MAX_PAYLOAD_BYTES
        and is_name(task.queue)
        and is_name(task.type)
        and 1 <= task.max_attempts <= MAX_ATTEMPTS
        and not task.content_type
    )


def _violations(task: task_pb2.Task, path: str) -> Violations:
    violations: Violations = []
    check_name(violations, f"{path}.queue", task.queue)
    check_name(violations, f"{path}.type", task.type)
    check_max_attempts(violations, f"{path}.max_attempts", task.max_attempts)
    _check_input(violations, path, task)
    check_headers(violations, f"{path}.headers", task.headers)
    return violations


def _claims_to_know(task: task_pb2.Task) -> bool:
    """Whether the caller set what the server writes. Rare, and cheaper to ask than to clear each field."""
    return bool(
        task.task_id
        or task.tenant
        or task.state
        or task.attempt
        or task.worker_id
        or task.result_content_type
        or task.cancel_reason
        or task.HasField("create_time")
        or task.HasField("attempt_start_time")
        or task.HasField("end_time")
        or task.HasField("cancel_time")
        or task.HasField("error")
        or task.WhichOneof("output")
    )


def _check_input(violations: Violations, path: str, task: task_pb2.Task) -> None:
    given = task.WhichOneof("input")
    if given == "data":
        check_payload_size(violations, f"{path}.data", len(task.data))
    elif given == "payload":
        check_payload_size(violations, f"{path}.payload", task.payload.ByteSize())
    if task.content_type:
        check_content_type(
            violations, f"{path}.content_type", task.content_type, has_payload=given == "payload"
        )


def new_task(task: task_pb2.Task, content: bytes, tenant: str) -> NewTask:
    """Give a checked task its id.

    Args:
        task: What `accept_content` has seen.
        content: What it returned.
        tenant: Whose task it is.
    """
    task_id = new_task_id().bytes
    create_ms = int.from_bytes(task_id[:6], "big")
    spec = content + _TASK_ID_KEY + text_id(task_id).encode() + _servers_part(tenant, create_ms)
    return NewTask(task_id, tenant, task.queue, task.type, State.PENDING, task.max_attempts, create_ms, spec)


@lru_cache(maxsize=64)
def _servers_part(tenant: str, create_ms: int) -> bytes:
    """What the server adds to a specification beside the id; the same for all tasks of a millisecond."""
    return task_pb2.Task(tenant=tenant, create_time=timestamp(create_ms)).SerializeToString()


def accepted_task(new: NewTask) -> task_pb2.Task:
    """A task that was just stored, as its caller sees it."""
    task = task_pb2.Task.FromString(new.spec)
    task.state = new.state  # type: ignore[assignment]
    task.attempt = 1
    return task


def public_task(row: TaskRow, now_ms: int) -> task_pb2.Task:
    """A task as callers see it: BASIC, or FULL but for the output where the row has its specification."""
    if row.spec is None:
        task = task_pb2.Task(
            task_id=text_id(row.task_id),
            tenant=row.tenant,
            queue=row.queue,
            type=row.type,
            max_attempts=row.max_attempts,
            create_time=timestamp(int.from_bytes(row.task_id[:6], "big")),
        )
    else:
        task = task_pb2.Task.FromString(row.spec)
    task.state = shown_state(row.state, row.ready_ms, now_ms)  # type: ignore[assignment]
    _add_standing(task, row)
    return task


def _add_standing(task: task_pb2.Task, row: TaskRow) -> None:
    task.attempt = row.attempt
    if row.start_ms:
        task.attempt_start_time.CopyFrom(timestamp(row.start_ms))
    if row.end_ms:
        task.end_time.CopyFrom(timestamp(row.end_ms))
    if row.worker_id:
        task.worker_id = row.worker_id
    if row.error_type or row.error_message:
        task.error.type = row.error_type or ""
        task.error.message = row.error_message or ""
    if row.cancel_reason:
        task.cancel_reason = row.cancel_reason
    if row.cancel_ms:
        task.cancel_time.CopyFrom(timestamp(row.cancel_ms))


def add_outcome(task: task_pb2.Task, outcome: attempt_service_pb2.RecordedOutcome | None) -> None:
    """Complete a FULL view with what execution has recorded; None when it has nothing any more."""
    if outcome is None:
        if task.state == task_pb2.TASK_STATE_SUCCEEDED:
            task.error.type = "RESULT_EXPIRED"
            task.error.message = "the result has left its retention"
        return
    success = outcome.success
    given = success.WhichOneof("output")
    if given == "result":
        task.result.CopyFrom(success.result)
    elif given == "data":
        task.result_data = success.data
        task.result_content_type = success.content_type
    if outcome.HasField("error"):
        task.error.CopyFrom(outcome.error)


def commit_message(row: TaskRow) -> commit_service_pb2.Commit:
    """A change of the ledger for the other management instances."""
    standing = task_pb2.Task(state=row.state)  # type: ignore[arg-type]
    _add_standing(standing, row)
    return commit_service_pb2.Commit(
        task_id=row.task_id,
        tenant=row.tenant,
        attempt=row.attempt,
        state=row.state,  # type: ignore[arg-type]
        task=standing.SerializeToString(),
        queue=row.queue,
        type=row.type,
    )


def committed_row(commit: commit_service_pb2.Commit) -> TaskRow:
    """A change of the ledger from another instance; max_attempts and the ready time are not in it."""
    task = task_pb2.Task.FromString(commit.task)
    return TaskRow(
        task_id=commit.task_id,
        tenant=commit.tenant,
        queue=commit.queue,
        type=commit.type,
        state=commit.state,
        attempt=commit.attempt,
        max_attempts=0,
        ready_ms=0,
        start_ms=milliseconds(task.attempt_start_time) if task.HasField("attempt_start_time") else None,
        end_ms=milliseconds(task.end_time) if task.HasField("end_time") else None,
        worker_id=task.worker_id or None,
        error_type=task.error.type or None,
        error_message=task.error.message or None,
        cancel_reason=task.cancel_reason or None,
        cancel_ms=milliseconds(task.cancel_time) if task.HasField("cancel_time") else None,
    )


def read_reports(messages: Sequence[ledger_service_pb2.AttemptReport]) -> list[Report]:
    """The reports of a call.

    Raises:
        InvalidRequest: An id has another length than 16.
    """
    reports = [
        Report(
            item.task_id,
            item.attempt,
            item.outcome,
            item.start_time_ms,
            item.end_time_ms,
            storable(item.worker_id),
            item.error_type and storable(item.error_type),
            item.error_message and storable(item.error_message[:MAX_LEDGER_MESSAGE_LENGTH]),
        )
        for item in messages
    ]
    for index, report in enumerate(reports):
        if len(report.task_id) != ID_BYTES:
            raise InvalidRequest.field(f"reports[{index}].task_id", "must have 16 bytes")
    return reports


def directive_messages(directives: Sequence[Directive]) -> ledger_service_pb2.ReportAttemptsResponse:
    """The answer to reports."""
    response = ledger_service_pb2.ReportAttemptsResponse()
    add = response.directives.add
    for kind, attempt, not_before_ms, state in directives:
        add(kind=kind, attempt=attempt, not_before_ms=not_before_ms, state=state)
    return response


def dispatch_frame(number: int, items: Sequence[Sendable]) -> dispatch_service_pb2.DispatchRequest:
    """A frame of attempts for execution."""
    frame = dispatch_service_pb2.DispatchRequest(frame=number)
    add = frame.items.add
    for task_id, attempt, tenant, queue, type_, ready_ms, priority, fairness, repeat, spec in items:
        item = add(
            task_id=task_id,
            attempt=attempt,
            tenant=tenant,
            queue=queue,
            type=type_,
            ready_time_ms=ready_ms,
            task=spec,
        )
        # Each field costs time here and bytes on the wire, so defaults are left out.
        if repeat:
            item.repeat = True
        if priority:
            item.priority = priority
        if fairness:
            item.fairness_key = fairness
    return frame


def read_filter(request: task_service_pb2.ListTasksRequest, tenant: str) -> TaskFilter:
    """What a list is to show.

    Raises:
        InvalidRequest: A filter breaks its rule.
    """
    violations: Violations = []
    for field, value in (("type", request.type), ("queue", request.queue)):
        if value:
            check_name(violations, field, value)
    for index, state in enumerate(request.states):
        if int(state) not in _STATES:
            violations.append(FieldViolation(f"states[{index}]", f"must be a state of a task, not {state}"))
    if violations:
        raise InvalidRequest(violations)
    return TaskFilter(
        tenant,
        tuple(sorted({int(state) for state in request.states})),
        request.type,
        request.queue,
        milliseconds(request.min_create_time) if request.HasField("min_create_time") else None,
        milliseconds(request.max_create_time) if request.HasField("max_create_time") else None,
    )


def public_queue(
    figures: QueueFigures, depth: dispatch_service_pb2.QueueDepth | None, now_ms: int, *, complete: bool
) -> queue_service_pb2.Queue:
    """A queue as callers see it.

    Args:
        figures: What the ledger counts.
        depth: What the shards hold; None when they could not be asked.
        now_ms: The time.
        complete: Whether all shards were asked.
    """
    ended = figures.succeeded + figures.failed + figures.cancelled + figures.expired
    queue = queue_service_pb2.Queue(
        queue=figures.name,
        tenant=figures.tenant,
        create_time=timestamp(figures.create_ms),
        counts=queue_service_pb2.QueueCounts(
            open=max(figures.created - ended, 0),
            succeeded=figures.succeeded,
            failed=figures.failed,
            cancelled=figures.cancelled,
            expired=figures.expired,
        ),
        arrival_rate=figures.arrival_rate,
        completion_rate=figures.completion_rate,
        complete=complete,
    )
    if depth is not None:
        queue.counts.scheduled = depth.delayed
        queue.counts.pending = depth.ready
        queue.counts.running = depth.leased
        if depth.oldest_ready_time_ms:
            age_ms = max(now_ms - depth.oldest_ready_time_ms, 0)
            queue.oldest_pending_age.FromMilliseconds(age_ms)
    return queue


def timestamp(time_ms: int) -> Timestamp:
    """Milliseconds since the epoch as a message."""
    return Timestamp(seconds=time_ms // _MS, nanos=time_ms % _MS * _NS_OF_MS)


def milliseconds(time: Timestamp) -> int:
    """A message as milliseconds since the epoch."""
    return time.seconds * _MS + time.nanos // _NS_OF_MS


def text_id(task_id: TaskId) -> str:
    """The canonical text form."""
    # As `str(uuid.UUID(bytes=task_id))`, without making one.
    digits = task_id.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
