"""Moves waiting tasks of limit keys to the shards that have their slots, and says when there are no more.

All tasks of a shard are looked at once after the ring has changed. What comes later - tasks whose leases end
where they were, delayed ones that become ready - is parked on its shard, where it is found without that. When
no such key is leased any more, all tasks are looked at once again, for what has been delayed meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

from meshq.execution.ring.carrier import Carrier, NotNow
from meshq.execution.ring.shard import Shard
from meshq.execution.ring.slot_calls import Standing

_SLICE_SECONDS: Final = 0.2
_AT_ONCE: Final = 500
_START: Final = b"0"


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
        carrier: Carries tasks where they belong.
    """

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._looks: dict[str, _Look] = {}
        self.stop = carrier.stop

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
        except NotNow:
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
            await self._carrier.carry(shard, task_ids, strays_only=True)
            look.cursor = cursor
            if cursor == _START or monotonic() > until:
                return cursor == _START

    async def _move_parked(self, shard: Shard, scopes: Sequence[str], until: float) -> bool:
        """Move what is parked; says whether that is all of it."""
        for scope in scopes:
            cursor = _START
            while True:
                cursor, task_ids = await shard.slots.parked_strays(scope, cursor, _AT_ONCE)
                await self._carrier.carry(shard, task_ids, strays_only=True)
                if cursor == _START and not task_ids:
                    break
                if monotonic() > until:
                    return False
        return True
