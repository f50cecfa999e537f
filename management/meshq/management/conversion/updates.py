"""What an update changes in a task."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from meshq.contract.errors import FieldViolation, InvalidRequest, shown
from meshq.contract.times import parts_of
from meshq.management.conversion.tasks import check_input
from meshq.management.conversion.traits import check_traits, columns_of, traits_of
from meshq.management.conversion.values import milliseconds_not_before, set_time
from meshq.management.model.changes import Updated, state_after
from meshq.management.model.states import State
from meshq.management.model.task import Special, TaskRow
from meshq.management.model.validation import Violations
from meshq.v1 import task_pb2, task_service_pb2

_START: Final = frozenset({"start_time", "start_delay"})
_INPUT: Final = frozenset({"payload", "data", "content_type"})
_FIELDS: Final = frozenset({"priority", "labels"}) | _START | _INPUT
_RULE: Final = f"may name {', '.join(sorted(_FIELDS))}"
_ID: Final = 1
_WRITTEN_BY_SERVER: Final = frozenset({2, 10}) | frozenset(range(20, 31)) | frozenset(range(50, 56))


class Update(NamedTuple):
    """A checked update.

    Attributes:
        task: The new values.
        fields: Which of them count.
    """

    task: task_pb2.Task
    fields: frozenset[str]


def read_update(request: task_service_pb2.UpdateTaskRequest) -> Update:
    """What is to change.

    Raises:
        InvalidRequest: A field breaks its rule, or may not be changed.
    """
    task = request.task
    violations: Violations = []
    fields = _named(request, violations)
    if not fields and not violations:
        violations.append(FieldViolation("update_mask", f"must name at least one field; it {_RULE}"))
    named = {name: value for name, value in traits_of(task).items() if name in fields}
    check_traits(violations, "task", named)
    if fields & _START:
        _check_named(violations, fields, task, "start", _START)
    if fields & _INPUT:
        _check_named(violations, fields - {"content_type"}, task, "input", _INPUT)
        if "content_type" in fields and "data" not in fields:
            named_only = ", ".join(sorted(fields))
            rule = f"must name data where it names content_type, not only {named_only}"
            violations.append(FieldViolation("update_mask", rule))
        check_input(violations, "task", task)
    if violations:
        raise InvalidRequest(violations)
    return Update(task, fields)


def _named(request: task_service_pb2.UpdateTaskRequest, violations: Violations) -> frozenset[str]:
    """The fields of the mask, or without one those that are set, leaving out what servers write."""
    names = list(request.update_mask.paths) or [
        field.name
        for field, _ in request.task.ListFields()
        if field.number != _ID and field.number not in _WRITTEN_BY_SERVER
    ]
    violations.extend(
        FieldViolation("update_mask", f"{_RULE}, not {shown(name)}") for name in names if name not in _FIELDS
    )
    return frozenset(names) & _FIELDS


def _check_named(
    violations: Violations,
    fields: frozenset[str],
    task: task_pb2.Task,
    oneof: Literal["start", "input"],
    group: frozenset[str],
) -> None:
    given = task.WhichOneof(oneof)
    if given is not None and given not in fields:
        named = ", ".join(sorted(fields & group)) or "none of them"
        rule = f"must be unset where update_mask names {named}, not {_outlined(getattr(task, given))}"
        violations.append(FieldViolation(f"task.{given}", rule))


def _outlined(value: Timestamp | Duration | Value | bytes) -> str:
    """A time, or how long an input is."""
    if isinstance(value, Timestamp | Duration):
        return parts_of(value)
    return f"{len(value) if isinstance(value, bytes) else value.ByteSize()} bytes"


def updated(row: TaskRow, update: Update, now_ms: int) -> Updated:
    """What becomes of a task.

    Args:
        row: The task with its specification.
        update: What changes.
        now_ms: The time.
    """
    task = task_pb2.Task.FromString(row.spec or b"")
    new, fields = update
    ready_ms, state = row.ready_ms, row.state
    if "priority" in fields:
        task.ClearField("priority")
        if new.HasField("priority"):
            task.priority = new.priority
    if "labels" in fields:
        task.ClearField("labels")
        task.labels.update(new.labels)
    if fields & _INPUT:
        _replace_input(task, new)
    if fields & _START:
        ready_ms = _move_start(task, new, now_ms)
        state = state_after(row, ready_ms, now_ms)
    elif state == State.RUNNING:
        # The word that it runs was of an attempt that no worker has any more.
        state = State.PENDING
    traits = traits_of(task)
    create_ms = int.from_bytes(row.task_id[:6], "big")
    special = columns_of(traits, row.max_attempts, create_ms, ready_ms) or Special()
    return Updated(
        task.SerializeToString(deterministic=True),
        special.traits or None,
        special.priority,
        special.labels,
        state,
        ready_ms,
        special.start_by_ms if fields & _START else None,
        special.close_by_ms if fields & _START else None,
    )


def _replace_input(task: task_pb2.Task, new: task_pb2.Task) -> None:
    for field in ("payload", "data", "content_type"):
        task.ClearField(field)
    given = new.WhichOneof("input")
    if given == "payload":
        task.payload.CopyFrom(new.payload)
    elif given == "data":
        task.data = new.data
        task.content_type = new.content_type


def _move_start(task: task_pb2.Task, new: task_pb2.Task, now_ms: int) -> int:
    """Write the new start; returns when the task may start."""
    given = new.WhichOneof("start")
    task.ClearField("start_time")
    task.ClearField("start_delay")
    if given is None:
        return now_ms
    if given == "start_time":
        start_ms = milliseconds_not_before(new.start_time)
    else:
        start_ms = now_ms + new.start_delay.ToMilliseconds()
    set_time(task.start_time, start_ms)
    return max(start_ms, now_ms)
