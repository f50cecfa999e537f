"""Carries waiting tasks from a shard to those where they belong.

Tasks are taken off their shard and queued again, a frame at a time, as if they were dispatched now. Those
that cannot be queued go back; what gets lost in between is found by the ledger's comparison.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from prometheus_client import Counter

from meshq.execution.model import QueueItem
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shard import Shard
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_MOVED: Final = Counter("meshq_ring_moved_tasks", "Tasks moved away from the shard to others.", ["shard"])
_RESERVE_MS: Final = 5_000
"""Another instance goes on when one has not for so long."""
_AT_ONCE: Final = 500

Requeue = Callable[[Sequence[QueueItem]], Awaitable[list[int]]]
"""Queues tasks where they belong; returns the positions of those that were not."""


class NotNow(Exception):
    """Another instance carries tasks from the shard, or some could not be queued and have gone back."""


class Carrier:
    """See the module.

    Args:
        requeue: Queues tasks where they belong.
    """

    def __init__(self, requeue: Requeue) -> None:
        self._requeue = requeue
        self._under_way: set[asyncio.Task[bool]] = set()

    async def stop(self) -> None:
        """Return when what was taken off its shard is queued."""
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def carry(self, shard: Shard, task_ids: Sequence[bytes], *, strays_only: bool = False) -> None:
        """Carry away those of some tasks that wait.

        Args:
            shard: Where they are.
            task_ids: Which.
            strays_only: Leave those that have no limit key, or one whose slot is on the shard.

        Raises:
            NotNow: It is better to wait before the same is tried again.
            ShardError: The shard does not answer.
        """
        all_queued = True
        while task_ids:
            taken = await shard.departures.hand_over(
                task_ids[:_AT_ONCE], _RESERVE_MS, strays_only=strays_only
            )
            if taken is None:
                raise NotNow
            looked_at, items = taken
            if items and not await self.pass_on(shard, items):
                all_queued = False
            task_ids = task_ids[looked_at:]
        if not all_queued:
            raise NotNow

    async def pass_on(self, shard: Shard, items: Sequence[QueueItem]) -> bool:
        """Queue what was taken off a shard, also if this is cancelled; says whether all of it was queued."""
        passing = asyncio.create_task(self._pass_on(shard, items), name="tasks on their way")
        self._under_way.add(passing)
        passing.add_done_callback(self._under_way.discard)
        return await asyncio.shield(passing)

    async def _pass_on(self, shard: Shard, items: Sequence[QueueItem]) -> bool:
        refused = await self._requeue(items)
        _MOVED.labels(shard.name).inc(len(items) - len(refused))
        if refused:
            await self._put_back(shard, [items[index] for index in refused])
        return not refused

    async def _put_back(self, shard: Shard, items: Sequence[QueueItem]) -> None:
        reason = "it recovers, or the queue has its home elsewhere"
        try:
            refused = await shard.enqueue(items)
            count = len(refused.recovering) + len(refused.misrouted)
        except ShardError as error:
            reason, count = str(error), len(items)
        if count:
            _log.warning(
                "tasks lost on their way; the ledger will ask for them",
                shard=shard.name,
                count=count,
                reason=reason,
            )
