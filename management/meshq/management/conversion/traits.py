"""What makes a task more than a plain one: the fields of its specification from 11 on.

They are checked here, completed with the defaults of the queue and the type, and gathered: once as
`traits`, which is what the ledger shows without reading specifications, and once as columns.
"""

from __future__ import annotations

from time import time
from typing import Final, NamedTuple

from google.protobuf.duration_pb2 import Duration

from meshq.contract.errors import FieldViolation
from meshq.contract.limits import (
    MAX_ATTEMPT_SECONDS,
    MAX_FAIRNESS_WEIGHT,
    MAX_KEY_LENGTH,
    MAX_RATE_UNITS,
    MAX_START_SECONDS,
    MAX_UNIQUE_KEY_LENGTH,
    MIN_FAIRNESS_WEIGHT,
    MIN_UNIQUE_WINDOW_SECONDS,
)
from meshq.management.conversion.checks import (
    TIMEOUTS,
    check_duration,
    check_priority,
    check_retry_policy,
    check_timeouts,
)
from meshq.management.conversion.queue_settings import read_retry_policy, write_retry_policy
from meshq.management.conversion.values import milliseconds, timestamp
from meshq.management.model.queues import RetryPolicy, TaskDefaults
from meshq.management.model.task import Special, Unique
from meshq.management.model.validation import Violations, check_labels, check_range, check_text
from meshq.v1 import task_pb2

_FIRST: Final = 11
_FIRST_BEHIND: Final = 50
_STANDING: Final = range(20, 31)
_KEYS: Final = {
    "fairness_key": MAX_KEY_LENGTH,
    "limit_key": MAX_KEY_LENGTH,
    "ordering_key": MAX_KEY_LENGTH,
    "unique_key": MAX_UNIQUE_KEY_LENGTH,
}


def is_trait(number: int) -> bool:
    """Whether a field of `Task` is one of these."""
    return _FIRST <= number < _FIRST_BEHIND and number not in _STANDING


def check_traits(violations: Violations, path: str, task: task_pb2.Task) -> None:
    """The rules for what a caller wrote."""
    if task.HasField("priority"):
        check_priority(violations, f"{path}.priority", task.priority)
    check_labels(violations, f"{path}.labels", task.labels)
    check_start(violations, path, task)
    if task.HasField("retry_policy"):
        check_retry_policy(violations, f"{path}.retry_policy", task.retry_policy)
    for field, most in _KEYS.items():
        check_text(violations, f"{path}.{field}", getattr(task, field), most)
    if task.HasField("fairness_weight"):
        field = f"{path}.fairness_weight"
        check_range(violations, field, task.fairness_weight, (MIN_FAIRNESS_WEIGHT, MAX_FAIRNESS_WEIGHT))
    if task.rate_units:
        check_range(violations, f"{path}.rate_units", task.rate_units, (1, MAX_RATE_UNITS))
    check_timeouts(violations, path, task)
    _check_unique(violations, path, task)


def check_start(violations: Violations, path: str, task: task_pb2.Task) -> None:
    """When a task is to start."""
    given = task.WhichOneof("start")
    if given == "start_delay":
        check_duration(violations, f"{path}.start_delay", task.start_delay, 0, MAX_START_SECONDS)
    elif given == "start_time":
        value = task.start_time.seconds
        if value > time() + MAX_START_SECONDS:
            rule = f"must be at most 3660 days ahead, not {value - time():.0f} s ahead"
            violations.append(FieldViolation(f"{path}.start_time", rule))


def _check_unique(violations: Violations, path: str, task: task_pb2.Task) -> None:
    for field, enum in (("unique_scope", task_pb2.UniqueScope), ("unique_policy", task_pb2.UniquePolicy)):
        value = getattr(task, field)
        if value not in enum.values():
            violations.append(FieldViolation(f"{path}.{field}", f"must be one of its names, not {value}"))
        elif value and not task.unique_key:
            violations.append(FieldViolation(f"{path}.{field}", "must not be set without unique_key"))
    if task.HasField("unique_window"):
        field = f"{path}.unique_window"
        bounds = MIN_UNIQUE_WINDOW_SECONDS, MAX_ATTEMPT_SECONDS
        check_duration(violations, field, task.unique_window, *bounds)
        if task.unique_scope != task_pb2.UNIQUE_SCOPE_WINDOW:
            violations.append(FieldViolation(field, "must not be set without the scope WINDOW"))
    elif task.unique_scope == task_pb2.UNIQUE_SCOPE_WINDOW:
        violations.append(FieldViolation(f"{path}.unique_window", "is required with the scope WINDOW"))


class Resolved(NamedTuple):
    """A task with all that it does not say itself.

    Attributes:
        special: None for a plain task.
        added: What the specification gets beyond the caller's part, encoded.
        ready_ms: When the first attempt may start.
    """

    special: Special | None
    added: bytes
    ready_ms: int


def resolve(task: task_pb2.Task, defaults: TaskDefaults, max_attempts: int, create_ms: int) -> Resolved:
    """Complete a checked task.

    Args:
        task: What the caller wrote.
        defaults: Those of its queue and type.
        max_attempts: Resolved.
        create_ms: When it was accepted.
    """
    added = _missing(task, defaults)
    ready_ms = create_ms
    given = task.WhichOneof("start")
    if given == "start_time":
        ready_ms = max(create_ms, milliseconds(task.start_time))
    elif given == "start_delay":
        ready_ms = create_ms + _ms(task.start_delay)
        added.start_time.CopyFrom(timestamp(ready_ms))
    traits = traits_of(task)
    traits.MergeFrom(added)
    special = columns_of(traits, max_attempts, create_ms, ready_ms)
    return Resolved(special, added.SerializeToString(), ready_ms)


def _missing(task: task_pb2.Task, defaults: TaskDefaults) -> task_pb2.Task:
    """The defaults of those fields that the task leaves out."""
    added = task_pb2.Task()
    if defaults.priority is not None and not task.HasField("priority"):
        added.priority = defaults.priority
    if defaults.retry is not None and not task.HasField("retry_policy"):
        write_retry_policy(added.retry_policy, defaults.retry)
    timeouts = (
        defaults.schedule_to_start_ms,
        defaults.start_to_close_ms,
        defaults.schedule_to_close_ms,
        defaults.heartbeat_ms,
    )
    for field, value_ms in zip(TIMEOUTS, timeouts, strict=True):
        if value_ms and not task.HasField(field):  # type: ignore[arg-type]
            getattr(added, field).FromMilliseconds(value_ms)
    return added


def traits_of(task: task_pb2.Task) -> task_pb2.Task:
    """The traits of a task and nothing else of it."""
    traits = task_pb2.Task(labels=task.labels)
    for field, value in task.ListFields():
        if is_trait(field.number) and field.name != "labels":
            if field.message_type is None:
                setattr(traits, field.name, value)
            else:
                getattr(traits, field.name).CopyFrom(value)
    return traits


def columns_of(traits: task_pb2.Task, max_attempts: int, create_ms: int, ready_ms: int) -> Special | None:
    """What statements look for, of resolved traits; None where there are none."""
    encoded = traits.SerializeToString(deterministic=True)
    if not encoded:
        return None
    unique = _unique(traits, create_ms) if traits.unique_key else None
    until_started = unique is not None and unique.scope == task_pb2.UNIQUE_SCOPE_UNTIL_STARTED
    return Special(
        traits=encoded,
        priority=traits.priority,
        fairness_key=traits.fairness_key,
        announce_start=max_attempts == 1 or until_started,
        start_by_ms=_after(ready_ms, traits, "schedule_to_start_timeout"),
        close_by_ms=_after(ready_ms, traits, "schedule_to_close_timeout"),
        ordering_key=traits.ordering_key or None,
        unique=unique,
        labels=label_texts(traits),
    )


def label_texts(traits: task_pb2.Task) -> list[str] | None:
    """Labels as they are stored and looked for."""
    return sorted(f"{key}={value}" for key, value in traits.labels.items()) or None


def _unique(traits: task_pb2.Task, create_ms: int) -> Unique:
    scope = traits.unique_scope or task_pb2.UNIQUE_SCOPE_UNTIL_FINISHED
    policy = traits.unique_policy or task_pb2.UNIQUE_POLICY_RETURN_EXISTING
    until_ms = create_ms + _ms(traits.unique_window) if scope == task_pb2.UNIQUE_SCOPE_WINDOW else None
    return Unique(traits.unique_key, int(scope), int(policy), until_ms)


def _after(ready_ms: int, traits: task_pb2.Task, field: str) -> int | None:
    return ready_ms + _ms(getattr(traits, field)) if traits.HasField(field) else None  # type: ignore[arg-type]


def retry_policy(traits: bytes | None) -> RetryPolicy:
    """How the failed attempts of a task are made again."""
    return read_retry_policy(task_pb2.Task.FromString(traits or b"").retry_policy)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _ms(duration: Duration) -> int:
    return max(duration.seconds * 1_000 + duration.nanos // 1_000_000, 0)
