"""Changes of the ledger on their way between management instances."""

from __future__ import annotations

import uuid
from typing import Final

from meshq.internal.v1 import commit_service_pb2
from meshq.management.conversion.tasks import add_standing
from meshq.management.conversion.values import milliseconds, timestamp
from meshq.management.model.task import TaskId, TaskRow
from meshq.v1 import task_pb2

_TRAITS: Final = frozenset(range(11, 20)) | frozenset(range(31, 40))
"""The numbers of the fields that traits are made of."""


def commit_message(row: TaskRow) -> commit_service_pb2.Commit:
    """A change of the ledger for the other management instances."""
    standing = task_pb2.Task(state=row.state, max_attempts=row.max_attempts)  # type: ignore[arg-type]
    standing.next_start_time.CopyFrom(timestamp(row.ready_ms))
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


def _traits(task: task_pb2.Task) -> bytes | None:
    """What is left of a task without what else is in a commit."""
    for field, _ in task.ListFields():
        if field.number not in _TRAITS:
            task.ClearField(field.name)  # type: ignore[arg-type]
    return task.SerializeToString(deterministic=True) or None


def _id(text: str) -> TaskId | None:
    return uuid.UUID(text).bytes if text else None
