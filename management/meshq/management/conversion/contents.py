"""What attempts left, on its way between processes."""

from __future__ import annotations

from meshq.internal.v1 import attempt_service_pb2, commit_service_pb2, ledger_service_pb2
from meshq.management.model.outcomes import Content, Key
from meshq.v1 import task_pb2, worker_service_pb2


def content_of(message: ledger_service_pb2.AttemptReport | commit_service_pb2.Commit) -> Content | None:
    """What came along with a report, or with a commit of another instance; None for nothing."""
    if message.HasField("success"):
        return Content(message.success, None)
    return Content(None, message.error) if message.HasField("error") else None


def add_content(commit: commit_service_pb2.Commit, content: Content | None) -> None:
    """Let it come along with a commit."""
    if content is None:
        return
    if content.success is not None:
        commit.success = content.success
    if content.error is not None:
        commit.error = content.error


def outcome_of(key: Key, content: Content) -> attempt_service_pb2.RecordedOutcome:
    """The same as if execution had been asked for it."""
    outcome = attempt_service_pb2.RecordedOutcome(task_id=key[0], attempt=key[1])
    if content.success is not None:
        outcome.success.CopyFrom(worker_service_pb2.Success.FromString(content.success))
    if content.error is not None:
        outcome.error.CopyFrom(task_pb2.TaskError.FromString(content.error))
    return outcome
