"""Writes what callers give into requests; what the wire cannot carry is refused by the name of its field."""

from __future__ import annotations

import datetime as dt

from google.protobuf.field_mask_pb2 import FieldMask

from meshq.client import models
from meshq.client.conversion.basics import (
    enum_number,
    fill_count,
    fill_integer,
    fill_span,
    fill_spans,
    fill_time,
)
from meshq.client.values import NotJson, fill_value
from meshq.contract.errors import InvalidRequest
from meshq.contract.limits import MAX_ATTEMPTS, MAX_RATE_UNITS
from meshq.v1 import task_pb2, task_service_pb2

Selecting = (
    task_service_pb2.TaskFilter | task_service_pb2.ListTasksRequest | task_service_pb2.CountTasksRequest
)
"""The messages that select tasks, all by fields of the same names."""


def fill_task(message: task_pb2.Task, spec: models.TaskSpec, field: str = "task") -> None:
    """Write the specification of a task into an empty message.

    Args:
        message: The message to fill.
        spec: What to write.
        field: The path of the message in its request, for errors.

    Raises:
        InvalidRequest: The payload has no JSON form, or something is given that cannot be sent.
    """
    message.type = spec.type
    if spec.queue is not None:
        message.queue = spec.queue
    _fill_input(message, spec.payload, spec.data, field)
    if spec.content_type:
        message.content_type = spec.content_type
    if spec.headers:
        message.headers.update(spec.headers)
    if spec.labels:
        message.labels.update(spec.labels)
    if spec.max_attempts is not None:
        fill_count(message, "max_attempts", spec.max_attempts, MAX_ATTEMPTS, field)
    if spec.priority is not None:
        fill_integer(message, "priority", spec.priority, field)
    if spec.retry is not None:
        fill_retry(message.retry_policy, spec.retry, f"{field}.retry_policy")
    _fill_start(message, spec.start_time, spec.start_delay, field)
    _fill_keys(message, spec, field)
    _fill_uniqueness(message, spec, field)
    _fill_timeouts(message, spec, field)


def _fill_input(message: task_pb2.Task, payload: object, data: bytes | None, field: str) -> None:
    if data is not None:
        if payload is not models.UNSET:
            raise InvalidRequest.field(f"{field}.data", "must not be set together with payload")
        message.data = data
    elif payload is not models.UNSET:
        try:
            fill_value(message.payload, payload)
        except NotJson as error:
            raise InvalidRequest.field(f"{field}.payload{error.path}", error.rule) from None


def _fill_start(
    message: task_pb2.Task, time: dt.datetime | None, delay: models.Span | None, field: str
) -> None:
    if time is not None and delay is not None:
        raise InvalidRequest.field(f"{field}.start_delay", "must not be set together with start_time")
    if time is not None:
        fill_time(message.start_time, time, f"{field}.start_time")
    if delay is not None:
        fill_span(message.start_delay, delay, f"{field}.start_delay")


def _fill_keys(message: task_pb2.Task, spec: models.TaskSpec, field: str) -> None:
    if spec.fairness_key:
        message.fairness_key = spec.fairness_key
    if spec.fairness_weight is not None:
        message.fairness_weight = spec.fairness_weight
    if spec.limit_key:
        message.limit_key = spec.limit_key
    if spec.rate_units is not None:
        fill_count(message, "rate_units", spec.rate_units, MAX_RATE_UNITS, field)
    if spec.ordering_key:
        message.ordering_key = spec.ordering_key


def _fill_uniqueness(message: task_pb2.Task, spec: models.TaskSpec, field: str) -> None:
    if spec.unique_key:
        message.unique_key = spec.unique_key
    if spec.unique_scope is not None:
        message.unique_scope = enum_number(message, "unique_scope", spec.unique_scope)  # type: ignore[assignment]
    if spec.unique_policy is not None:
        message.unique_policy = enum_number(message, "unique_policy", spec.unique_policy)  # type: ignore[assignment]
    if spec.unique_window is not None:
        fill_span(message.unique_window, spec.unique_window, f"{field}.unique_window")


def _fill_timeouts(message: task_pb2.Task, spec: models.TaskSpec, field: str) -> None:
    if spec.schedule_to_start_timeout is not None:
        fill_span(
            message.schedule_to_start_timeout,
            spec.schedule_to_start_timeout,
            f"{field}.schedule_to_start_timeout",
        )
    if spec.start_to_close_timeout is not None:
        fill_span(
            message.start_to_close_timeout, spec.start_to_close_timeout, f"{field}.start_to_close_timeout"
        )
    if spec.schedule_to_close_timeout is not None:
        fill_span(
            message.schedule_to_close_timeout,
            spec.schedule_to_close_timeout,
            f"{field}.schedule_to_close_timeout",
        )
    if spec.heartbeat_timeout is not None:
        fill_span(message.heartbeat_timeout, spec.heartbeat_timeout, f"{field}.heartbeat_timeout")


def fill_retry(message: task_pb2.RetryPolicy, policy: models.RetryPolicy, field: str) -> None:
    """Write a retry policy; an empty one is one, too."""
    message.Clear()
    message.SetInParent()
    fill_spans(message, {"initial_delay": policy.initial_delay, "max_delay": policy.max_delay}, field)
    if policy.multiplier is not None:
        message.multiplier = policy.multiplier
    if policy.jitter is not None:
        message.jitter = policy.jitter
    message.non_retryable_errors.extend(policy.non_retryable_errors)


def fill_changes(
    request: task_service_pb2.UpdateTaskRequest, task_id: str, changes: models.TaskChanges
) -> None:
    """Write what is to change of a task, and the mask that names it.

    Raises:
        InvalidRequest: Something is given that cannot be sent.
    """
    message = request.task
    message.task_id = task_id
    _fill_input(message, changes.get("payload", models.UNSET), changes.get("data"), "task")
    _fill_start(message, changes.get("start_time"), changes.get("start_delay"), "task")
    message.labels.update(changes.get("labels", {}))
    message.content_type = changes.get("content_type", "")
    if "priority" in changes:
        fill_integer(message, "priority", changes["priority"], "task")
    given = [name for name, value in changes.items() if value is not models.UNSET]
    request.update_mask.CopyFrom(FieldMask(paths=sorted(given)))


def fill_filter(message: Selecting, wanted: models.TaskFilter, path: str = "") -> None:
    """Write which tasks are meant.

    Args:
        message: The message to fill.
        wanted: Which tasks.
        path: The path of the message in its request, with a dot at its end, for errors.

    Raises:
        InvalidRequest: A time has no time zone.
    """
    message.states.extend(state_number(state) for state in wanted.get("states", ()))
    message.type = wanted.get("type") or ""
    message.queue = wanted.get("queue") or ""
    message.labels.extend(f"{key}={value}" for key, value in wanted.get("labels", {}).items())
    start, end = wanted.get("min_create_time"), wanted.get("max_create_time")
    if start is not None:
        fill_time(message.min_create_time, start, f"{path}min_create_time")
    if end is not None:
        fill_time(message.max_create_time, end, f"{path}max_create_time")


def state_number(state: models.TaskState) -> task_pb2.TaskState.ValueType:
    """The number of a state on the wire."""
    return task_pb2.TaskState.Value(f"TASK_STATE_{state}")
