"""Deleting: terminal tasks only; `force` cancels first and waits for the end.

Execution hears of it through an outbox in the ledger, so that a deleted task's attempts are forgotten
even when execution is away at the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from meshq.contract.errors import DeadlineExceeded, PreconditionFailed
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.management.cancel import Canceller
from meshq.management.ledger import Ledger, one_task, task_missing
from meshq.management.model.task import TaskId, TaskRow
from meshq.management.watch.bus import Bus
from meshq.management.watch.watchers import Watchers

_REASON: Final = "the task is to be deleted"


class Forgetter(Protocol):
    """Execution, which keeps attempts and results."""

    async def forget(self, task_ids: Sequence[TaskId]) -> None:
        """Delete everything about tasks."""


class Deleter:
    """Deletes tasks."""

    def __init__(
        self,
        ledger: Ledger,
        canceller: Canceller,
        watchers: Watchers,
        bus: Bus,
        now_ms: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._canceller = canceller
        self._watchers = watchers
        self._bus = bus
        self._now_ms = now_ms

    async def end(self, task_id: TaskId, *, force: bool, seconds: float) -> TaskRow:
        """The task when it may be deleted, with its specification.

        Raises:
            NotFound: There is no such task.
            PreconditionFailed: It is open, and `force` is not set.
            DeadlineExceeded: It was cancelled but has not ended in time.
        """
        row = await one_task(self._ledger, task_id, full=True)
        if row.ended:
            return row
        if not force:
            raise PreconditionFailed("The task is open; cancel it first, or set force.")
        await self._canceller.cancel(task_id, _REASON)
        row = await self._watchers.ended(task_id, seconds)
        if not row.ended:
            raise DeadlineExceeded("The task is being cancelled but has not ended yet; call again.")
        return row

    async def delete(self, task_id: TaskId) -> None:
        """Delete a task that has ended.

        Raises:
            NotFound: Somebody else was faster.
        """
        if not await self._ledger.delete(task_id, self._now_ms()):
            raise task_missing(task_id)
        self._bus.publish_gone([task_id])

    async def delete_ended(self, task_ids: Sequence[TaskId]) -> int:
        """Delete those of some tasks that have ended; returns how many."""
        gone = await self._ledger.delete_tasks(task_ids, self._now_ms()) if task_ids else []
        self._bus.publish_gone(gone)
        return len(gone)


async def tell_deletions(ledger: Ledger, forgetter: Forgetter) -> None:
    """Have execution forget what was deleted since the last time."""
    while task_ids := await ledger.deletions(MAX_FRAME_ITEMS):
        await forgetter.forget(task_ids)
        await ledger.forget_deletions(task_ids)
