"""Tasks as callers write and see them.

A task is encoded once, when it is accepted: what the caller wrote, followed by what the server adds.
Two encodings one after the other are the encoding of both together, so the caller's part is also what
tells whether a repeated request is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import FieldDescriptor

from meshq.contract.errors import InvalidRequest
from meshq.contract.ids import new_id_bytes
from meshq.contract.limits import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_QUEUE,
    MAX_ATTEMPTS,
    MAX_PAYLOAD_BYTES,
    RETENTION_DAYS,
)
from meshq.internal.v1 import attempt_service_pb2
from meshq.management.conversion.traits import Traits, check_traits, resolve, trait_name
from meshq.management.conversion.values import set_time, text_id, timestamp
from meshq.management.model.queues import NO_DEFAULTS, UNSET, QueueSettings, defaults_of
from meshq.management.model.reports import POISON
from meshq.management.model.states import State
from meshq.management.model.task import NewTask, TaskRow, shown_state
from meshq.management.model.validation import (
    Violations,
    check_content_type,
    check_headers,
    check_max_attempts,
    check_name,
    check_payload_size,
    is_name,
)
from meshq.v1 import task_pb2, worker_service_pb2

_PLAIN: Final = range(3, 10)
"""The numbers of the fields that callers write in plain tasks."""
_NO_TRAITS: Final[Traits] = MappingProxyType({})
_TASK_ID_KEY: Final = task_pb2.Task(task_id="x" * 36).SerializeToString()[:-36]
"""The encoded key and length of a task_id, which stand before its 36 characters."""
_TIMED: Final = frozenset({State.SCHEDULED, State.RETRYING})


class Content(NamedTuple):
    """What a caller wrote.

    Attributes:
        encoded: The specification without the server's part.
        traits: What it says beyond a plain task.
    """

    encoded: bytes
    traits: Traits = _NO_TRAITS

    @property
    def plain(self) -> bool:
        """Whether it has no traits of its own."""
        return not self.traits


def accept_content(task: task_pb2.Task, path: str) -> Content:
    """Check what a caller wrote, and encode it.

    Args:
        task: Is changed: the queue is filled in, and what the server writes is removed.
        path: The field's path in the request, for the violations.

    Raises:
        InvalidRequest: Fields break their rules.
    """
    fields = task.ListFields()
    traits = _NO_TRAITS
    if fields and (fields[0][0].number not in _PLAIN or fields[-1][0].number not in _PLAIN):
        traits = _sorted_out(task, fields)
    task.DiscardUnknownFields()
    if not task.queue:
        task.queue = DEFAULT_QUEUE
    has_headers = bool(task.headers)
    # Only maps have no order of their own, and sorting them takes time.
    sort_maps = has_headers or "labels" in traits or task.WhichOneof("input") == "payload"
    content = task.SerializeToString(deterministic=sort_maps)
    violations: Violations = []
    if has_headers or not _plainly_good(task, len(content)):
        violations = _violations(task, path)
    if traits:
        check_traits(violations, path, traits)
    if violations:
        raise InvalidRequest(violations)
    return Content(content, traits)


def _sorted_out(task: task_pb2.Task, fields: Sequence[tuple[FieldDescriptor, Any]]) -> Traits:
    """The traits that are among the fields; what the server writes is removed."""
    traits: dict[str, Any] = {}
    for field, value in fields:
        number = field.number
        if name := trait_name(number):
            traits[name] = value
        elif number not in _PLAIN:
            task.ClearField(field.name)  # type: ignore[arg-type]
    return traits


def _plainly_good(task: task_pb2.Task, size: int) -> bool:
    """Whether no rule can be broken; looks only at what is cheap to look at, as most tasks are plain."""
    return (
        size <= MAX_PAYLOAD_BYTES
        and is_name(task.queue)
        and is_name(task.type)
        and 0 <= task.max_attempts <= MAX_ATTEMPTS
        and not task.content_type
    )


def _violations(task: task_pb2.Task, path: str) -> Violations:
    violations: Violations = []
    check_name(violations, f"{path}.queue", task.queue)
    check_name(violations, f"{path}.type", task.type)
    if task.max_attempts:
        check_max_attempts(violations, f"{path}.max_attempts", task.max_attempts)
    check_input(violations, path, task)
    check_headers(violations, f"{path}.headers", task.headers)
    return violations


def check_input(violations: Violations, path: str, task: task_pb2.Task) -> None:
    """The rules for the input and its form."""
    given = task.WhichOneof("input")
    if given == "data":
        check_payload_size(violations, f"{path}.data", len(task.data))
    elif given == "payload":
        check_payload_size(violations, f"{path}.payload", task.payload.ByteSize())
    if task.content_type:
        check_content_type(
            violations, f"{path}.content_type", task.content_type, has_payload=given == "payload"
        )


def new_task(task: task_pb2.Task, content: Content, tenant: str, settings: QueueSettings = UNSET) -> NewTask:
    """Give a checked task its id, and complete it.

    Args:
        task: What `accept_content` has seen.
        content: What it returned.
        tenant: Whose task it is.
        settings: What its queue is set to.
    """
    task_id = new_id_bytes(RETENTION_DAYS.index(settings.retention_days))
    create_ms = ready_ms = int.from_bytes(task_id[:6], "big")
    defaults = NO_DEFAULTS if settings is UNSET else defaults_of(settings, task.type)
    max_attempts = task.max_attempts or defaults.max_attempts or DEFAULT_MAX_ATTEMPTS
    special, encoded, added = None, content.encoded, b""
    if content.traits or defaults is not NO_DEFAULTS:
        special, added, ready_ms = resolve(content.traits, defaults, max_attempts, create_ms)
        if "start_delay" in content.traits:
            encoded = _without_delay(task)
    # No field twice: the edge refuses to write such a message as JSON.
    own_part = text_id(task_id).encode() + _servers_part(
        tenant, create_ms, 0 if task.max_attempts else max_attempts
    )
    return NewTask(
        task_id,
        tenant,
        task.queue,
        task.type,
        State.PENDING if ready_ms <= create_ms else State.SCHEDULED,
        max_attempts,
        ready_ms,
        encoded + _TASK_ID_KEY + own_part + added,
        settings.retention_days,
        special,
    )


def _without_delay(task: task_pb2.Task) -> bytes:
    """The caller's part of a task whose delay has become a time."""
    timed = task_pb2.Task()
    timed.CopyFrom(task)
    timed.ClearField("start_delay")
    return timed.SerializeToString(deterministic=True)


@lru_cache(maxsize=64)
def _servers_part(tenant: str, create_ms: int, max_attempts: int) -> bytes:
    """What the server adds to a specification beside the id; the same for most tasks of a millisecond.

    Args:
        tenant: Whose task it is.
        create_ms: When it was accepted.
        max_attempts: 0 where the caller has said it.
    """
    return task_pb2.Task(
        tenant=tenant, create_time=timestamp(create_ms), max_attempts=max_attempts
    ).SerializeToString()


def accepted_task(new: NewTask) -> task_pb2.Task:
    """A task that was just stored, as its caller sees it."""
    task = task_pb2.Task.FromString(new.spec)
    task.state = new.state  # type: ignore[assignment]
    task.attempt = 1
    if new.state == State.SCHEDULED:
        set_time(task.next_start_time, new.ready_ms)
    return task


def public_task(row: TaskRow, now_ms: int) -> task_pb2.Task:
    """A task as callers see it: BASIC, or FULL but for the output where the row has its specification."""
    if row.spec is None:
        task = task_pb2.Task.FromString(row.traits) if row.traits else task_pb2.Task()
        task.task_id = text_id(row.task_id)
        task.tenant = row.tenant
        task.queue = row.queue
        task.type = row.type
        task.max_attempts = row.max_attempts
        set_time(task.create_time, int.from_bytes(row.task_id[:6], "big"))
    else:
        task = task_pb2.Task.FromString(row.spec)
    state = shown_state(row.state, row.ready_ms, now_ms)
    task.state = state  # type: ignore[assignment]
    if state in _TIMED:
        set_time(task.next_start_time, row.ready_ms)
    add_standing(task, row)
    return task


def add_standing(task: task_pb2.Task, row: TaskRow) -> None:
    """Write what the ledger knows beside the specification; the state is the caller's."""
    task.attempt = row.attempt
    if row.spared:
        task.spared_attempts = row.spared
    if row.redriven_from:
        task.redriven_from = text_id(row.redriven_from)
    if row.redriven_to:
        task.redriven_to = text_id(row.redriven_to)
    if row.start_ms:
        set_time(task.attempt_start_time, row.start_ms)
    if row.end_ms:
        set_time(task.end_time, row.end_ms)
    if row.worker_id:
        task.worker_id = row.worker_id
    if row.error_type or row.error_message:
        task.error.type = row.error_type or ""
        task.error.message = row.error_message or ""
    if row.cancel_reason:
        task.cancel_reason = row.cancel_reason
    if row.cancel_ms:
        set_time(task.cancel_time, row.cancel_ms)


def add_outcome(task: task_pb2.Task, outcome: attempt_service_pb2.RecordedOutcome | None) -> None:
    """Complete a FULL view with what execution has recorded; None when it has nothing any more."""
    if outcome is None:
        if task.state == task_pb2.TASK_STATE_SUCCEEDED:
            task.error.type = "RESULT_EXPIRED"
            task.error.message = "the result has left its retention"
        return
    if outcome.HasField("success"):
        add_output(task, outcome.success)
    if outcome.HasField("error"):
        add_error(task, outcome.error)


def add_output(task: task_pb2.Task, success: worker_service_pb2.Success) -> None:
    """Write what a successful attempt has returned."""
    given = success.WhichOneof("output")
    if given == "result":
        task.result.CopyFrom(success.result)
    elif given == "data":
        task.result_data = success.data
        task.result_content_type = success.content_type


def add_error(task: task_pb2.Task, error: task_pb2.TaskError) -> None:
    """Write the whole error of the last attempt."""
    if task.error.type == POISON:  # Why the task was given up, not how its last attempt ended.
        task.error.traceback = error.traceback
    else:
        task.error.CopyFrom(error)
