"""Reads tasks, attempts and events."""

from __future__ import annotations

from typing import Any

from meshq.client import models
from meshq.client.conversion.basics import enum_value, span_of, time_of
from meshq.client.values import from_value
from meshq.contract.status import from_status
from meshq.v1 import task_pb2, task_service_pb2

_STATES = {
    number: models.TaskState(name.removeprefix("TASK_STATE_")) for name, number in task_pb2.TaskState.items()
}
_TIMEOUTS = (
    "schedule_to_start_timeout",
    "start_to_close_timeout",
    "schedule_to_close_timeout",
    "heartbeat_timeout",
)


def task(message: task_pb2.Task) -> models.Task:
    """A task."""
    return models.Task(
        task_id=message.task_id,
        type=message.type,
        queue=message.queue,
        tenant=message.tenant,
        payload=from_value(message.payload) if message.HasField("payload") else models.UNSET,
        data=message.data if message.HasField("data") else None,
        content_type=message.content_type,
        headers=dict(message.headers),
        max_attempts=message.max_attempts,
        create_time=time_of(message, "create_time"),
        state=_STATES.get(message.state, models.TaskState.UNSPECIFIED),
        attempt=message.attempt,
        attempt_start_time=time_of(message, "attempt_start_time"),
        end_time=time_of(message, "end_time"),
        worker_id=message.worker_id,
        result=from_value(message.result) if message.HasField("result") else None,
        result_data=message.result_data if message.HasField("result_data") else None,
        result_content_type=message.result_content_type,
        error=_task_error(message.error) if message.HasField("error") else None,
        cancel_reason=message.cancel_reason,
        cancel_time=time_of(message, "cancel_time"),
        spared_attempts=message.spared_attempts,
        next_start_time=time_of(message, "next_start_time"),
        waiting=_waiting(message.waiting) if message.HasField("waiting") else None,
        progress=progress(message.progress) if message.HasField("progress") else None,
        redriven_from=message.redriven_from,
        redriven_to=message.redriven_to,
        **_traits(message),
    )


def _traits(message: task_pb2.Task) -> dict[str, Any]:
    return {
        "priority": message.priority,
        "labels": dict(message.labels),
        "start_time": time_of(message, "start_time"),
        "retry": retry(message.retry_policy) if message.HasField("retry_policy") else None,
        "fairness_key": message.fairness_key,
        "fairness_weight": message.fairness_weight if message.HasField("fairness_weight") else 1.0,
        "limit_key": message.limit_key,
        "rate_units": message.rate_units or 1,
        "ordering_key": message.ordering_key,
        "unique_key": message.unique_key,
        "unique_scope": enum_value(message, "unique_scope", models.UniqueScope)
        if message.unique_scope
        else None,
        "unique_window": span_of(message, "unique_window"),
        "unique_policy": enum_value(message, "unique_policy", models.UniquePolicy)
        if message.unique_policy
        else None,
        **{name: span_of(message, name) for name in _TIMEOUTS},
    }


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
