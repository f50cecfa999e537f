"""Moves what waits on draining shards to where the ring says.

Tasks are taken off their shard and queued again, a frame at a time, as if they were dispatched now. Those
that cannot be queued go back; what gets lost in between is found by the ledger's comparison. What workers
have ends where it is, and what is to be tried again then is moved. All instances look; on each shard one of
them moves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from prometheus_client import Counter

from meshq.execution.model import QueueItem
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shard import Shard, ShardState
from meshq.execution.ring.shards import Shards
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_MOVED: Final = Counter("meshq_ring_moved_tasks", "Tasks moved away from draining shards.", ["shard"])
_LOOK_SECONDS: Final = 1.0
_RESERVE_MS: Final = 5_000
_START: Final = b"0"

Requeue = Callable[[Sequence[QueueItem]], Awaitable[list[int]]]


class Mover:
    """See the module.

    Args:
        shards: The shards.
        requeue: Queues tasks where they belong; returns the positions of those that were not.
    """

    def __init__(self, shards: Shards, requeue: Requeue) -> None:
        self._shards = shards
        self._requeue = requeue
        self._passing: asyncio.Task[int] | None = None
        self._repeater = Repeater("mover", self.run_once, _LOOK_SECONDS)
        self.start = self._repeater.start

    async def stop(self) -> None:
        """Take no more tasks off their shards, and return when those that were taken are queued."""
        await self._repeater.stop()
        if self._passing is not None:
            await asyncio.wait({self._passing})

    async def run_once(self) -> None:
        """Move what can be moved now."""
        for shard in self._shards.usable():
            if not shard.member.draining or shard.state is not ShardState.OPEN:
                continue
            try:
                await self._empty(shard)
            except ShardError as error:
                _log.debug("tasks not moved", shard=shard.name, reason=str(error))

    async def _empty(self, shard: Shard) -> None:
        """Go once over all that is on a shard."""
        held = await shard.totals()
        if not held.ready + held.delayed:
            return
        cursor = _START
        while self._may_move():
            cursor, task_ids = await shard.scan(cursor)
            if task_ids and not await self._move(shard, task_ids):
                return
            if cursor == _START:
                return

    def _may_move(self) -> bool:
        """Whether all shards that take tasks can do so: else some would be taken off in vain."""
        taking = [shard for shard in self._shards.all() if shard.member.takes]
        return all(shard.state is ShardState.OPEN and not shard.full for shard in taking)

    async def _move(self, shard: Shard, task_ids: Sequence[bytes]) -> bool:
        """Move some tasks; says whether to go on."""
        while items := await shard.hand_over(task_ids, _RESERVE_MS):
            self._passing = asyncio.create_task(self._pass_on(shard, items), name="tasks on their way")
            if await asyncio.shield(self._passing) < len(items):
                return False
            task_ids = task_ids[task_ids.index(items[-1].task_id) + 1 :]
            if not task_ids:
                return True
        return items is not None

    async def _pass_on(self, shard: Shard, items: Sequence[QueueItem]) -> int:
        """Queue tasks where they belong; returns how many were."""
        refused = await self._requeue(items)
        _MOVED.labels(shard.name).inc(len(items) - len(refused))
        if refused:
            await shard.enqueue([items[index] for index in refused])
        return len(items) - len(refused)
