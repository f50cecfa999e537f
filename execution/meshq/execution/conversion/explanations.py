"""What keeps a waiting task, in the words of the contract."""

from __future__ import annotations

from typing import Final

from meshq.execution.conversion.times import timestamp
from meshq.execution.model import Explained, Waiting
from meshq.internal.v1 import dispatch_service_pb2 as pb
from meshq.v1.task_pb2 import TaskProgress, TaskWaiting, WaitingReason

QueueClass = tuple[str, str, str]
"""Tenant, queue and task type."""

_REASONS: Final = {
    "not_due": Waiting.NOT_DUE,
    "paused": Waiting.QUEUE_PAUSED,
    "moving": Waiting.DISPATCHING,
    "recovering": Waiting.SHARD_RECOVERING,
    "limit": Waiting.QUEUE_LIMIT,
    "rate": Waiting.RATE_LIMIT,
    "key": Waiting.KEY_BUSY,
    "key_rate": Waiting.RATE_LIMIT,
    "line": Waiting.IN_LINE,
}

_NEEDS_NO_WORKER: Final = frozenset({"not_due", "paused"})
"""What keeps a task, workers or not."""


def class_of_task(task: pb.ExplainedTask) -> QueueClass:
    """What a worker has to serve to get a task."""
    return task.tenant, task.queue, task.type


def explanation(
    found: Explained | None, workers: int, progress: TaskProgress | None, *, recovering: bool
) -> pb.Explanation:
    """What is known of a task.

    Args:
        found: What its shard says; None when that cannot be known now.
        workers: How many workers could take it.
        progress: What its handler last said.
        recovering: Whether some shard is being compared with the ledger.
    """
    if found is None:
        return pb.Explanation()
    if found.state == "leased":
        return pb.Explanation(running=True, progress=progress)
    if found.state == "none":
        reason = Waiting.SHARD_RECOVERING if recovering else Waiting.DISPATCHING
        return pb.Explanation(waiting=_waiting(reason, Explained("none")))
    if not workers and found.why not in _NEEDS_NO_WORKER:
        return pb.Explanation(waiting=_waiting(Waiting.NO_WORKER, Explained(found.state)))
    waiting = _waiting(_REASONS.get(found.why, Waiting.IN_LINE), found)
    if found.why == "line":
        waiting.workers = workers
    return pb.Explanation(waiting=waiting)


def _waiting(reason: Waiting, found: Explained) -> TaskWaiting:
    return TaskWaiting(
        reason=WaitingReason.ValueType(reason),
        message=_message(reason, found),
        due_time=timestamp(found.due_ms) if found.due_ms else None,
        limit=found.limit,
        in_use=found.in_use,
        ahead=found.ahead if reason is Waiting.IN_LINE else 0,
    )


def _message(reason: Waiting, found: Explained) -> str:
    if reason is Waiting.IN_LINE:
        return f"The task is ready; {_tasks(found.ahead, 'of its kind')} before it."
    if reason is Waiting.QUEUE_LIMIT:
        return f"{_tasks(found.in_use, 'of the queue')} at workers; its limit is {found.limit}."
    if reason is Waiting.KEY_BUSY:
        return f"{_tasks(found.in_use, 'with its limit_key')} at workers; the limit is {found.limit}."
    if reason is Waiting.RATE_LIMIT:
        whose = "its limit_key" if found.why == "key_rate" else "the queue"
        return f"The rate limit of {whose} has no tokens left for it just now."
    return _MESSAGES[reason]


def _tasks(count: int, which: str) -> str:
    return f"1 task {which} is" if count == 1 else f"{count} tasks {which} are"


_MESSAGES: Final = {
    Waiting.NOT_DUE: "Its time has not come.",
    Waiting.QUEUE_PAUSED: "Its queue is paused.",
    Waiting.NO_WORKER: "No worker is connected that serves its queue and handles its type.",
    Waiting.SHARD_RECOVERING: "Its shard is being compared with the ledger.",
    Waiting.DISPATCHING: "It is on its way to its shard.",
}
