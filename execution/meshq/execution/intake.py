"""What management wants run, on its way to the shards."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from meshq.execution.attempts.recorded import RecordedEnds
from meshq.execution.model import QueueItem, Rejected
from meshq.execution.ring.errors import ShardError, ShardFull
from meshq.execution.ring.shard import Shard
from meshq.execution.ring.shards import Shards

Rejection = tuple[int, Rejected]


class Intake:
    """Queues attempts.

    Args:
        shards: Where they are queued.
        recorded: Reports those repeats again that have ended.
    """

    def __init__(self, shards: Shards, recorded: RecordedEnds) -> None:
        self._shards = shards
        self._recorded = recorded

    async def take(self, items: Sequence[QueueItem]) -> list[Rejection]:
        """Queue attempts on their shards, one call for each shard; returns what was not queued."""
        rejected: list[Rejection] = []
        skipped = await self._settle_repeats(items, rejected)
        by_shard: dict[Shard, list[int]] = {}
        for index, item in enumerate(items):
            if index in skipped:
                continue
            shard = self._shards.owner(item.routing_key)
            if shard is None:
                rejected.append((index, Rejected.SHARD_UNAVAILABLE))
            else:
                by_shard.setdefault(shard, []).append(index)
        for part in await asyncio.gather(
            *(self._enqueue(shard, items, indexes) for shard, indexes in by_shard.items())
        ):
            rejected += part
        return rejected

    async def _settle_repeats(self, items: Sequence[QueueItem], rejected: list[Rejection]) -> set[int]:
        """Which items are not to be queued: attempts that have ended are reported again instead."""
        repeats = {(item.task_id, item.attempt): index for index, item in enumerate(items) if item.repeat}
        over = await self._recorded.report_again(list(repeats))
        if over is None:
            rejected += [(index, Rejected.ATTEMPTS_UNAVAILABLE) for index in repeats.values()]
            return set(repeats.values())
        return {repeats[key] for key in over}

    async def _enqueue(self, shard: Shard, items: Sequence[QueueItem], indexes: list[int]) -> list[Rejection]:
        try:
            refused = await shard.enqueue([items[index] for index in indexes])
        except ShardFull:
            return [(index, Rejected.SHARD_FULL) for index in indexes]
        except ShardError:
            return [(index, Rejected.SHARD_UNAVAILABLE) for index in indexes]
        return [(indexes[position], Rejected.SHARD_RECOVERING) for position in refused.recovering]
