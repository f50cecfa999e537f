"""Follows the versions of the ring: they are rows of the execution database, announced in etcd.

A wiped etcd loses nothing: whoever finds the announcement missing or older writes it back. Without etcd the
database is looked at every half minute.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Protocol

from meshq.contract.errors import MeshqError
from meshq.execution.ring.hashring import Ring, RingShard
from meshq.execution.ring.shards import Shards
from meshq.mesh.lifecycle import Repeater, cancelled
from meshq.mesh.telemetry import logger

_log = logger(__name__)

ANNOUNCED_AT: Final = "meshq-ring/current"
_PREFIX: Final = "meshq-ring/"
"""Outside of `meshq.`, below which the registry finds the processes of the mesh."""
_LOOK_SECONDS: Final = 30.0


class RingStore(Protocol):
    """Where the versions are."""

    async def load_ring(self) -> Ring:
        """The current version; version 0 without shards when there is none."""

    async def ensure_shards(self, shards: Sequence[RingShard]) -> Ring:
        """Make a new version when shards that were never there are missing, or some have changed."""


class Etcd(Protocol):
    """What is used of the kit's client."""

    async def get(self, key: str) -> Any:
        """The entry of a key, or None."""

    async def put(self, key: str, value: bytes) -> int:
        """Write a key."""

    def watch(self, prefix: str) -> AsyncIterator[Any]:
        """Yield something at the start and after each change."""


class RingFollower:
    """See the module.

    Args:
        store: The database.
        etcd: Where versions are announced.
        shards: Gets each new version.
        wanted: The shards of the settings, made sure of at the start.
    """

    def __init__(self, store: RingStore, etcd: Etcd, shards: Shards, wanted: Sequence[RingShard]) -> None:
        self._store = store
        self._etcd = etcd
        self._shards = shards
        self._wanted = wanted
        self._repeater = Repeater("ring", self.run_once, _LOOK_SECONDS)
        self._watch: asyncio.Task[None] | None = None
        self._catching_up: asyncio.Task[None] | None = None
        shards.on_outdated = self._repeater.wake
        shards.catch_up = self.catch_up

    async def start(self) -> None:
        """Load the ring; raises `MeshqError` when the database does not answer."""
        if self._watch is not None:
            return
        if self._wanted:
            await self._store.ensure_shards(self._wanted)
        await self._shards.use(await self._store.load_ring())
        await self._repeater.start()
        self._watch = asyncio.create_task(self._follow(), name="ring announcements")

    async def stop(self) -> None:
        """Follow no longer."""
        watch, self._watch = self._watch, None
        if watch is not None:
            await cancelled(watch)
        await self._repeater.stop()
        if self._catching_up is not None:
            await cancelled(self._catching_up)

    async def run_once(self) -> None:
        """Load the ring from the database and see that etcd announces it."""
        ring = await self._store.load_ring()
        await self._shards.use(ring)
        try:
            await self._announce(ring)
        except MeshqError as error:
            _log.debug("ring not announced", reason=error.message)

    async def catch_up(self) -> None:
        """Use the current version; whoever asks meanwhile waits for the same."""
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self._load(), name="ring catching up")
        await asyncio.shield(self._catching_up)

    async def _load(self) -> None:
        try:
            await self._shards.use(await self._store.load_ring())
        except MeshqError as error:
            _log.debug("ring not loaded", reason=error.message)

    async def _announce(self, ring: Ring) -> None:
        entry = await self._etcd.get(ANNOUNCED_AT)
        if ring.version and (entry is None or announced_version(entry.value) < ring.version):
            await self._etcd.put(ANNOUNCED_AT, announcement(ring))

    async def _follow(self) -> None:
        """Any change below the prefix is a reason to look: etcd is a bell here, not a source."""
        async for _ in self._etcd.watch(_PREFIX):
            self._repeater.wake()


def announcement(ring: Ring) -> bytes:
    """The ring as etcd shows it, for people and for other programs."""
    shards = [
        {
            "name": shard.name,
            "address": shard.address,
            "weight": shard.weight,
            "draining": shard.draining,
            "out": shard.out,
        }
        for shard in ring.shards
    ]
    return json.dumps({"version": ring.version, "shards": shards}).encode()


def announced_version(value: bytes) -> int:
    """The version that an announcement names; 0 when it cannot be read."""
    try:
        return int(json.loads(value)["version"])
    except (ValueError, KeyError, TypeError):
        return 0
