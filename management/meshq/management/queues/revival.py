"""Queues that come into being again.

An instance names a queue in the ledger with the first task that it stores in it, and remembers that. When
the queue is deleted elsewhere it hears of it a moment later: a task that was stored in that moment is in a
queue without a name. Its counters show that, so that after a deletion they are looked at for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from meshq.contract.errors import MeshqError
from meshq.management.queues.book import QueueBook
from meshq.management.queues.store import QueueChange, QueueKey, QueueStore
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_LOOK_SECONDS: Final = 5.0
_WATCHED_SECONDS: Final = 60.0


class Revival:
    """See the module.

    Args:
        store: Where the queues are.
        book: Says what was deleted.
        forget: Has this instance name queues again with their next task.
        now_ms: The clock.
    """

    def __init__(
        self,
        store: QueueStore,
        book: QueueBook,
        forget: Callable[[Sequence[QueueKey]], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._forget = forget
        self._now_ms = now_ms
        self._deleted: dict[QueueKey, float] = {}
        self._repeater = Repeater("deleted queues", self.run_once, _LOOK_SECONDS)
        self.start = self._repeater.start
        self.stop = self._repeater.stop
        book.on_changed(self._changed)

    async def run_once(self) -> None:
        """Name those queues again that have tasks."""
        if not self._deleted:
            return
        looked = monotonic()
        try:
            await self._store.revive(list(self._deleted), self._now_ms())
        except MeshqError as error:
            _log.info("deleted queues not looked at", reason=error.message)
            return
        self._deleted = {
            key: since for key, since in self._deleted.items() if looked - since < _WATCHED_SECONDS
        }

    def _changed(self, changes: Sequence[QueueChange]) -> None:
        deleted = [change.key for change in changes if change.deleted]
        if deleted:
            self._forget(deleted)
            self._deleted.update(dict.fromkeys(deleted, monotonic()))
            self._repeater.wake()
