"""What management wants run, on its way to the shards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic, time
from typing import Final

from meshq.contract.errors import MeshqError
from meshq.execution.attempts.recorded import Key, RecordedEnds
from meshq.execution.model import (
    Compared,
    Ended,
    Lease,
    QueueItem,
    Rejected,
    Status,
    nobodys_lease,
    scope_of,
)
from meshq.execution.queues.configs import QueueConfigs
from meshq.execution.ring.errors import RingOutdated, ShardError, ShardFull
from meshq.execution.ring.shard import Shard
from meshq.execution.ring.shards import Shards
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_AGAIN_SECONDS: Final = 0.02
_CATCH_UP_SECONDS: Final = 3.0
"""For how long is tried to queue what shards refuse because they know a later ring or later settings."""

Rejection = tuple[int, Rejected]
Compare = Callable[[Sequence[Key]], Awaitable[list[Compared]]]
Record = Callable[[Sequence[Ended]], Awaitable[list[Status]]]
Lost = Callable[[Lease, str, int], Ended]


class Intake:
    """Queues attempts.

    Args:
        shards: Where they are queued.
        recorded: Reports those repeats again that have ended.
        configs: Say where they are queued.
        compare: What the shards know of attempts.
        record: Records ends.
        lost: The end of a lost attempt: lease, worker, end in milliseconds.
    """

    def __init__(
        self,
        shards: Shards,
        recorded: RecordedEnds,
        configs: QueueConfigs,
        *,
        compare: Compare,
        record: Record,
        lost: Lost,
    ) -> None:
        self._shards = shards
        self._recorded = recorded
        self._configs = configs
        self._compare = compare
        self._record = record
        self._lost = lost
        self._reloaded = 0.0
        self._catching_up = asyncio.Lock()

    async def take(self, items: Sequence[QueueItem]) -> list[Rejection]:
        """Queue attempts on their shards, one call for each shard; returns what was not queued."""
        rejected: list[Rejection] = []
        skipped = await self._settle_repeats(items, rejected)
        return rejected + await self._queue_all(
            items, [index for index in range(len(items)) if index not in skipped]
        )

    async def requeue(self, items: Sequence[QueueItem]) -> list[int]:
        """Queue what was taken off another shard; returns the positions of what was not queued."""
        return [index for index, _ in await self._queue_all(items, range(len(items)))]

    async def _queue_all(self, items: Sequence[QueueItem], indexes: Sequence[int]) -> list[Rejection]:
        """Queue some of the items, by the ring and the settings that the shards know."""
        asked = monotonic()
        until = asked + _CATCH_UP_SECONDS
        rejected, misrouted = await self._queue(items, indexes)
        while misrouted and monotonic() < until:
            await self._catch_up(asked)
            asked = monotonic()
            rejections, misrouted = await self._queue(items, misrouted)
            rejected += rejections
        if misrouted:
            scopes = sorted({scope_of(items[index].lane) for index in misrouted})
            _log.warning("queues are not where they should be", queues=scopes[:10], count=len(misrouted))
        return rejected + [(index, Rejected.SHARD_UNAVAILABLE) for index in misrouted]

    async def _catch_up(self, asked: float) -> None:
        """Hear of what shards know already. They have asked for the ring themselves."""
        await asyncio.sleep(_AGAIN_SECONDS)
        async with self._catching_up:
            if self._reloaded > asked:
                return
            self._reloaded = monotonic()
            try:
                await self._configs.reload()
            except MeshqError as error:
                _log.warning("settings of queues not read", reason=error.message)

    async def _queue(
        self, items: Sequence[QueueItem], indexes: Sequence[int]
    ) -> tuple[list[Rejection], list[int]]:
        """Queue some of the items; returns what was rejected, and what belongs to another shard by now."""
        rejected: list[Rejection] = []
        misrouted: list[int] = []
        by_key: dict[bytes, list[int]] = {}
        for index in indexes:
            by_key.setdefault(self._configs.routing_key(items[index]), []).append(index)
        by_shard: dict[Shard, list[int]] = {}
        for key, part in by_key.items():
            shard = self._shards.owner(key)
            if shard is None:
                rejected += [(index, Rejected.SHARD_UNAVAILABLE) for index in part]
            else:
                by_shard.setdefault(shard, []).extend(part)
        for refused, elsewhere in await asyncio.gather(
            *(self._enqueue(shard, items, part) for shard, part in by_shard.items())
        ):
            rejected += refused
            misrouted += elsewhere
        return rejected, misrouted

    async def _settle_repeats(self, items: Sequence[QueueItem], rejected: list[Rejection]) -> set[int]:
        """Which items are not to be queued: attempts that have ended are reported again instead."""
        repeats = {(item.task_id, item.attempt): index for index, item in enumerate(items) if item.repeat}
        over = await self._recorded.report_again(list(repeats))
        if over is None:
            rejected += [(index, Rejected.ATTEMPTS_UNAVAILABLE) for index in repeats.values()]
            return set(repeats.values())
        started = {key: index for key, index in repeats.items() if items[index].started and key not in over}
        if started:
            rejected += await self._lose(items, started)
        return {repeats[key] for key in over} | set(started.values())

    async def _lose(self, items: Sequence[QueueItem], started: dict[Key, int]) -> list[Rejection]:
        """Attempts that were started, and must not be started again: those that nobody holds are lost."""
        keys = list(started)
        states = dict(zip(keys, await self._compare(keys), strict=True))
        now_ms = int(time() * 1000)
        missing = [key for key in keys if states[key] == Compared.MISSING]
        tenants = {key: items[started[key]].lane.partition("/")[0] for key in missing}
        rows = [self._lost(nobodys_lease(*key, tenants[key], now_ms), "", now_ms) for key in missing]
        rejected = [
            (started[key], Rejected.SHARD_RECOVERING) for key in keys if states[key] == Compared.UNCERTAIN
        ]
        if rows:
            statuses = await self._record(rows)
            rejected += [
                (started[key], Rejected.ATTEMPTS_UNAVAILABLE)
                for key, status in zip(missing, statuses, strict=True)
                if status == Status.TRY_LATER
            ]
        return rejected

    async def _enqueue(
        self, shard: Shard, items: Sequence[QueueItem], indexes: list[int]
    ) -> tuple[list[Rejection], list[int]]:
        try:
            refused = await shard.enqueue([items[index] for index in indexes])
        except ShardFull:
            return [(index, Rejected.SHARD_FULL) for index in indexes], []
        except RingOutdated:
            return [], indexes
        except ShardError:
            return [(index, Rejected.SHARD_UNAVAILABLE) for index in indexes], []
        rejected = [(indexes[position], Rejected.SHARD_RECOVERING) for position in refused.recovering]
        return rejected, [indexes[position] for position in refused.misrouted]
