"""Changes of the ledger on their way between management instances."""

from __future__ import annotations

import uuid

from meshq.internal.v1 import commit_service_pb2
from meshq.management.conversion.tasks import add_standing
from meshq.management.conversion.values import milliseconds
from meshq.management.model.task import TaskId, TaskRow
from meshq.v1 import task_pb2


def commit_message(row: TaskRow) -> commit_service_pb2.Commit:
    """A change of the ledger for the other management instances."""
    standing = task_pb2.Task(state=row.state)  # type: ignore[arg-type]
    add_standing(standing, row)
    return commit_service_pb2.Commit(
        task_id=row.task_id,
        tenant=row.tenant,
        attempt=row.attempt,
        state=row.state,  # type: ignore[arg-type]
        task=standing.SerializeToString(),
        queue=row.queue,
        type=row.type,
        labels=row.labels,
    )


def committed_row(commit: commit_service_pb2.Commit) -> TaskRow:
    """A change of the ledger from another instance, without what only snapshots have, such as traits."""
    task = task_pb2.Task.FromString(commit.task)
    return TaskRow(
        task_id=commit.task_id,
        tenant=commit.tenant,
        queue=commit.queue,
        type=commit.type,
        state=commit.state,
        attempt=commit.attempt,
        max_attempts=0,
        ready_ms=0,
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
    )


def _id(text: str) -> TaskId | None:
    return uuid.UUID(text).bytes if text else None
