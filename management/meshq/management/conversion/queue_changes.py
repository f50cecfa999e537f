"""What callers want queues to be set to: checked, and merged into what is set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.message import Message

from meshq.contract.errors import FieldViolation, InvalidRequest, shown
from meshq.contract.limits import (
    MAX_ATTEMPTS,
    MAX_POISON_LIMIT,
    MAX_QUEUE_OPEN_TASKS,
    MAX_QUEUE_SETTINGS_BYTES,
    MAX_RATE,
    MAX_RATE_PERIOD_SECONDS,
    MAX_RUNNING,
    MAX_TYPE_DEFAULTS,
    MIN_RATE_PERIOD_SECONDS,
    RETENTION_DAYS,
)
from meshq.management.conversion.checks import (
    check_duration,
    check_priority,
    check_retry_policy,
    check_timeouts,
)
from meshq.management.conversion.queue_settings import add_settings, read_settings
from meshq.management.model.queues import QueueSettings
from meshq.management.model.validation import Violations, check_name, check_range
from meshq.v1 import queue_service_pb2

_WHOLE: Final = ("type_defaults", "retention_days", "poison_limit", "max_open_tasks")
_NESTED: Final = ("defaults", "limits")
_RULE: Final = "must name settings of a queue, such as limits or limits.max_running"


def checked_queue(queue: queue_service_pb2.Queue) -> QueueSettings:
    """The settings of a queue that is declared.

    Raises:
        InvalidRequest: Fields break their rules.
    """
    violations: Violations = []
    check_name(violations, "queue.queue", queue.queue)
    _check_settings(violations, queue)
    if violations:
        raise InvalidRequest(violations)
    return _without_holds(read_settings(queue))


def settings_paths(request: queue_service_pb2.UpdateQueueRequest) -> list[str]:
    """The settings that a call changes: those of its mask, else those that it has set.

    Raises:
        InvalidRequest: The mask names something else, or the name breaks its rule.
    """
    violations: Violations = []
    check_name(violations, "queue.queue", request.queue.queue)
    paths = list(request.update_mask.paths) or _set_paths(request.queue)
    violations += [
        FieldViolation("update_mask", f"{_RULE}, not {shown(path)}")
        for path in paths
        if not _is_setting(path)
    ]
    if violations:
        raise InvalidRequest(violations)
    return paths


def merged_settings(
    before: QueueSettings, queue: queue_service_pb2.Queue, paths: Sequence[str]
) -> QueueSettings:
    """The settings with those of a call at the given paths; what the call leaves out there is unset.

    Raises:
        InvalidRequest: Fields break their rules.
    """
    merged = queue_service_pb2.Queue()
    add_settings(merged, before)
    for path in paths:
        *above, name = path.split(".")
        source: Any = queue
        target: Any = merged
        for part in above:
            source, target = getattr(source, part), getattr(target, part)
        _take(source, target, name)
    violations: Violations = []
    _check_settings(violations, merged)
    if violations:
        raise InvalidRequest(violations)
    return read_settings(merged)


def _take(source: Message, target: Message, name: str) -> None:
    target.ClearField(name)
    for field, value in source.ListFields():
        if field.name == name:
            if field.message_type is None:
                setattr(target, name, value)
            else:
                # A submessage and a map alike.
                getattr(target, name).MergeFrom(value)


def _set_paths(queue: queue_service_pb2.Queue) -> list[str]:
    present = {field.name: value for field, value in queue.ListFields()}
    inner = [
        f"{name}.{field.name}"
        for name in _NESTED
        if name in present
        for field, _ in present[name].ListFields()
    ]
    return [name for name in _WHOLE if name in present] + inner


def _is_setting(path: str) -> bool:
    if path in _WHOLE or path in _NESTED:
        return True
    outer, _, inner = path.partition(".")
    if outer not in _NESTED:
        return False
    message = queue_service_pb2.Queue.DESCRIPTOR.fields_by_name[outer].message_type
    return message is not None and inner in message.fields_by_name


def _without_holds(settings: QueueSettings) -> QueueSettings:
    return settings._replace(pause=None, drain=None, resumed=None)


def _check_settings(violations: Violations, queue: queue_service_pb2.Queue) -> None:
    _check_defaults(violations, "queue.defaults", queue.defaults)
    _check_type_defaults(violations, queue)
    _check_limits(violations, "queue.limits", queue.limits)
    if queue.retention_days not in (0, *RETENTION_DAYS):
        days = ", ".join(map(str, RETENTION_DAYS))
        violations.append(
            FieldViolation("queue.retention_days", f"must be one of {days}, not {queue.retention_days}")
        )
    if queue.poison_limit:
        check_range(violations, "queue.poison_limit", queue.poison_limit, (1, MAX_POISON_LIMIT))
    if queue.max_open_tasks:
        check_range(violations, "queue.max_open_tasks", queue.max_open_tasks, (1, MAX_QUEUE_OPEN_TASKS))
    if (size := queue.ByteSize()) > MAX_QUEUE_SETTINGS_BYTES:
        rule = f"must have at most {MAX_QUEUE_SETTINGS_BYTES} bytes of settings together, not {size}"
        violations.append(FieldViolation("queue", rule))


def _check_type_defaults(violations: Violations, queue: queue_service_pb2.Queue) -> None:
    path = "queue.type_defaults"
    if len(queue.type_defaults) > MAX_TYPE_DEFAULTS:
        rule = f"must have at most {MAX_TYPE_DEFAULTS} entries, not {len(queue.type_defaults)}"
        violations.append(FieldViolation(path, rule))
        return
    for name, defaults in queue.type_defaults.items():
        check_name(violations, path, name)
        _check_defaults(violations, f"{path}[{name[:60]!r}]", defaults)


def _check_defaults(violations: Violations, path: str, defaults: queue_service_pb2.TaskDefaults) -> None:
    if defaults.HasField("priority"):
        check_priority(violations, f"{path}.priority", defaults.priority)
    if defaults.max_attempts:
        check_range(violations, f"{path}.max_attempts", defaults.max_attempts, (1, MAX_ATTEMPTS))
    if defaults.HasField("retry_policy"):
        check_retry_policy(violations, f"{path}.retry_policy", defaults.retry_policy)
    check_timeouts(violations, path, defaults)


def _check_limits(violations: Violations, path: str, limits: queue_service_pb2.QueueLimits) -> None:
    for name in ("max_running", "max_running_per_key"):
        check_range(violations, f"{path}.{name}", getattr(limits, name), (0, MAX_RUNNING))
    if limits.HasField("rate"):
        _check_rate(violations, f"{path}.rate", limits.rate)
    if limits.HasField("rate_per_key"):
        _check_rate(violations, f"{path}.rate_per_key", limits.rate_per_key)


def _check_rate(violations: Violations, path: str, rate: queue_service_pb2.RateLimit) -> None:
    if rate == queue_service_pb2.RateLimit():
        return
    check_range(violations, f"{path}.units", rate.units, (1, MAX_RATE))
    if rate.HasField("period"):
        check_duration(
            violations, f"{path}.period", rate.period, MIN_RATE_PERIOD_SECONDS, MAX_RATE_PERIOD_SECONDS
        )
    if rate.burst:
        check_range(violations, f"{path}.burst", rate.burst, (1, MAX_RATE))
