"""Moves what waits on draining shards to where the ring says.

What workers have ends where it is, and what is to be tried again then is moved. All instances look; on each
shard one of them moves.
"""

from __future__ import annotations

from typing import Final

from meshq.execution.ring.carrier import Carrier, NotNow
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shard import Shard, ShardState
from meshq.execution.ring.shards import Shards
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_LOOK_SECONDS: Final = 1.0
_START: Final = b"0"


class Mover:
    """See the module.

    Args:
        shards: The shards.
        carrier: Carries tasks where they belong.
    """

    def __init__(self, shards: Shards, carrier: Carrier) -> None:
        self._shards = shards
        self._carrier = carrier
        self._repeater = Repeater("mover", self.run_once, _LOOK_SECONDS)
        self.start = self._repeater.start

    async def stop(self) -> None:
        """Take no more tasks off their shards, and return when those that were taken are queued."""
        await self._repeater.stop()
        await self._carrier.stop()

    async def run_once(self) -> None:
        """Move what can be moved now."""
        for shard in self._shards.usable():
            if not shard.member.draining or shard.state is not ShardState.OPEN:
                continue
            try:
                await self._empty(shard)
            except NotNow:
                continue
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
            await self._carrier.carry(shard, task_ids)
            if cursor == _START:
                return

    def _may_move(self) -> bool:
        """Whether all shards that take tasks can do so: else some would be taken off in vain."""
        taking = [shard for shard in self._shards.all() if shard.member.takes]
        return all(shard.state is ShardState.OPEN and not shard.full for shard in taking)
