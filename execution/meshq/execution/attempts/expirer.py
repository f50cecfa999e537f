"""Does what time asks for on each shard, and closes the leases whose workers have vanished.

A received lease that ends is closed by recording LOST for its attempt. Only if that insert wins may there
be another attempt; if it loses, the recorded end is reported again. The shard hands a lease out again when
nobody has closed it within `CLOSING_MS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import time
from typing import Final

from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.execution.attempts.recorder import Recorder
from meshq.execution.model import Closing, Ended, Lease
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shards import Shards
from meshq.mesh.lifecycle import Repeater

CLOSING_MS: Final = 10_000
_SAFETY_SECONDS: Final = 2.0
_BREATH_SECONDS: Final = 0.05
_SOON_SECONDS: Final = 0.002

Lost = Callable[[Lease, str, int], Ended]
"""Makes the end of a lost attempt: lease, worker, end in milliseconds."""


class Expirer:
    """See the module.

    Args:
        shards: The shards.
        recorder: Records the ends.
        lost: Makes them.
    """

    def __init__(self, shards: Shards, recorder: Recorder, lost: Lost) -> None:
        self._shards = shards
        self._recorder = recorder
        self._lost = lost
        self._next = 0.0
        self._repeater = Repeater("expiry", self.run_once, _SAFETY_SECONDS)
        self._timer: asyncio.TimerHandle | None = None
        shards.on_due = self._due

    async def start(self) -> None:
        """Begin to look."""
        await self._repeater.start()

    async def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        await self._repeater.stop()

    def wake(self) -> None:
        """Look at once, because something has just ended."""
        self._repeater.wake()

    async def run_once(self) -> float:
        """Look at all shards; returns the seconds until the next look."""
        shards = self._shards.usable()
        dues = await asyncio.gather(*(self._expire(shard.name) for shard in shards))
        pause = min([_SAFETY_SECONDS, *(max(due, _BREATH_SECONDS) if due else 0.0 for due in dues)])
        self._next = asyncio.get_running_loop().time() + pause
        return pause

    async def _expire(self, name: str) -> float:
        shard = self._shards.get(name)
        if shard is None:
            return _SAFETY_SECONDS
        try:
            due, closing = await shard.expire(CLOSING_MS)
        except ShardError:
            return _SAFETY_SECONDS
        if closing:
            self._close(closing)
        return _SAFETY_SECONDS if due is None else due

    def _close(self, closing: list[Closing]) -> None:
        now_ms = int(time() * 1000)
        rows = [self._lost(lease, worker_id, now_ms) for lease, worker_id in closing]
        for at in range(0, len(rows), MAX_FRAME_ITEMS):
            self._recorder.submit(rows[at : at + MAX_FRAME_ITEMS], lambda _: None)

    def _due(self, _shard: str, milliseconds: int) -> None:
        """A delayed task will be due sooner than the next look, perhaps: look then."""
        loop = asyncio.get_running_loop()
        at = loop.time() + milliseconds / 1000 + _SOON_SECONDS
        if at < self._next:
            self._next = at
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(at, self._repeater.wake)
