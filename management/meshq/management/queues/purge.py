"""Clearing a queue: cancelling everything in it that no worker has.

The newest tasks go first, so that of a chain of tasks the ones behind are gone before the ones before them
end. A task that may be on a shard is recalled from there: unlike a cancellation that leaves one alone which
a worker has. Only then the wish to end it is written, and it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.management.finish import Finisher
from meshq.management.ledger import Ledger
from meshq.management.model.placement import OFF_THE_SHARDS, Withdrawn
from meshq.management.model.reports import Finish
from meshq.management.model.states import State
from meshq.management.model.task import OpenAttempt, TaskFilter, TaskRow, never_dispatched
from meshq.management.queues.store import QueueKey, QueueStore
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_WITHOUT_WORKER = (State.WAITING, State.SCHEDULED, State.PENDING, State.RETRYING)


class Recaller(Protocol):
    """Asks the shards."""

    async def recall(self, attempts: Sequence[OpenAttempt]) -> list[Withdrawn]:
        """Take attempts off the shards that no worker has, at most 1,000; those at workers go on."""


class Purged(NamedTuple):
    """How far it went.

    Attributes:
        tasks: How many are cancelled.
        complete: Whether all were asked.
    """

    tasks: int
    complete: bool


class Purger:
    """See the module.

    Args:
        ledger: Where the tasks are found.
        store: Where the wish is written.
        recaller: Takes tasks off the shards.
        finisher: Ends them.
        committed: Hears of the wish, after its commit.
        now_ms: The clock.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: QueueStore,
        recaller: Recaller,
        finisher: Finisher,
        committed: Callable[[Sequence[TaskRow]], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._recaller = recaller
        self._finisher = finisher
        self._committed = committed
        self._now_ms = now_ms

    async def purge(self, key: QueueKey, reason: str, seconds: float) -> Purged:
        """Cancel what was created until now and is at no worker, for so many seconds at most."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        wanted = TaskFilter(key[0], _WITHOUT_WORKER, queue=key[1], max_create_ms=self._now_ms() + 1)
        before = None
        count, complete = 0, True
        while page := await self._ledger.list_tasks(wanted, before, MAX_FRAME_ITEMS):
            done = await self._page(page, reason)
            count += done.tasks
            complete &= done.complete
            before = page[-1].task_id
            if len(page) < MAX_FRAME_ITEMS:
                break
            if clock() >= deadline:
                return Purged(count, complete=False)
        return Purged(count, complete)

    async def _page(self, page: Sequence[TaskRow], reason: str) -> Purged:
        now_ms = self._now_ms()
        free = [row for row in page if never_dispatched(row.state, row.ready_ms, now_ms)]
        home = {row.task_id for row in free}
        sent = [row for row in page if row.task_id not in home]
        complete = True
        if sent:
            recalled, complete = await self._recall(sent)
            free += recalled
        ended = await self._store.purge(free, reason, self._now_ms()) if free else []
        self._committed(ended)
        now_ms = self._now_ms()
        await self._finisher.end(
            [Finish(row.task_id, row.attempt, State.CANCELLED, 0, now_ms) for row in ended]
        )
        return Purged(len(ended), complete)

    async def _recall(self, rows: Sequence[TaskRow]) -> tuple[list[TaskRow], bool]:
        attempts = [OpenAttempt(row.task_id, row.attempt, row.state, row.tenant, "") for row in rows]
        try:
            states = await self._recaller.recall(attempts)
        except MeshqError as error:
            _log.info("tasks not recalled", tasks=len(rows), reason=error.message)
            return [], False
        free = [row for row, state in zip(rows, states, strict=True) if state in OFF_THE_SHARDS]
        return free, Withdrawn.UNCERTAIN not in states
