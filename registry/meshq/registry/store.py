"""Keeps the directory as etcd has it, and probes what etcd has lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from meshq.mesh.etcd import Changes, Deleted, EtcdClient, Listing
from meshq.mesh.lifecycle import Repeater, cancelled
from meshq.mesh.registration import PREFIX, Announcement
from meshq.mesh.telemetry import logger
from meshq.registry.directory import Directory, Instance

_log = logger(__name__)

_PROBE_INTERVAL = 1.0
_FAILURES_TO_DROP = 2


class InstanceStore:
    """Feeds a directory from etcd.

    Args:
        directory: What is fed.
        probe: Whether an instance answers its health check.
        changed: Called after each change of the directory.

    Attributes:
        listed: Set when etcd was listed for the first time: before, the directory knows nothing.
    """

    def __init__(
        self,
        etcd: EtcdClient,
        directory: Directory,
        probe: Callable[[Instance], Awaitable[bool]],
        changed: Callable[[], None],
    ) -> None:
        self.listed = asyncio.Event()
        self._etcd = etcd
        self._directory = directory
        self._probe = probe
        self._changed = changed
        self._failures: dict[str, int] = {}
        self._prober = Repeater("probe of stale instances", self.probe_stale, _PROBE_INTERVAL)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow etcd; does not wait for it."""
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name="instances in etcd")
            await self._prober.start()

    async def stop(self) -> None:
        """Follow no longer."""
        task, self._task = self._task, None
        if task is not None:
            await cancelled(task)
            await self._prober.stop()

    async def _follow(self) -> None:
        async for update in self._etcd.watch(PREFIX):
            before = self._directory.sequence
            if isinstance(update, Listing):
                self._take_all(update)
            else:
                self._take(update)
            if not self.listed.is_set() or self._directory.sequence != before:
                self.listed.set()
                self._changed()
            if self._directory.stale():
                self._prober.wake()

    def _take_all(self, listing: Listing) -> None:
        decoded = [_decoded(entry.key, entry.value) for entry in listing.entries]
        self._directory.replace_all([item for item in decoded if item is not None], monotonic())

    def _take(self, changes: Changes) -> None:
        for event in changes.events:
            if isinstance(event, Deleted):
                self._take_deleted(event)
            elif (announcement := _decoded(event.entry.key, event.entry.value)) is not None:
                self._directory.put(announcement)

    def _take_deleted(self, event: Deleted) -> None:
        last = Announcement.decode(event.key, event.previous)
        if last is not None and last.goodbye:
            self._directory.drop(event.key)
        else:
            self._directory.remove(event.key, monotonic())

    async def probe_stale(self) -> None:
        """Ask each stale instance once whether it is there; drop those that failed twice in a row."""
        stale = self._directory.stale()
        before = self._directory.sequence
        answers = await asyncio.gather(*(self._probe(item) for item in stale))
        failures = {
            item.key: self._failures.get(item.key, 0) + 1
            for item, answered in zip(stale, answers, strict=True)
            if not answered
        }
        # What registered again in the meantime is no business of the probe any more.
        still_stale = {item.key for item in self._directory.stale()}
        for key, count in failures.items():
            if count >= _FAILURES_TO_DROP and key in still_stale:
                _log.warning("instance is gone", key=key)
                self._directory.drop(key)
        self._failures = failures
        self._directory.expire(monotonic())
        if self._directory.sequence != before:
            self._changed()


def _decoded(key: str, value: bytes) -> Announcement | None:
    announcement = Announcement.decode(key, value)
    if announcement is None:
        _log.warning("no registration", key=key[:256])
    return announcement
