"""Changes of the ledger on their way between management instances."""

from __future__ import annotations

import uuid
from typing import Final

from meshq.internal.v1 import commit_service_pb2
from meshq.management.conversion.tasks import add_standing
from meshq.management.conversion.values import milliseconds, set_time
from meshq.management.model.reports import Finish
from meshq.management.model.task import TaskId, TaskRow
from meshq.management.watch.bus import Over
from meshq.v1 import task_pb2

_TRAITS: Final = frozenset(range(11, 20)) | frozenset(range(31, 40))
"""The numbers of the fields that traits are made of."""


def commit_message(row: TaskRow) -> commit_service_pb2.Commit:
    """A change of the ledger for the other management instances."""
    standing = task_pb2.Task(state=row.state, max_attempts=row.max_attempts)  # type: ignore[arg-type]
    set_time(standing.next_start_time, row.ready_ms)
    add_standing(standing, row)
    return commit_service_pb2.Commit(
        task_id=row.task_id,
        tenant=row.tenant,
        attempt=row.attempt,
        state=row.state,  # type: ignore[arg-type]
        # Two encodings one after the other are the encoding of both.
        task=standing.SerializeToString() + (row.traits or b""),
        queue=row.queue,
        type=row.type,
        labels=row.labels,
    )


def committed_row(commit: commit_service_pb2.Commit) -> TaskRow:
    """A change of the ledger from another instance."""
    task = task_pb2.Task.FromString(commit.task)
    return TaskRow(
        task_id=commit.task_id,
        tenant=commit.tenant,
        queue=commit.queue,
        type=commit.type,
        state=commit.state,
        attempt=commit.attempt,
        max_attempts=task.max_attempts,
        ready_ms=milliseconds(task.next_start_time),
        start_ms=milliseconds(task.attempt_start_time) if task.HasField("attempt_start_time") else None,
        end_ms=milliseconds(task.end_time) if task.HasField("end_time") else None,
        worker_id=task.worker_id or None,
        error_type=task.error.type or None,
        error_message=task.error.message or None,
        cancel_reason=task.cancel_reason or None,
        cancel_ms=milliseconds(task.cancel_time) if task.HasField("cancel_time") else None,
        spared=task.spared_attempts,
        labels=list(commit.labels) or None,
        redriven_from=_id(task.redriven_from),
        redriven_to=_id(task.redriven_to),
        traits=_traits(task),
    )


def end_message(over: Over) -> commit_service_pb2.CommittedEnd:
    """The end of a task for the other management instances."""
    end = over.end
    if end is None:
        return commit_service_pb2.CommittedEnd(task_id=over.task_id, attempt=over.attempt)
    return commit_service_pb2.CommittedEnd(
        task_id=over.task_id,
        attempt=over.attempt,
        max_attempts=over.max_attempts,
        state=end.state,  # type: ignore[arg-type]
        start_time_ms=end.start_ms,
        end_time_ms=end.end_ms,
        worker_id=end.worker_id,
        error_type=end.error_type,
        error_message=end.error_message,
    )


def committed_end(message: commit_service_pb2.CommittedEnd) -> Over:
    """The end of a task from another instance."""
    if not message.max_attempts:
        return Over(message.task_id, message.attempt)
    end = Finish(
        message.task_id,
        message.attempt,
        message.state,
        message.start_time_ms,
        message.end_time_ms,
        message.worker_id,
        message.error_type,
        message.error_message,
    )
    return Over(message.task_id, message.attempt, end, message.max_attempts)


def _traits(task: task_pb2.Task) -> bytes | None:
    """What is left of a task without what else is in a commit."""
    for field, _ in task.ListFields():
        if field.number not in _TRAITS:
            task.ClearField(field.name)  # type: ignore[arg-type]
    return task.SerializeToString(deterministic=True) or None


def _id(text: str) -> TaskId | None:
    return uuid.UUID(text).bytes if text else None
