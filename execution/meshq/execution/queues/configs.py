"""What is set of queues, as this instance knows it, and where that puts tasks.

A limit is counted by one shard. Where limits of a queue as a whole are set, all of its tasks live on the
shard of the queue's name, its home; it is away from the others. Tasks with a limit key live on the shard of
queue and key, all others on the shard of their id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from meshq.contract.errors import MeshqError
from meshq.execution.model import QueueItem, ShardQueueConfig, scope_of
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

    async def store(self, rows: Sequence[tuple[str, str, int, bytes]]) -> None:
        """Keep settings (tenant, queue, version, encoded), unless later ones are kept."""

    async def load(self) -> list[bytes]:
        """All settings, encoded."""


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
        self._wide: set[str] = set()
        self._unstored: dict[str, Configured] = {}

    async def start(self) -> None:
        """Load what is kept; raises `MeshqError` when the database does not answer."""
        await self.reload()

    async def stop(self) -> None:
        """Nothing has to end."""

    async def reload(self) -> list[str]:
        """Read what other instances have kept; returns the queues (`tenant/queue`) that have changed."""
        return self._take([self._decode(encoded) for encoded in await self._store.load()])

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
            await self._store.store(
                [(item.tenant, item.queue, item.config.version, item.encoded) for item in waiting]
            )
        except MeshqError as error:
            _log.warning("settings of queues not kept yet", count=len(waiting), reason=error.message)
            return False
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
        """The queues that have limits as a whole."""
        return list(self._wide)

    def is_wide(self, scope: str) -> bool:
        """Whether a queue has limits as a whole."""
        return scope in self._wide

    def routing_key(self, item: QueueItem) -> bytes:
        """What the ring hashes to find a task's shard."""
        if not self._wide and item.traits is None:
            return item.task_id
        scope = scope_of(item.lane)
        if scope in self._wide:
            return scope.encode()
        if item.traits is not None and item.traits.limit_key:
            return f"{scope}/{item.traits.limit_key}".encode()
        return item.task_id

    def _take(self, configured: Iterable[Configured]) -> list[str]:
        changed = []
        for item in configured:
            known = self._configs.get(item.config.scope)
            if known is None or known.version < item.config.version:
                self._configs[item.config.scope] = item.config
                changed.append(item.config.scope)
                if item.config.max_running or item.config.rate.units:
                    self._wide.add(item.config.scope)
                else:
                    self._wide.discard(item.config.scope)
        return changed
