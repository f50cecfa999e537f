"""The settings of queues for execution: what dispatch has to go by.

Every instance of execution is told everything when it is met, and each change from then on. What it has
not confirmed for all shards is told again until it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import grpc

from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.internal.v1 import dispatch_service_pb2_grpc
from meshq.management.conversion.queues import configure_request
from meshq.management.queues.book import QueueBook
from meshq.management.queues.store import QueueChange, QueueKey
from meshq.management.stubs.fleet import Fleet
from meshq.mesh.lifecycle import backoff

_TIMEOUT: Final = 5.0


class ConfigureLink:
    """See `meshq.management.stubs.fleet.Link`.

    Args:
        channel: To the instance.
        book: What is to be told.
    """

    def __init__(self, channel: grpc.aio.Channel, book: QueueBook) -> None:
        self._stub = dispatch_service_pb2_grpc.DispatchServiceStub(channel)
        self._book = book
        self._seen = 0
        self._untold: dict[QueueKey, QueueChange] = {}
        self._sending = asyncio.Lock()
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """There is something new in the book."""
        self._changed.set()

    def met(self) -> None:
        """The instance is a new one, as far as one can tell: it is told everything."""
        self._seen = 0
        self._changed.set()

    async def run(self) -> None:
        """Tell what there is to tell, again and again until it is in force, until the instance is lost."""
        self.met()
        failures = 0
        while True:
            self._changed.clear()
            await self._tell()
            if self._untold:
                failures += 1
                await asyncio.sleep(backoff(failures))
            else:
                failures = 0
                await self._changed.wait()

    async def retire(self) -> None:
        """Nothing is under way."""

    async def told(self, key: QueueKey) -> bool:
        """Tell what there is to tell now; whether it is in force for a queue."""
        try:
            await self._tell()
        except grpc.RpcError:
            return False
        return key not in self._untold

    async def _tell(self) -> None:
        async with self._sending:
            changes = [change for change in self._book.behind(self._seen) if change.configured]
            self._untold |= {change.key: change for change in changes}
            self._seen = self._book.version
            untold = list(self._untold.values())
            for start in range(0, len(untold), MAX_FRAME_ITEMS):
                await self._send(untold[start : start + MAX_FRAME_ITEMS])

    async def _send(self, page: Sequence[QueueChange]) -> None:
        response = await self._stub.ConfigureQueues(configure_request(page), timeout=_TIMEOUT)
        if response.complete:
            for change in page:
                del self._untold[change.key]


class Configurer:
    """Has execution go by the book.

    Args:
        book: The settings.
        fleet: The instances.
    """

    def __init__(self, book: QueueBook, fleet: Fleet[ConfigureLink]) -> None:
        self._book = book
        self._fleet = fleet
        book.on_changed(self._changed)

    async def enforce(self, key: QueueKey) -> bool:
        """See `meshq.management.queues.changes.Enforcer`."""
        entry = self._book.entry(key)
        if entry is None or not entry.configured:
            return True
        told = await asyncio.gather(*(link.told(key) for link in self._fleet.links()))
        # An instance that nobody here has met goes by what another one was told, hence one at least.
        return bool(told) and all(told)

    def met(self) -> None:
        """An instance was met, perhaps one that has forgotten what it was told: tell it everything again."""
        for link in self._fleet.links():
            link.met()

    def _changed(self, changes: Sequence[QueueChange]) -> None:
        del changes
        for link in self._fleet.links():
            link.changed()
