"""Reads tasks, attempts and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import FieldDescriptor

from meshq.client import models
from meshq.client.conversion.basics import enum_value, read_span, read_time, span_of, time_of
from meshq.client.values import from_value
from meshq.contract.status import from_status
from meshq.v1 import task_pb2, task_service_pb2

_STATES = {
    number: models.TaskState(name.removeprefix("TASK_STATE_")) for name, number in task_pb2.TaskState.items()
}
_SCOPES = {
    number: models.UniqueScope(name.removeprefix("UNIQUE_SCOPE_"))
    for name, number in task_pb2.UniqueScope.items()
}
_POLICIES = {
    number: models.UniquePolicy(name.removeprefix("UNIQUE_POLICY_"))
    for name, number in task_pb2.UniquePolicy.items()
}


def task(message: task_pb2.Task) -> models.Task:
    """A task. Only what is set is read, because most of a task is not, and lists hold many."""
    made = models.Task.blank()
    for field, value in message.ListFields():
        known = _KNOWN.get(field)
        if known is not None:
            put, read = known
            put(made, read(value) if read else value)
    return made


def retry(message: task_pb2.RetryPolicy) -> models.RetryPolicy:
    """A retry policy."""
    return models.RetryPolicy(
        initial_delay=span_of(message, "initial_delay"),
        multiplier=message.multiplier if message.HasField("multiplier") else None,
        max_delay=span_of(message, "max_delay"),
        jitter=message.jitter if message.HasField("jitter") else None,
        non_retryable_errors=tuple(message.non_retryable_errors),
    )


def found(message: task_service_pb2.BatchGetTasksResponse) -> models.Found:
    """The tasks of a look-up by id."""
    return models.Found(tuple(task(item) for item in message.tasks), tuple(message.missing_task_ids))


def awaited(message: task_service_pb2.AwaitTasksResponse) -> models.Awaited:
    """How tasks stand that were waited for."""
    return models.Awaited(
        tuple(task(item) for item in message.tasks), tuple(message.missing_task_ids), message.satisfied
    )


def created(index: int, message: task_service_pb2.CreateTaskResult) -> models.Created:
    """What became of one task of a frame."""
    if message.HasField("error"):
        return models.Created(index, None, from_status(message.error))
    return models.Created(index, message.task_id, existing=message.existing)


def attempts(message: task_service_pb2.ListAttemptsResponse) -> tuple[models.Attempt, ...]:
    """The attempts of a task."""
    return tuple(_attempt(item) for item in message.attempts)


def _attempt(message: task_pb2.Attempt) -> models.Attempt:
    return models.Attempt(
        attempt=message.attempt,
        outcome=enum_value(message, "outcome", models.AttemptOutcome),
        worker_id=message.worker_id,
        start_time=time_of(message, "start_time"),
        end_time=time_of(message, "end_time"),
        error=_task_error(message.error) if message.HasField("error") else None,
        retry_delay=span_of(message, "retry_delay"),
        non_retryable=message.non_retryable,
    )


def event(message: task_service_pb2.WatchTaskResponse) -> models.TaskEvent | None:
    """An event of a watch; None for what carries no news."""
    kind = message.WhichOneof("event")
    if kind == "task":
        return task(message.task)
    if kind == "progress":
        return progress(message.progress)
    if kind == "output":
        output = message.output
        return models.TaskOutput(output.attempt, output.offset, output.stream, output.chunk)
    return None


def progress(message: task_pb2.TaskProgress) -> models.TaskProgress:
    """A handler's word about itself."""
    return models.TaskProgress(
        message.attempt,
        message.fraction,
        message.message,
        from_value(message.detail),
        time_of(message, "report_time"),
    )


def _waiting(message: task_pb2.TaskWaiting) -> models.Waiting:
    return models.Waiting(
        reason=enum_value(message, "reason", models.WaitingReason),
        message=message.message,
        due_time=time_of(message, "due_time"),
        predecessor_task_id=message.predecessor_task_id,
        limit=message.limit,
        in_use=message.in_use,
        ahead=message.ahead,
        workers=message.workers,
    )


def _task_error(message: task_pb2.TaskError) -> models.TaskError:
    return models.TaskError(message.type, message.message, message.traceback)


_Read: TypeAlias = Callable[[Any], Any]

_PLAIN: Final = frozenset(
    {
        *("task_id", "type", "queue", "tenant", "data", "content_type", "max_attempts", "attempt"),
        *("worker_id", "result_data", "result_content_type", "cancel_reason", "priority", "fairness_key"),
        *("fairness_weight", "limit_key", "rate_units", "ordering_key", "unique_key", "redriven_from"),
        *("redriven_to", "spared_attempts"),
    }
)
"""Fields of a task that are what they are."""

_READERS: Final[dict[str, _Read]] = {
    "payload": from_value,
    "headers": dict,
    "labels": dict,
    "create_time": read_time,
    "start_time": read_time,
    "next_start_time": read_time,
    "attempt_start_time": read_time,
    "end_time": read_time,
    "cancel_time": read_time,
    "state": lambda number: _STATES.get(number, models.TaskState.UNSPECIFIED),
    "result": from_value,
    "error": _task_error,
    "retry_policy": retry,
    "unique_scope": lambda number: _SCOPES.get(number, models.UniqueScope.UNSPECIFIED),
    "unique_window": read_span,
    "unique_policy": lambda number: _POLICIES.get(number, models.UniquePolicy.UNSPECIFIED),
    "schedule_to_start_timeout": read_span,
    "start_to_close_timeout": read_span,
    "schedule_to_close_timeout": read_span,
    "heartbeat_timeout": read_span,
    "waiting": _waiting,
    "progress": progress,
}
"""How the other fields of a task are read."""

_ATTRIBUTES: Final = {"retry_policy": "retry"}
"""Fields that have another name here."""

_KNOWN: Final[
    dict[FieldDescriptor, tuple[Callable[[models.Task, Any], None], Callable[[Any], Any] | None]]
] = {
    field: (models.Task.setter(_ATTRIBUTES.get(field.name, field.name)), _READERS.get(field.name))
    for field in task_pb2.Task.DESCRIPTOR.fields
    if field.name in _PLAIN or field.name in _READERS
}
"""By the field: what sets the attribute, and how it is read if it is not what it is."""
