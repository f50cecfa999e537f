"""What the synchronous client does with queues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Unpack

from meshq.client import completing, operations
from meshq.client.models import Queue, QueueNews, QueueSettings, Span
from meshq.client.sync_calls import SyncCalls
from meshq.client.watching import QueuesWatch


class SyncQueues(SyncCalls):
    """The methods about queues."""

    def queues(self, *, timeout: float | None = None) -> Iterator[Queue]:
        """Iterate over the queues, by name."""
        return self._items(operations.list_queues, timeout)

    def queue(self, name: str, *, timeout: float | None = None) -> Queue:
        """Read one queue."""
        return self._perform(operations.get_queue(name), timeout)

    def create_queue(
        self, name: str, *, timeout: float | None = None, **settings: Unpack[QueueSettings]
    ) -> Queue:
        """Declare a queue with its settings: see `QueueSettings`."""
        return self._perform(operations.create_queue(name, settings), timeout)

    def update_queue(
        self,
        name: str,
        *,
        allow_missing: bool = False,
        timeout: float | None = None,
        **settings: Unpack[QueueSettings],
    ) -> Queue:
        """Change settings of a queue; those that are not given stay, and None takes one back."""
        operation = operations.update_queue(name, settings, allow_missing=allow_missing)
        return self._perform(operation, timeout)

    def delete_queue(self, name: str, *, timeout: float | None = None) -> Queue:
        """Forget a queue without open tasks, and return what it was."""
        return self._perform(operations.delete_queue(name), timeout)

    def pause_queue(
        self, name: str, reason: str = "", *, actor: str = "", timeout: float | None = None
    ) -> Queue:
        """Keep a queue's tasks from workers until it is resumed; running ones go on."""
        return self._perform(operations.pause_queue(name, reason, actor), timeout)

    def drain_queue(
        self, name: str, reason: str = "", *, actor: str = "", timeout: float | None = None
    ) -> Queue:
        """Keep new tasks from a queue until it is resumed; those it has are worked off."""
        return self._perform(operations.drain_queue(name, reason, actor), timeout)

    def resume_queue(
        self, name: str, reason: str = "", *, actor: str = "", timeout: float | None = None
    ) -> Queue:
        """End what `pause_queue` and `drain_queue` began."""
        return self._perform(operations.resume_queue(name, reason, actor), timeout)

    def purge_queue(self, name: str, reason: str = "", *, timeout: float | None = None) -> int:
        """Cancel all tasks of a queue that no worker has, and return how many; goes on until complete."""
        return self._follow(completing.purge_queue(name, reason), timeout)

    def watch_queues(
        self,
        names: Iterable[str] = (),
        *,
        interval: Span | None = None,
        timeout: float | None = None,
    ) -> Iterator[QueueNews]:
        """Iterate without end over queues: first as they stand, then those that have changed."""
        return self._watched(QueuesWatch(names, interval), timeout)
