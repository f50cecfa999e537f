"""The rules for what tasks and the defaults of queues have in common: priority, policy, timeouts."""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from meshq.contract.errors import FieldViolation
from meshq.contract.limits import (
    MAX_ATTEMPT_SECONDS,
    MAX_ERROR_TYPE_LENGTH,
    MAX_HEARTBEAT_TIMEOUT_SECONDS,
    MAX_NON_RETRYABLE_ERRORS,
    MAX_PRIORITY,
    MAX_RETRY_INITIAL_SECONDS,
    MAX_RETRY_MULTIPLIER,
    MAX_START_SECONDS,
    MIN_HEARTBEAT_TIMEOUT_SECONDS,
    MIN_TIMEOUT_SECONDS,
)
from meshq.contract.times import broken_rule
from meshq.management.model.validation import Violations, check_range, check_text
from meshq.v1 import queue_service_pb2, task_pb2

TIMEOUTS: Final = {
    "schedule_to_start_timeout": (MIN_TIMEOUT_SECONDS, MAX_START_SECONDS),
    "start_to_close_timeout": (MIN_TIMEOUT_SECONDS, MAX_ATTEMPT_SECONDS),
    "schedule_to_close_timeout": (MIN_TIMEOUT_SECONDS, MAX_START_SECONDS),
    "heartbeat_timeout": (MIN_HEARTBEAT_TIMEOUT_SECONDS, MAX_HEARTBEAT_TIMEOUT_SECONDS),
}
"""The fields of a task and of the defaults of a queue, with the shortest and longest time in seconds."""


def check_priority(violations: Violations, field: str, value: int) -> None:
    """The priority."""
    check_range(violations, field, value, (0, MAX_PRIORITY))


def check_duration(violations: Violations, field: str, value: Duration, least: float, most: float) -> None:
    """A time in seconds."""
    if check_time(violations, field, value):
        check_range(violations, field, value.seconds + value.nanos / 1e9, (least, most), " s")


def check_time(violations: Violations, field: str, value: Timestamp | Duration) -> bool:
    """Any time; returns whether it is one."""
    rule = broken_rule(value)
    if rule:
        violations.append(FieldViolation(field, rule))
    return not rule


def check_timeouts(
    violations: Violations, path: str, message: task_pb2.Task | queue_service_pb2.TaskDefaults
) -> None:
    """The four timeouts, as far as they are set."""
    for name, bounds in TIMEOUTS.items():
        if message.HasField(name):  # type: ignore[arg-type]
            check_duration(violations, f"{path}.{name}", getattr(message, name), *bounds)


def check_retry_policy(violations: Violations, path: str, policy: task_pb2.RetryPolicy) -> None:
    """When and whether a failed attempt is made again."""
    check_duration(violations, f"{path}.initial_delay", policy.initial_delay, 0.0, MAX_RETRY_INITIAL_SECONDS)
    check_duration(violations, f"{path}.max_delay", policy.max_delay, 0.0, MAX_ATTEMPT_SECONDS)
    if policy.HasField("multiplier"):
        check_range(violations, f"{path}.multiplier", policy.multiplier, (1, MAX_RETRY_MULTIPLIER))
    if policy.HasField("jitter"):
        check_range(violations, f"{path}.jitter", policy.jitter, (0, 1))
    errors = policy.non_retryable_errors
    if len(errors) > MAX_NON_RETRYABLE_ERRORS:
        rule = f"must have at most {MAX_NON_RETRYABLE_ERRORS} entries, not {len(errors)}"
        violations.append(FieldViolation(f"{path}.non_retryable_errors", rule))
        return
    for index, name in enumerate(errors):
        check_text(violations, f"{path}.non_retryable_errors[{index}]", name, MAX_ERROR_TYPE_LENGTH)
