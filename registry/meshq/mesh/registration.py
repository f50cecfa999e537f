"""How a process announces itself: one key in etcd, on a lease.

The key is `<component>/<instance id>`, such as `meshq.management/management-1f2e3d4c`; the value is
the JSON of etcd's gRPC naming convention, so that programs in other languages find a component with
etcd's own resolver:

    {"Op": 0, "Addr": "127.0.0.1:7401", "Metadata": {"services": ["meshq.v1.TaskService"], ...}}

A DELETE event in etcd does not say whether somebody deleted the key or its lease ended. So a process
that stops in order first writes the value with `"Op": 1` (in etcd's convention: "deleted"), then
deletes the key. Whoever watches sees the goodbye; a key that vanishes without one was lost.

The key is written again whenever it is missing: the lease ended, etcd came back empty, or somebody
deleted it. A watch of the key tells of that at once, so that it is not read with each renewal. Nothing
waits for etcd: a process starts and serves without it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from meshq.contract.errors import MeshqError
from meshq.mesh.etcd import Changes, Deleted, Entry, EtcdClient, Listing
from meshq.mesh.lifecycle import backoff, cancelled
from meshq.mesh.telemetry import logger

_log = logger(__name__)

PREFIX: Final = "meshq."
"""What the keys of all registrations begin with."""

_ADD: Final = 0
_GOODBYE: Final = 1
_MAX_BACKOFF: Final = 2.0
_GOODBYE_SECONDS: Final = 2.0
_RENEWALS_PER_LEASE: Final = 3


@dataclass(frozen=True)
class Announcement:
    """What a process says about itself.

    Attributes:
        address: Where it serves gRPC, as `host:port`.
        metadata: JSON values: services, zone, version, weight, addresses for operators, start time.
        goodbye: Whether it is about to stop.
    """

    component: str
    instance_id: str
    address: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    goodbye: bool = False

    @property
    def key(self) -> str:
        """The key in etcd."""
        return f"{self.component}/{self.instance_id}"

    def encode(self, *, goodbye: bool = False) -> bytes:
        """The value in etcd."""
        operation = _GOODBYE if goodbye else _ADD
        value = {"Op": operation, "Addr": self.address, "Metadata": dict(self.metadata)}
        return json.dumps(value, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, key: str, value: bytes) -> Announcement | None:
        """What a key and its value say; None when they are no announcement."""
        component, separator, instance_id = key.partition("/")
        try:
            content = json.loads(value)
            address, operation = content["Addr"], content.get("Op", _ADD)
            metadata = content.get("Metadata") or {}
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        if not (separator and instance_id and isinstance(address, str) and isinstance(metadata, dict)):
            return None
        return cls(component, instance_id, address, metadata, goodbye=operation == _GOODBYE)


class Registration:
    """Keeps an announcement in etcd while it runs.

    Args:
        lease_seconds: How long the key outlives the process.
    """

    def __init__(self, etcd: EtcdClient, announcement: Announcement, lease_seconds: int) -> None:
        self._etcd = etcd
        self._announcement = announcement
        self._lease_seconds = lease_seconds
        self._lease = 0
        self._failures = 0
        self._doubted = True
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Register in the background, for as long as it takes."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="registration")
            self._watch = asyncio.create_task(self._follow(), name="watch of the registration")

    def say(self, facts: Mapping[str, Any]) -> None:
        """Announce something else as well from now on, in the metadata."""
        metadata = {**self._announcement.metadata, **facts}
        self._announcement = replace(self._announcement, metadata=metadata)
        self._doubt()

    async def stop(self) -> None:
        """Say goodbye and delete the key; gives up after two seconds, then the lease ends by itself."""
        task, self._task = self._task, None
        watch, self._watch = self._watch, None
        if task is None or watch is None:
            return
        await cancelled(watch)
        await cancelled(task)
        if self._lease:
            with suppress(MeshqError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_SECONDS):
                    await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        key = self._announcement.key
        lease, self._lease = self._lease, 0
        await self._etcd.put(key, self._announcement.encode(goodbye=True), lease)
        await self._etcd.delete(key)
        await self._etcd.revoke(lease)

    async def _run(self) -> None:
        while True:
            try:
                await self._renew()
                self._failures = 0
                pause = self._lease_seconds / _RENEWALS_PER_LEASE
            except MeshqError as error:
                self._doubted = True
                self._failures += 1
                if self._failures == 1:
                    _log.warning("cannot register; trying on", reason=error.message)
                pause = backoff(self._failures, most=_MAX_BACKOFF)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    async def _renew(self) -> None:
        """Renew the lease; where it or the key is gone, or says something else, begin anew."""
        self._changed.clear()
        if self._lease and await self._etcd.keep_alive(self._lease):
            if not self._doubted:
                return
            self._doubted = False
            if self._is_announced(await self._etcd.get(self._announcement.key)):
                return
        else:
            self._lease = await self._etcd.grant(self._lease_seconds)
            self._doubted = False
        await self._etcd.put(self._announcement.key, self._announcement.encode(), self._lease)
        _log.info("registered", key=self._announcement.key, address=self._announcement.address)

    async def _follow(self) -> None:
        async for update in self._etcd.watch(self._announcement.key):
            if self._lease and not self._is_announced(_latest(update, self._announcement.key)):
                self._doubt()

    def _doubt(self) -> None:
        """The key may be gone, or say something else than it is to say: look at once."""
        self._doubted = True
        self._changed.set()

    def _is_announced(self, entry: Entry | None) -> bool:
        return entry is not None and entry.lease == self._lease and entry.value == self._announcement.encode()


def _latest(update: Listing | Changes, key: str) -> Entry | None:
    """What a key says after an update of its watch, which tells of longer keys as well."""
    if isinstance(update, Listing):
        return next((entry for entry in update.entries if entry.key == key), None)
    for event in reversed(update.events):
        if isinstance(event, Deleted):
            if event.key == key:
                return None
        elif event.entry.key == key:
            return event.entry
    return None
