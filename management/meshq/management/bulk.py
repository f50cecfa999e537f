"""Cancelling and deleting many tasks at a time, page by page and for as long as the caller waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from meshq.management.cancel import Canceller
from meshq.management.delete import Deleter
from meshq.management.ledger import Ledger
from meshq.management.model.reports import Wish
from meshq.management.model.task import NO_ID, TaskFilter, TaskId

PAGE: Final = 1_000


class Done(NamedTuple):
    """How far a call went.

    Attributes:
        tasks: How many were changed.
        complete: Whether all that were meant were looked at.
    """

    tasks: int
    complete: bool


class Bulk:
    """See the module.

    Args:
        ledger: Where the tasks are found.
        canceller: Cancels them.
        deleter: Deletes them.
        now_ms: The clock.
    """

    def __init__(
        self, ledger: Ledger, canceller: Canceller, deleter: Deleter, now_ms: Callable[[], int]
    ) -> None:
        self._ledger = ledger
        self._canceller = canceller
        self._deleter = deleter
        self._now_ms = now_ms

    async def cancel(self, task_ids: Sequence[TaskId], reason: str) -> tuple[int, set[TaskId]]:
        """Ask for tasks to end; returns how many are to end because of this, and which ids are unknown."""
        wishes = [Wish(task_id, reason) for task_id in dict.fromkeys(task_ids)]
        wished = await self._canceller.wish(wishes)
        known = await self._ledger.get_tasks([wish.task_id for wish in wishes], full=False)
        return len(wished), {wish.task_id for wish in wishes} - known.keys()

    async def cancel_selected(self, wanted: TaskFilter, reason: str, seconds: float) -> Done:
        """Ask for the open tasks to end that a filter selects now, for so many seconds at most."""

        async def cancel(page: Sequence[TaskId]) -> int:
            return len(await self._canceller.wish([Wish(task_id, reason) for task_id in page]))

        return await pages(self._pick(wanted, ended=False), cancel, seconds)

    async def delete(self, task_ids: Sequence[TaskId]) -> int:
        """Remove those of some tasks that have ended; returns how many."""
        return await self._deleter.delete_ended(list(dict.fromkeys(task_ids)))

    async def delete_selected(self, wanted: TaskFilter, seconds: float) -> Done:
        """Remove the ended tasks that a filter selects now, for so many seconds at most."""
        return await pages(self._pick(wanted, ended=True), self._deleter.delete_ended, seconds)

    async def _pick(self, wanted: TaskFilter, *, ended: bool) -> AsyncIterator[Sequence[TaskId]]:
        after = NO_ID
        wanted = created_until(wanted, self._now_ms())
        while page := await self._ledger.pick_tasks(wanted, after, PAGE, ended=ended):
            yield page
            after = page[-1]
            if len(page) < PAGE:
                return


def created_until(wanted: TaskFilter, now_ms: int) -> TaskFilter:
    """A filter without the tasks that are yet to come, which a call would follow for ever."""
    latest_ms = now_ms + 1 if wanted.max_create_ms is None else min(wanted.max_create_ms, now_ms + 1)
    return wanted._replace(max_create_ms=latest_ms)


async def pages(
    found: AsyncIterator[Sequence[TaskId]],
    work: Callable[[Sequence[TaskId]], Awaitable[int]],
    seconds: float,
) -> Done:
    """Do something with one page after the other, at least with the first, while there is time."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    count = begun = 0
    async for page in found:
        if begun and clock() >= deadline:
            return Done(count, complete=False)
        begun += len(page)
        count += await work(page)
    return Done(count, complete=True)
