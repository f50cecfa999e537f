"""What attempts left, on its way between processes."""

from __future__ import annotations

from typing import TypeAlias

from meshq.internal.v1 import attempt_service_pb2, commit_service_pb2, ledger_service_pb2
from meshq.management.model.outcomes import Content, Key
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


def outcome_of(key: Key, content: Content) -> attempt_service_pb2.RecordedOutcome:
    """The same as if execution had been asked for it."""
    outcome = attempt_service_pb2.RecordedOutcome(task_id=key[0], attempt=key[1])
    if content.success is not None:
        outcome.success.CopyFrom(worker_service_pb2.Success.FromString(content.success))
    if content.error is not None:
        outcome.error.CopyFrom(task_pb2.TaskError.FromString(content.error))
    return outcome
