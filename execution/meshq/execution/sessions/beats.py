"""Signs of life of handlers whose tasks have a heartbeat_timeout, gathered for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.execution.model import Lease
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shards import Shards
from meshq.mesh.lifecycle import Repeater

_GATHER_SECONDS: Final = 0.02
_IDLE_SECONDS: Final = 3_600.0


class Beats:
    """See the module.

    Args:
        shards: Where deadlines are moved.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._waiting: dict[str, dict[Lease, None]] = {}
        self._repeater = Repeater("beats", self.run_once, _IDLE_SECONDS)

    async def start(self) -> None:
        """Begin to pass on."""
        await self._repeater.start()

    async def stop(self) -> None:
        """Pass on no more."""
        await self._repeater.stop()

    def add(self, leases: Iterable[Lease]) -> None:
        """The handlers of these leases live."""
        if not self._waiting:
            self._repeater.wake()
        for lease in leases:
            self._waiting.setdefault(lease.shard, {})[lease] = None

    async def run_once(self) -> None:
        """Pass on what has gathered."""
        while self._waiting:
            await asyncio.sleep(_GATHER_SECONDS)
            waiting, self._waiting = self._waiting, {}
            await asyncio.gather(*(self._beat(name, list(leases)) for name, leases in waiting.items()))

    async def _beat(self, name: str, leases: list[Lease]) -> None:
        shard = self._shards.get(name)
        if shard is None:
            return
        for at in range(0, len(leases), MAX_FRAME_ITEMS):
            try:
                await shard.beat(leases[at : at + MAX_FRAME_ITEMS])
            except ShardError:
                # The deadlines go with the shard, or the next beat comes in time.
                return
