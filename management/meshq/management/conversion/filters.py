"""Which tasks a caller asks for."""

from __future__ import annotations

from typing import Final

from meshq.contract.errors import FieldViolation, InvalidRequest, shown
from meshq.contract.limits import MAX_TASK_LABEL_VALUE_LENGTH, MAX_TASK_LABELS, TASK_LABEL_KEY_PATTERN
from meshq.management.conversion.checks import check_time
from meshq.management.conversion.values import milliseconds
from meshq.management.model.states import State
from meshq.management.model.task import TaskFilter
from meshq.management.model.validation import Violations, check_name
from meshq.v1 import task_service_pb2

_STATES: Final = frozenset(map(int, State))
_LABEL_RULE: Final = (
    "must be key=value, the key of 1 to 64 characters of A-Z a-z 0-9 . _ / -, the value of at most 128"
)

Filter = task_service_pb2.TaskFilter | task_service_pb2.ListTasksRequest | task_service_pb2.CountTasksRequest
"""The messages that have the fields of a filter."""


def read_filter(message: Filter, tenant: str, path: str = "") -> TaskFilter:
    """Which tasks are meant.

    Args:
        message: The filter, or a request that has its fields.
        tenant: Whose tasks.
        path: What stands before the fields' names in violations, such as `filter.`.

    Raises:
        InvalidRequest: A filter breaks its rule.
    """
    violations: Violations = []
    for field, value in (("type", message.type), ("queue", message.queue)):
        if value:
            check_name(violations, path + field, value)
    for index, state in enumerate(message.states):
        if int(state) not in _STATES:
            violations.append(
                FieldViolation(f"{path}states[{index}]", f"must be a state of a task, not {state}")
            )
    for field, time in (
        ("min_create_time", message.min_create_time),
        ("max_create_time", message.max_create_time),
    ):
        check_time(violations, path + field, time)
    _check_labels(violations, f"{path}labels", list(message.labels))
    if violations:
        raise InvalidRequest(violations)
    return TaskFilter(
        tenant,
        tuple(sorted({int(state) for state in message.states})),
        message.type,
        message.queue,
        milliseconds(message.min_create_time) if message.HasField("min_create_time") else None,
        milliseconds(message.max_create_time) if message.HasField("max_create_time") else None,
        tuple(sorted(set(message.labels))),
    )


def _check_labels(violations: Violations, field: str, labels: list[str]) -> None:
    if len(labels) > MAX_TASK_LABELS:
        rule = f"must have at most {MAX_TASK_LABELS} entries, not {len(labels)}"
        violations.append(FieldViolation(field, rule))
        return
    for index, label in enumerate(labels):
        if not _is_label(label):
            violations.append(FieldViolation(f"{field}[{index}]", f"{_LABEL_RULE}, not {shown(label)}"))


def _is_label(text: str) -> bool:
    key, equals, value = text.partition("=")
    return (
        bool(equals)
        and TASK_LABEL_KEY_PATTERN.fullmatch(key) is not None
        and len(value) <= MAX_TASK_LABEL_VALUE_LENGTH
        and "\x00" not in value
    )
