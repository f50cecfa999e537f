"""What attempts left, on its way between processes."""

from __future__ import annotations

from typing import TypeAlias

from meshq.internal.v1 import commit_service_pb2, ledger_service_pb2
from meshq.management.conversion.tasks import add_error, add_output
from meshq.management.model.outcomes import Content
from meshq.v1 import task_pb2, worker_service_pb2

Carrier: TypeAlias = (
    ledger_service_pb2.AttemptReport | commit_service_pb2.Commit | commit_service_pb2.CommittedEnd
)
"""A message that a result or an error can come along with."""


def content_of(message: Carrier) -> Content | None:
    """What came along with a report, or with a commit of another instance; None for nothing."""
    if message.HasField("success"):
        return Content(message.success, None)
    return Content(None, message.error) if message.HasField("error") else None


def add_content(message: Carrier, content: Content | None) -> None:
    """Let it come along with a message."""
    if content is None:
        return
    if content.success is not None:
        message.success = content.success
    if content.error is not None:
        message.error = content.error


def complete(task: task_pb2.Task, content: Content) -> None:
    """Write into a task what its last attempt has left."""
    if content.success is not None:
        add_output(task, worker_service_pb2.Success.FromString(content.success))
    if content.error is not None:
        add_error(task, task_pb2.TaskError.FromString(content.error))
