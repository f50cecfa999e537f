"""Acknowledged deliveries, gathered for a while so that one script call notes many, and most of none at all.

A delivery has seconds to be acknowledged, so a fraction of that does not matter, and a task that ends within
it is never written down as received. When a session is over nothing waits: its deliveries are noted at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.execution.model import Lease
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shards import Shards
from meshq.execution.sessions.session import Session
from meshq.mesh.lifecycle import Repeater

_GATHER_SECONDS: Final = 0.5
_SHARE: Final = 0.1
"""Of the time that a delivery has."""
_FLUSH_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 3_600.0

Receipt = tuple[Session, bytes, Lease]


class Receipts:
    """See the module.

    Args:
        shards: Where they are noted.
        patience: Seconds that a delivery has to be acknowledged.
    """

    def __init__(self, shards: Shards, patience: float) -> None:
        self._shards = shards
        self._seconds = min(_GATHER_SECONDS, patience * _SHARE)
        self._waiting: dict[str, list[Receipt]] = {}
        self._repeater = Repeater("receipts", self.run_once, _IDLE_SECONDS)

    async def start(self) -> None:
        """Begin to note."""
        await self._repeater.start()

    async def stop(self) -> None:
        """Note no more."""
        await self._repeater.stop()

    def add(self, session: Session, receipts: Iterable[tuple[bytes, Lease]]) -> None:
        """The worker of a session has acknowledged deliveries (token, lease)."""
        if not self._waiting:
            self._repeater.wake()
        for token, lease in receipts:
            self._waiting.setdefault(lease.shard, []).append((session, token, lease))

    async def flush(self) -> None:
        """Note what has gathered at once: a worker leaves, and what it got must count as received.

        A shard that does not answer holds up nobody for long.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self._note_all()

    async def run_once(self) -> None:
        """Note what has gathered."""
        while self._waiting:
            await asyncio.sleep(self._seconds)
            await self._note_all()

    async def _note_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        await asyncio.gather(*(self._note(name, receipts) for name, receipts in waiting.items()))

    async def _note(self, name: str, receipts: list[Receipt]) -> None:
        shard = self._shards.get(name)
        open_ones = [receipt for receipt in receipts if receipt[1] in receipt[0].leases]
        if shard is None:
            return
        for at in range(0, len(open_ones), MAX_FRAME_ITEMS):
            part = open_ones[at : at + MAX_FRAME_ITEMS]
            try:
                lost = await shard.received([(lease, session.id) for session, _, lease in part])
            except ShardError:
                # The delivery may be made again; the first recorded end of the attempt wins.
                continue
            for index in lost:
                session, token, _ = part[index]
                session.lose([token])
