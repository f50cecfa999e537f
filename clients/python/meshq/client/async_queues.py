"""What the asyncio client does with queues."""
# ruff: noqa: ASYNC109 - a timeout here is a gRPC deadline: it travels to the server.

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Unpack

from meshq.client import completing, operations
from meshq.client.async_calls import AsyncCalls
from meshq.client.models import Queue, QueueNews, QueueSettings, Span
from meshq.client.watching import QueuesWatch


class AsyncQueues(AsyncCalls):
    """The methods about queues."""

    def queues(self, *, timeout: float | None = None) -> AsyncIterator[Queue]:
        """Iterate over the queues, by name."""
        return self._items(operations.list_queues, timeout)

    async def queue(self, name: str, *, timeout: float | None = None) -> Queue:
        """Read one queue."""
        return await self._perform(operations.get_queue(name), timeout)

    async def create_queue(
        self, name: str, *, timeout: float | None = None, **settings: Unpack[QueueSettings]
    ) -> Queue:
        """Declare a queue with its settings: see `QueueSettings`.

        Raises:
            Conflict: With the reason QUEUE_EXISTS; update it.
        """
        return await self._perform(operations.create_queue(name, settings), timeout)

    async def update_queue(
        self,
        name: str,
        *,
        allow_missing: bool = False,
        timeout: float | None = None,
        **settings: Unpack[QueueSettings],
    ) -> Queue:
        """Change settings of a queue; those that are not given stay, and None takes one back.

        Args:
            name: The queue.
            allow_missing: Whether a queue that does not exist is declared.
            timeout: Seconds for the call, repetitions included.
            settings: What to set: see `QueueSettings`.
        """
        operation = operations.update_queue(name, settings, allow_missing=allow_missing)
        return await self._perform(operation, timeout)

    async def delete_queue(self, name: str, *, timeout: float | None = None) -> Queue:
        """Forget a queue without open tasks, and return what it was."""
        return await self._perform(operations.delete_queue(name), timeout)

    async def pause_queue(
        self, name: str, reason: str = "", *, actor: str = "", timeout: float | None = None
    ) -> Queue:
        """Keep a queue's tasks from workers until it is resumed; running ones go on.

        Args:
            name: The queue.
            reason: Why, for people.
            actor: Who asks, for people.
            timeout: Seconds for the call, repetitions included.
        """
        return await self._perform(operations.pause_queue(name, reason, actor), timeout)

    async def drain_queue(
        self, name: str, reason: str = "", *, actor: str = "", timeout: float | None = None
    ) -> Queue:
        """Keep new tasks from a queue until it is resumed; those it has are worked off."""
        return await self._perform(operations.drain_queue(name, reason, actor), timeout)

    async def resume_queue(
        self, name: str, reason: str = "", *, actor: str = "", timeout: float | None = None
    ) -> Queue:
        """End what `pause_queue` and `drain_queue` began."""
        return await self._perform(operations.resume_queue(name, reason, actor), timeout)

    async def purge_queue(self, name: str, reason: str = "", *, timeout: float | None = None) -> int:
        """Cancel all tasks of a queue that no worker has, and return how many; goes on until complete."""
        return await self._follow(completing.purge_queue(name, reason), timeout)

    def watch_queues(
        self,
        names: Iterable[str] = (),
        *,
        interval: Span | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[QueueNews]:
        """Iterate without end over queues: first as they stand, then those that have changed.

        A stream that breaks is resumed, and begins again with all of them.

        Args:
            names: Up to 100 queues; all if there are none.
            interval: Time between two looks, 0.5 to 60 s; 2 s if None.
            timeout: Seconds without any word from the server after which resuming is given up.
        """
        return self._watched(QueuesWatch(names, interval), timeout)
