"""Moves waiting tasks of limit keys to the shards that have their slots, and says when there are no more.

All tasks of a shard are looked at once after the ring has changed. What comes later - tasks whose leases end
where they were, delayed ones that become ready - is parked on its shard, where it is found without that. When
no such key is leased any more, all tasks are looked at once again, for what has been delayed meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

from meshq.execution.model import QueueItem
from meshq.execution.ring.shard import Shard
from meshq.execution.ring.slot_calls import Standing

_RESERVE_MS: Final = 5_000
"""Another instance goes on when one has not for so long."""
_SLICE_SECONDS: Final = 0.2
_AT_ONCE: Final = 500
_START: Final = b"0"

Requeue = Callable[[Sequence[QueueItem]], Awaitable[list[int]]]


class _Busy(Exception):
    """Another instance is moving the tasks of the shard."""


@dataclass
class _Look:
    """How far the tasks of a shard have been looked at.

    Attributes:
        since: Epoch, version of the ring, and changes of the shard's standing when it began.
        last: Whether no stray key was leased when it began.
    """

    since: tuple[int, int, int]
    last: bool
    cursor: bytes = _START
    over: bool = False


class Strays:
    """See the module. All methods raise `ShardError`.

    Args:
        requeue: Queues tasks where they belong; returns the positions of those that were not.
    """

    def __init__(self, requeue: Requeue) -> None:
        self._requeue = requeue
        self._looks: dict[str, _Look] = {}
        self._passing: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Return when what was taken off its shard is queued."""
        if self._passing:
            await asyncio.wait(self._passing)

    async def move(self, shard: Shard, standing: Standing, scopes: Sequence[str], *, leased: bool) -> bool:
        """Move some of what waits on a shard.

        Args:
            shard: The shard, which is open and serves its own slots.
            standing: How it stands.
            scopes: The queues (`tenant/queue`) whose limits per key are spread.
            leased: Whether any stray key is leased there.

        Returns:
            Whether there is more to be done at once.
        """
        since = (shard.epoch, shard.ring_version, standing.changes)
        look = self._looks.get(shard.name)
        if look is None or look.since != since or (look.over and not look.last and not leased):
            look = self._looks[shard.name] = _Look(since, last=not leased)
        until = monotonic() + _SLICE_SECONDS
        try:
            if not await self._move_parked(shard, scopes, until):
                return True
            if not look.over:
                look.over = not await self._any_waiting(shard, scopes) or await self._go_on(
                    shard, look, until
                )
                return not look.over or look.last
        except _Busy:
            return False
        if look.last:
            await shard.slots.settle(standing.changes, scopes)
        return False

    async def _any_waiting(self, shard: Shard, scopes: Sequence[str]) -> bool:
        for at in range(0, len(scopes), _AT_ONCE):
            if any(depth.ready + depth.delayed for depth in await shard.describe(scopes[at : at + _AT_ONCE])):
                return True
        return False

    async def _go_on(self, shard: Shard, look: _Look, until: float) -> bool:
        """Look at some tasks; says whether these were the last."""
        while True:
            cursor, task_ids = await shard.scan(look.cursor)
            await self._hand_over(shard, task_ids)
            look.cursor = cursor
            if cursor == _START or monotonic() > until:
                return cursor == _START

    async def _move_parked(self, shard: Shard, scopes: Sequence[str], until: float) -> bool:
        """Move what is parked; says whether that is all of it."""
        for scope in scopes:
            cursor = _START
            while True:
                cursor, task_ids = await shard.slots.parked_strays(scope, cursor, _AT_ONCE)
                await self._hand_over(shard, task_ids)
                if cursor == _START and not task_ids:
                    break
                if monotonic() > until:
                    return False
        return True

    async def _hand_over(self, shard: Shard, task_ids: list[bytes]) -> None:
        while task_ids:
            taken = await shard.slots.hand_over_strays(task_ids[:_AT_ONCE], _RESERVE_MS)
            if taken is None:
                raise _Busy
            looked_at, items = taken
            if items:
                passing = asyncio.create_task(self._pass_on(shard, items), name="tasks on their way")
                self._passing.add(passing)
                passing.add_done_callback(self._passing.discard)
                await asyncio.shield(passing)
            task_ids = task_ids[looked_at:]

    async def _pass_on(self, shard: Shard, items: Sequence[QueueItem]) -> None:
        """Queue tasks where they belong. What cannot be queued there goes back, and is parked."""
        refused = await self._requeue(items)
        if refused:
            await shard.enqueue([items[index] for index in refused])
