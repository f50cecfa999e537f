"""The settings of all queues, in memory.

They are read when the instance starts, again when another instance says that some have changed, and
every half minute anyway. What nobody has set anything of is not in the book.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Final

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.management.model.queues import UNSET, QueueSettings
from meshq.management.queues.store import Changes, QueueChange, QueueKey
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_REREAD_SECONDS: Final = 30.0


class QueueBook:
    """See the module.

    Args:
        store: Where the settings are.

    Attributes:
        version: Of the last change that the book has.
    """

    def __init__(self, store: Changes) -> None:
        self._store = store
        self._entries: dict[QueueKey, QueueChange] = {}
        self._settings: dict[QueueKey, QueueSettings] = {}
        self._bounded: set[QueueKey] = set()
        self._listeners: list[Callable[[Sequence[QueueChange]], None]] = []
        self._reading = asyncio.Lock()
        self._repeater = Repeater("settings of queues", self._reread, _REREAD_SECONDS)
        self.version = 0
        self.wake = self._repeater.wake
        self.stop = self._repeater.stop

    async def start(self) -> None:
        """Read everything, then follow the changes.

        Raises:
            MeshqError: The ledger does not answer.
        """
        await self.refresh()
        await self._repeater.start()

    def settings(self, tenant: str, queue: str) -> QueueSettings:
        """What a queue is set to."""
        return self._settings.get((tenant, queue), UNSET)

    @property
    def bounded(self) -> frozenset[QueueKey]:
        """The queues that take only so many open tasks."""
        return frozenset(self._bounded)

    def entry(self, key: QueueKey) -> QueueChange | None:
        """What the book has of a queue; None where nothing was ever set."""
        return self._entries.get(key)

    def behind(self, version: int) -> list[QueueChange]:
        """The changes behind a version, in their order; of each queue the latest only."""
        found = list(
            takewhile(lambda change: change.settings.version > version, reversed(self._entries.values()))
        )
        return found[::-1]

    def retentions(self) -> set[int]:
        """For how many days the queues keep their ended tasks."""
        return {UNSET.retention_days, *(settings.retention_days for settings in self._settings.values())}

    def on_changed(self, listener: Callable[[Sequence[QueueChange]], None]) -> None:
        """Call back after changes, with what they led to."""
        self._listeners.append(listener)

    async def refresh(self) -> None:
        """Read what has changed; afterwards the book is no older than this call.

        Raises:
            MeshqError: The ledger does not answer.
        """
        async with self._reading:
            while changes := await self._store.changes(self.version, MAX_FRAME_ITEMS):
                self._take(changes)

    async def _reread(self) -> None:
        try:
            await self.refresh()
        except MeshqError as error:
            _log.info("settings of queues not read", reason=error.message)

    def _take(self, changes: Sequence[QueueChange]) -> None:
        for change in changes:
            # Taken out first: the entries stay in the order of their versions.
            self._entries.pop(change.key, None)
            self._entries[change.key] = change
            if change.deleted:
                self._settings.pop(change.key, None)
            else:
                self._settings[change.key] = change.settings
            if change.settings.max_open_tasks:
                self._bounded.add(change.key)
            else:
                self._bounded.discard(change.key)
        self.version = changes[-1].settings.version
        for listener in self._listeners:
            listener(changes)
