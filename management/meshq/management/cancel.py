"""Cancelling: an intention in the ledger first, then a question to the shards.

A task that may have been dispatched is never ended here by itself: its worker may be about to succeed.
The ledger notes the wish, execution takes the task off its shard where no worker has it, and only then
the task ends as CANCELLED. Where a worker has it, the worker is asked to stop and its outcome counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.management.finish import Finisher
from meshq.management.ledger import Ledger, one_task
from meshq.management.model.placement import OFF_THE_SHARDS, Withdrawn
from meshq.management.model.reports import Finish, Wish
from meshq.management.model.states import State
from meshq.management.model.task import NO_ID, OpenAttempt, TaskId, TaskRow, never_dispatched
from meshq.mesh.lifecycle import cancelled
from meshq.mesh.telemetry import logger

_log = logger(__name__)


class Withdrawer(Protocol):
    """Asks the shards."""

    async def withdraw(self, attempts: Sequence[OpenAttempt]) -> list[Withdrawn]:
        """Take tasks off the shards, at most 1,000; says what was found of each."""


class Canceller:
    """Cancels tasks.

    Args:
        ledger: Where the wish is written.
        finisher: Ends what no worker has.
        withdrawer: Takes tasks off the shards.
        committed: Hears of the wish, after its commit.
        now_ms: The clock.
    """

    def __init__(
        self,
        ledger: Ledger,
        finisher: Finisher,
        withdrawer: Withdrawer,
        committed: Callable[[Sequence[TaskRow]], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._finisher = finisher
        self._withdrawer = withdrawer
        self._committed = committed
        self._now_ms = now_ms
        self._following: set[asyncio.Task[None]] = set()

    async def cancel(self, task_id: TaskId, reason: str) -> TaskRow:
        """Ask for a task to end.

        Returns:
            The task as it stands then, without its specification.

        Raises:
            NotFound: There is no such task.
        """
        await self.wish([Wish(task_id, reason)])
        return await one_task(self._ledger, task_id, full=False)

    async def wish(self, wishes: Sequence[Wish]) -> list[TaskRow]:
        """Ask for tasks to end, at most 1,000.

        Returns:
            Those that are to end because of this call, as they stood at first.
        """
        noted = await self._ledger.cancel(wishes, self._now_ms()) if wishes else []
        await self.follow_up(noted)
        return [row for row, _ in noted]

    def follow_up_soon(self, noted: Sequence[tuple[TaskRow, int]]) -> None:
        """As `follow_up`, without waiting; what is not done when the process ends, the sweeper does."""
        if noted:
            task = asyncio.create_task(self.follow_up(noted), name="follow up cancellations")
            self._following.add(task)
            task.add_done_callback(self._followed)

    async def follow_up(self, noted: Sequence[tuple[TaskRow, int]]) -> None:
        """Have tasks end for which the wish was written just now; they come with their states before."""
        self._committed([row for row, _ in noted])
        now_ms = self._now_ms()
        at_home = [row for row, before in noted if never_dispatched(before, row.ready_ms, now_ms)]
        await self._end([_attempt(row) for row in at_home])
        known = {row.task_id for row in at_home}
        sent = [_attempt(row) for row, _ in noted if row.task_id not in known]
        if sent:
            await self._withdraw(sent)

    async def stop(self) -> None:
        """Leave the rest to the sweeper."""
        for task in list(self._following):
            await cancelled(task)

    async def start(self) -> None:
        """Nothing to begin."""

    def _followed(self, task: asyncio.Task[None]) -> None:
        self._following.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.info("cancellations postponed", reason=str(error))

    async def withdraw_again(self, touched_before_ms: int) -> None:
        """Repeat the withdrawal of everything that has been CANCELLING since before a time."""
        after = NO_ID
        while page := await self._ledger.cancelling(after, touched_before_ms, MAX_FRAME_ITEMS):
            await self._withdraw(page)
            after = page[-1].task_id

    async def _withdraw(self, attempts: Sequence[OpenAttempt]) -> None:
        try:
            states = await self._withdrawer.withdraw(attempts)
        except MeshqError as error:
            _log.info("withdrawal postponed", tasks=len(attempts), reason=error.message)
            return
        found = zip(attempts, states, strict=True)
        await self._end([attempt for attempt, state in found if state in OFF_THE_SHARDS])

    async def _end(self, attempts: Sequence[OpenAttempt]) -> None:
        now_ms = self._now_ms()
        # The ledger makes it EXPIRED where the wish says so.
        await self._finisher.end(
            [Finish(item.task_id, item.attempt, State.CANCELLED, 0, now_ms) for item in attempts]
        )


def _attempt(row: TaskRow) -> OpenAttempt:
    reason = row.cancel_reason or ""
    return OpenAttempt(row.task_id, row.attempt, row.state, row.tenant, reason)
