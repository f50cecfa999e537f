"""What open tasks wait for: what the ledger and the queues' settings say, and else what execution does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from meshq.contract.errors import MeshqError
from meshq.internal.v1 import dispatch_service_pb2
from meshq.management.conversion.values import text_id, timestamp
from meshq.management.ledger import Ledger
from meshq.management.model.queues import Hold, QueueSettings
from meshq.management.model.states import TERMINAL, State
from meshq.management.model.task import TaskId, TaskRow, shown_state
from meshq.mesh.telemetry import logger
from meshq.v1 import task_pb2

_log = logger(__name__)

_TIMED: Final = frozenset({State.SCHEDULED, State.RETRYING})
_SILENT: Final = TERMINAL | {State.CANCELLING}
_NOTHING: Final = task_pb2.TaskWaiting()


class Asked(Protocol):
    """Execution, which has the tasks on its shards."""

    async def explain(self, rows: Sequence[TaskRow]) -> list[dispatch_service_pb2.Explanation]:
        """Why tasks wait, one for each of at most 1,000; empty when it does not answer at once."""


class Waiting:
    """See the module.

    Args:
        ledger: Who waits for whom.
        asked: Says what only the shards know.
        settings: What queues are set to.
        now_ms: The clock.
    """

    def __init__(
        self,
        ledger: Ledger,
        asked: Asked,
        settings: Callable[[str, str], QueueSettings],
        now_ms: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._asked = asked
        self._settings = settings
        self._now_ms = now_ms

    async def add(self, tasks: Sequence[task_pb2.Task], rows: Sequence[TaskRow], *, progress: bool) -> None:
        """Write into messages what their tasks wait for, and if wanted how running ones get on.

        What cannot be found out is left out.
        """
        before = await self._predecessors(rows)
        asked: list[tuple[task_pb2.Task, TaskRow]] = []
        for task, row in zip(tasks, rows, strict=False):
            known = self._known(row, before)
            if known is None:
                if row.state != State.RUNNING or progress:
                    asked.append((task, row))
            elif known.reason:
                task.waiting.CopyFrom(known)
        if not asked:
            return
        explained = await self._asked.explain([row for _, row in asked])
        for (task, row), explanation in zip(asked, explained, strict=False):
            if explanation.waiting.reason and row.state != State.RUNNING:
                task.waiting.CopyFrom(explanation.waiting)
            if progress and explanation.HasField("progress"):
                task.progress.CopyFrom(explanation.progress)

    async def _predecessors(self, rows: Sequence[TaskRow]) -> dict[TaskId, TaskId]:
        waiting = [row.task_id for row in rows if row.state == State.WAITING]
        try:
            return await self._ledger.predecessors(waiting) if waiting else {}
        except MeshqError as error:
            _log.info("predecessors not read", reason=error.message)
            return {}

    def _known(self, row: TaskRow, before: dict[TaskId, TaskId]) -> task_pb2.TaskWaiting | None:
        """What needs no question; empty for a task that does not wait, None where execution has to say it."""
        if row.state in _SILENT:
            return _NOTHING
        if row.state == State.WAITING:
            return _after(before.get(row.task_id))
        if shown_state(row.state, row.ready_ms, self._now_ms()) in _TIMED:
            return task_pb2.TaskWaiting(
                reason=task_pb2.WAITING_REASON_NOT_DUE,
                message="Its time has not come.",
                due_time=timestamp(row.ready_ms),
            )
        hold = self._settings(row.tenant, row.queue).pause
        return _paused(hold) if hold and row.state != State.RUNNING else None


def _after(predecessor: TaskId | None) -> task_pb2.TaskWaiting:
    if predecessor is None:
        # It has just ended, or could not be looked up.
        return task_pb2.TaskWaiting(
            reason=task_pb2.WAITING_REASON_PREDECESSOR,
            message="An earlier task with its ordering_key has not ended.",
        )
    text = text_id(predecessor)
    return task_pb2.TaskWaiting(
        reason=task_pb2.WAITING_REASON_PREDECESSOR,
        message=f"Task {text} with the same ordering_key has to end first.",
        predecessor_task_id=text,
    )


def _paused(hold: Hold) -> task_pb2.TaskWaiting:
    actor = f" by {hold.actor}" if hold.actor else ""
    reason = f": {hold.reason}" if hold.reason else "."
    return task_pb2.TaskWaiting(
        reason=task_pb2.WAITING_REASON_QUEUE_PAUSED, message=f"Its queue was paused{actor}{reason}"
    )
