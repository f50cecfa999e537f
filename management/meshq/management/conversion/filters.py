"""Which tasks a caller asks for."""

from __future__ import annotations

from typing import Final

from meshq.contract.errors import FieldViolation, InvalidRequest
from meshq.management.conversion.values import milliseconds
from meshq.management.model.states import State
from meshq.management.model.task import TaskFilter
from meshq.management.model.validation import Violations, check_name
from meshq.v1 import task_service_pb2

_STATES: Final = frozenset(map(int, State))


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
