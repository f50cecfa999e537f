"""The settings of all queues, in memory.

They are read when the instance starts, again when another instance says that some have changed, and
every half minute anyway. What nobody has set anything of is not in the book.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.management.model.queues import UNSET, QueueSettings
from meshq.management.queues.store import Codec, QueueChange, QueueKey, QueueStore
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_REREAD_SECONDS: Final = 30.0


class Entry(NamedTuple):
    """A queue of which something was set.

    Attributes:
        configured: Whether execution has to know of it.
        deleted: Whether the queue is gone; its settings are the default ones then.
    """

    tenant: str
    name: str
    settings: QueueSettings
    configured: bool
    deleted: bool


class QueueBook:
    """See the module.

    Args:
        store: Where the settings are.
        codec: How they are stored.
    """

    def __init__(self, store: QueueStore, codec: Codec) -> None:
        self._store = store
        self._codec = codec
        self._entries: dict[QueueKey, Entry] = {}
        self._settings: dict[QueueKey, QueueSettings] = {}
        self._listeners: list[Callable[[Sequence[Entry]], None]] = []
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

    def entries(self) -> list[Entry]:
        """All queues of which something was set, in the order of their changes."""
        return list(self._entries.values())

    def retentions(self) -> set[int]:
        """For how many days the queues keep their ended tasks."""
        return {UNSET.retention_days, *(settings.retention_days for settings in self._settings.values())}

    def on_changed(self, listener: Callable[[Sequence[Entry]], None]) -> None:
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
        changed = [self._entry(change) for change in changes]
        for entry in changed:
            key = entry.tenant, entry.name
            # Taken out first: the entries stay in the order of their versions.
            self._entries.pop(key, None)
            self._entries[key] = entry
            if entry.deleted:
                self._settings.pop(key, None)
            else:
                self._settings[key] = entry.settings
        self.version = changes[-1].version
        for listener in self._listeners:
            listener(changed)

    def _entry(self, change: QueueChange) -> Entry:
        settings = UNSET if change.settings is None else self._codec.decode(change.settings)
        settings = settings._replace(version=change.version, update_ms=change.update_ms)
        return Entry(change.tenant, change.name, settings, change.configured, change.deleted)
