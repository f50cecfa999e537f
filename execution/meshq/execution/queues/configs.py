"""What is set of queues, as this instance knows it, and where that puts tasks.

A limit is counted by one shard. Where limits of a queue as a whole are set, all of its tasks live on the
shard of the queue's name, its home; it is away from the others. Tasks with a limit key live on the shard of
the key's slot, all others on the shard of the moment in which they were created.

A queue that has once had limits as a whole lives at its home whenever it has limits of any kind. So its keys
go on to be counted there when it loses the limits as a whole. When it gets them, its home is told what other
shards have leased of each key (homes.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from meshq.contract.errors import MeshqError
from meshq.execution.model import QueueItem, ShardQueueConfig, scope_of
from meshq.execution.ring import slots
from meshq.execution.ring.hashring import key_of_id
from meshq.mesh.telemetry import logger

_log = logger(__name__)


class Configured(NamedTuple):
    """The settings of one queue, for shards and as they are kept."""

    tenant: str
    queue: str
    config: ShardQueueConfig
    encoded: bytes


class Store(Protocol):
    """Where settings are kept."""

    async def store(self, rows: Sequence[tuple[str, str, int, bytes, bool]]) -> list[tuple[str, str]]:
        """Keep settings (tenant, queue, version, encoded, whether it is homed), unless later ones are kept.

        Returns:
            Those of the queues that are homed: they have had limits as a whole.
        """

    async def load(self) -> list[tuple[bytes, bool]]:
        """All settings, encoded, and whether their queues are homed."""


class QueueConfigs:
    """See the module.

    Args:
        store: The database.
        decode: Reads settings.
    """

    def __init__(self, store: Store, decode: Callable[[bytes], Configured]) -> None:
        self._store = store
        self._decode = decode
        self._configs: dict[str, ShardQueueConfig] = {}
        self._homed: set[str] = set()
        self._wide: set[str] = set()
        self._unstored: dict[str, Configured] = {}

    async def start(self) -> None:
        """Load what is kept; raises `MeshqError` when the database does not answer."""
        await self.reload()

    async def stop(self) -> None:
        """Nothing has to end."""

    async def reload(self) -> list[str]:
        """Read what other instances have kept; returns the queues (`tenant/queue`) that have changed."""
        loaded = [(self._decode(encoded), homed) for encoded, homed in await self._store.load()]
        changed = self._note_homed(item.config.scope for item, homed in loaded if homed)
        return sorted({*changed, *self._take([item for item, _ in loaded])})

    async def take(self, configured: Sequence[Configured]) -> list[str]:
        """Keep settings. Returns the queues (`tenant/queue`) that have changed."""
        changed = set(self._take(configured))
        self._unstored |= {item.config.scope: item for item in configured if item.config.scope in changed}
        await self.store_waiting()
        return sorted(changed)

    async def store_waiting(self) -> bool:
        """Write what could not be written before; says whether everything is."""
        waiting = list(self._unstored.values())
        if not waiting:
            return True
        try:
            homed = await self._store.store([self._row(item) for item in waiting])
        except MeshqError as error:
            _log.warning("settings of queues not kept yet", count=len(waiting), reason=error.message)
            return False
        self._note_homed(f"{tenant}/{queue}" for tenant, queue in homed)
        for item in waiting:
            if self._unstored.get(item.config.scope) is item:
                del self._unstored[item.config.scope]
        return True

    def get(self, scope: str) -> ShardQueueConfig | None:
        """What is set of a queue (`tenant/queue`)."""
        return self._configs.get(scope)

    def all(self) -> Iterable[ShardQueueConfig]:
        """What is set of any queue."""
        return self._configs.values()

    def wide(self) -> list[str]:
        """The queues that live at their homes."""
        return list(self._wide)

    def is_wide(self, scope: str) -> bool:
        """Whether a queue lives at its home: it has limits as a whole, or has had them and has others now."""
        return scope in self._wide

    def is_spread(self, scope: str) -> bool:
        """Whether a queue has limits per key that are counted by the shards of the keys."""
        config = self._configs.get(scope)
        return config is not None and config.keyed and scope not in self._wide

    def routing_key(self, item: QueueItem) -> bytes:
        """What the ring hashes to find a task's shard."""
        if not self._wide and item.traits is None:
            return key_of_id(item.task_id)
        scope = scope_of(item.lane)
        if scope in self._wide:
            return scope.encode()
        if item.traits is not None and item.traits.limit_key:
            return slots.routing_key(scope, item.traits.limit_key)
        return key_of_id(item.task_id)

    def _take(self, configured: Iterable[Configured]) -> list[str]:
        changed = []
        for item in configured:
            known = self._configs.get(item.config.scope)
            if known is None or known.version < item.config.version:
                self._configs[item.config.scope] = item.config
                changed.append(item.config.scope)
            if item.config.max_running or item.config.rate.units:
                self._homed.add(item.config.scope)
            self._place(item.config.scope)
        return changed

    def _note_homed(self, scopes: Iterable[str]) -> list[str]:
        """These queues have had limits as a whole; returns those of which that was not known."""
        new = [scope for scope in scopes if scope not in self._homed]
        self._homed.update(new)
        for scope in new:
            self._place(scope)
        return new

    def _place(self, scope: str) -> None:
        config = self._configs.get(scope)
        if config is not None and config.limited and scope in self._homed:
            self._wide.add(scope)
        else:
            self._wide.discard(scope)

    def _row(self, item: Configured) -> tuple[str, str, int, bytes, bool]:
        homed = item.config.scope in self._homed
        return item.tenant, item.queue, item.config.version, item.encoded, homed
