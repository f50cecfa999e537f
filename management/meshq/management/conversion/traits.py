"""What makes a task more than a plain one: the fields of its specification from 11 on.

They are checked here, completed with the defaults of the queue and the type, and gathered: once as
`traits`, which is what the ledger shows without reading specifications, and once as columns. Most tasks
have none or few of them, so all of this looks only at those that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from time import time
from typing import Any, Final, NamedTuple, TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

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
    check_time,
)
from meshq.management.conversion.queue_settings import read_retry_policy, write_retry_policy
from meshq.management.conversion.values import milliseconds_not_before, timestamp
from meshq.management.model.queues import NO_DEFAULTS, RetryPolicy, TaskDefaults
from meshq.management.model.task import Special, Unique
from meshq.management.model.validation import Violations, check_labels, check_range, check_text
from meshq.v1 import task_pb2

_FIRST: Final = 11
_FIRST_BEHIND: Final = 50
_STANDING: Final = range(20, 31)

Traits: TypeAlias = Mapping[str, Any]
"""The values of a task's traits by the names of their fields, in the order of their numbers."""

_NAMES: Final[Mapping[int, str]] = {
    field.number: field.name
    for field in task_pb2.Task.DESCRIPTOR.fields
    if _FIRST <= field.number < _FIRST_BEHIND and field.number not in _STANDING
}
_DEFAULTED: Final = frozenset({"priority", "retry_policy", *TIMEOUTS})
_UNIQUE: Final = frozenset({"unique_scope", "unique_policy", "unique_window"})
_SIMPLE: Final = frozenset(
    {"priority", "fairness_key", "fairness_weight", "limit_key", "rate_units", "ordering_key"}
)
_UNIQUE_ENUMS: Final[Mapping[str, Any]] = {
    "unique_scope": task_pb2.UniqueScope,
    "unique_policy": task_pb2.UniquePolicy,
}


def trait_name(number: int) -> str | None:
    """The name of a field of `Task` that is one of these; None for another."""
    return _NAMES.get(number)


def traits_of(task: task_pb2.Task) -> Traits:
    """The traits that a task has."""
    found = ((_NAMES.get(field.number), value) for field, value in task.ListFields())
    return {name: value for name, value in found if name is not None}


def check_traits(violations: Violations, path: str, traits: Traits) -> None:
    """The rules for what a caller wrote; only what is there is looked at."""
    for name, value in traits.items():
        _CHECKS[name](violations, f"{path}.{name}", value)
    if not _UNIQUE.isdisjoint(traits):
        _check_unique(violations, path, traits)


def _check_start_time(violations: Violations, field: str, value: Timestamp) -> None:
    """When a task is to start."""
    if check_time(violations, field, value) and value.seconds > time() + MAX_START_SECONDS:
        rule = f"must be at most 10 years ahead, not {value.ToJsonString()}"
        violations.append(FieldViolation(field, rule))


def _check_start_delay(violations: Violations, field: str, value: Duration) -> None:
    """After how long a task is to start."""
    check_duration(violations, field, value, 0, MAX_START_SECONDS)


def _check_weight(violations: Violations, field: str, value: float) -> None:
    check_range(violations, field, value, (MIN_FAIRNESS_WEIGHT, MAX_FAIRNESS_WEIGHT))


def _check_units(violations: Violations, field: str, value: int) -> None:
    check_range(violations, field, value, (1, MAX_RATE_UNITS))


def _check_key(violations: Violations, field: str, value: str) -> None:
    check_text(violations, field, value, MAX_KEY_LENGTH)


def _check_unique_key(violations: Violations, field: str, value: str) -> None:
    check_text(violations, field, value, MAX_UNIQUE_KEY_LENGTH)


def _check_unique_window(violations: Violations, field: str, value: Duration) -> None:
    check_duration(violations, field, value, MIN_UNIQUE_WINDOW_SECONDS, MAX_ATTEMPT_SECONDS)


def _enum_check(enum: Any) -> Callable[[Violations, str, int], None]:
    known = frozenset(enum.values())

    def check(violations: Violations, field: str, value: int) -> None:
        if value not in known:
            violations.append(FieldViolation(field, f"must be one of its names, not {value}"))

    return check


def _timeout_check(least: float, most: float) -> Callable[[Violations, str, Duration], None]:
    def check(violations: Violations, field: str, value: Duration) -> None:
        check_duration(violations, field, value, least, most)

    return check


_CHECKS: Final[Mapping[str, Callable[[Violations, str, Any], None]]] = {
    "priority": check_priority,
    "labels": check_labels,
    "start_time": _check_start_time,
    "start_delay": _check_start_delay,
    "retry_policy": check_retry_policy,
    "fairness_key": _check_key,
    "fairness_weight": _check_weight,
    "limit_key": _check_key,
    "rate_units": _check_units,
    "ordering_key": _check_key,
    "unique_key": _check_unique_key,
    "unique_window": _check_unique_window,
    **{name: _enum_check(enum) for name, enum in _UNIQUE_ENUMS.items()},
    **{name: _timeout_check(*bounds) for name, bounds in TIMEOUTS.items()},
}
"""The rule for each field by itself."""


def _check_unique(violations: Violations, path: str, traits: Traits) -> None:
    """The rules for how the fields around unique_key go together."""
    if "unique_key" not in traits:
        violations.extend(
            FieldViolation(
                f"{path}.{name}", f"must be unset without unique_key, not {_enum_name(enum, traits[name])}"
            )
            for name, enum in _UNIQUE_ENUMS.items()
            if name in traits
        )
    window = traits.get("unique_scope") == task_pb2.UNIQUE_SCOPE_WINDOW
    if "unique_window" in traits and not window:
        seconds = traits["unique_window"].seconds + traits["unique_window"].nanos / 1e9
        rule = f"must be unset without the scope WINDOW, not {seconds:.15g} s"
        violations.append(FieldViolation(f"{path}.unique_window", rule))
    elif window and "unique_window" not in traits:
        violations.append(FieldViolation(f"{path}.unique_window", "is required with the scope WINDOW"))


def _enum_name(enum: Any, value: int) -> str:
    """The name of a value, or its number where it has none."""
    return enum.Name(value) if value in enum.values() else str(value)


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


def resolve(said: Traits, defaults: TaskDefaults, max_attempts: int, create_ms: int) -> Resolved:
    """Complete a checked task.

    Args:
        said: What the caller wrote.
        defaults: Those of its queue and type.
        max_attempts: Resolved.
        create_ms: When it was accepted.
    """
    added, ready_ms = b"", create_ms
    if "start_time" in said:
        ready_ms = max(create_ms, milliseconds_not_before(said["start_time"]))
    elif "start_delay" in said:
        ready_ms = create_ms + _ms(said["start_delay"])
        start = timestamp(ready_ms)
        said = {name: value for name, value in said.items() if name != "start_delay"} | {"start_time": start}
        added = task_pb2.Task(start_time=start).SerializeToString()
    if defaults is not NO_DEFAULTS:
        missing = _missing(defaults, _DEFAULTED.intersection(said))
        said = {**said, **missing.values}
        added += missing.encoded
    return Resolved(columns_of(said, max_attempts, create_ms, ready_ms), added, ready_ms)


class _Missing(NamedTuple):
    values: Traits
    encoded: bytes


@lru_cache(maxsize=1_024)
def _missing(defaults: TaskDefaults, said: frozenset[str]) -> _Missing:
    """The defaults of those fields that a task leaves out; the same for most tasks of a queue."""
    added = task_pb2.Task()
    if defaults.priority is not None and "priority" not in said:
        added.priority = defaults.priority
    if defaults.retry is not None and "retry_policy" not in said:
        write_retry_policy(added.retry_policy, defaults.retry)
    timeouts = (
        defaults.schedule_to_start_ms,
        defaults.start_to_close_ms,
        defaults.schedule_to_close_ms,
        defaults.heartbeat_ms,
    )
    for field, value_ms in zip(TIMEOUTS, timeouts, strict=True):
        if value_ms and field not in said:
            getattr(added, field).FromMilliseconds(value_ms)
    return _Missing(traits_of(added), added.SerializeToString())


def columns_of(traits: Traits, max_attempts: int, create_ms: int, ready_ms: int) -> Special | None:
    """What statements look for, of resolved traits; None where there are none."""
    if not traits:
        return None
    if _SIMPLE.issuperset(traits):
        return _simple(tuple(traits.items()), max_attempts == 1)
    get = traits.get
    labels = get("labels")
    unique = _unique(traits, create_ms) if "unique_key" in traits else None
    until_started = unique is not None and unique.scope == task_pb2.UNIQUE_SCOPE_UNTIL_STARTED
    return Special(
        # Only maps have no order of their own.
        task_pb2.Task(**traits).SerializeToString(deterministic=labels is not None),
        get("priority", 0),
        get("fairness_key", ""),
        max_attempts == 1 or until_started,
        _after(ready_ms, get("schedule_to_start_timeout")),
        _after(ready_ms, get("schedule_to_close_timeout")),
        get("ordering_key"),
        unique,
        sorted([f"{key}={value}" for key, value in labels.items()]) if labels else None,
    )


@lru_cache(maxsize=4_096)
def _simple(traits: tuple[tuple[str, Any], ...], once: bool) -> Special:
    """As `columns_of`, of names and numbers alone. Most tasks of a queue share them, or some do."""
    given = dict(traits)
    return Special(
        task_pb2.Task(**given).SerializeToString(),
        given.get("priority", 0),
        given.get("fairness_key", ""),
        once,
        ordering_key=given.get("ordering_key"),
    )


def _unique(traits: Traits, create_ms: int) -> Unique:
    scope = traits.get("unique_scope", task_pb2.UNIQUE_SCOPE_UNTIL_FINISHED)
    policy = traits.get("unique_policy", task_pb2.UNIQUE_POLICY_RETURN_EXISTING)
    until_ms = create_ms + _ms(traits["unique_window"]) if scope == task_pb2.UNIQUE_SCOPE_WINDOW else None
    return Unique(traits["unique_key"], int(scope), int(policy), until_ms)


def _after(ready_ms: int, timeout: Duration | None) -> int | None:
    return None if timeout is None else ready_ms + _ms(timeout)


def retry_policy(traits: bytes | None) -> RetryPolicy:
    """How the failed attempts of a task are made again."""
    return read_retry_policy(task_pb2.Task.FromString(traits or b"").retry_policy)


def _ms(duration: Duration) -> int:
    return max(duration.seconds * 1_000 + duration.nanos // 1_000_000, 0)
