"""Following queues: what has changed, once per interval.

All watchers with one interval share one reader, which looks at what any of them wants to see. While nobody
watches nothing is read. That a waiting task waits longer and longer is no change: whoever shows its age knows
since when it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from math import ceil
from typing import Final, NamedTuple

from meshq.contract.errors import MeshqError, Reason, Unavailable
from meshq.contract.limits import MAX_PAGE_SIZE, STREAM_KEEPALIVE_SECONDS
from meshq.management.queues.figures import QueueFigures, QueueView
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_STEP_SECONDS: Final = 0.5
"""Intervals are rounded up to whole steps, so that few readers serve all watchers."""


class Seen(NamedTuple):
    """What a look has shown.

    Attributes:
        views: By name.
        last: Where all are looked at and there are more than are watched: the last name, else empty.
    """

    views: Mapping[str, QueueView]
    last: str = ""


class Change(NamedTuple):
    """What a watcher is told; empty in a sign of life."""

    changed: Sequence[QueueView] = ()
    deleted: Sequence[str] = ()


class _Watcher:
    """Whoever follows queues: those of some names, or all where there are none."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self._seen: Seen | None = None
        self._woken = asyncio.Event()

    def put(self, seen: Seen) -> None:
        """There was another look; what was not read yet of the one before is in this one too."""
        self._seen = seen
        self._woken.set()

    def wake(self) -> None:
        """Look whether the instance stops."""
        self._woken.set()

    async def next(self, seconds: float) -> Seen | None:
        """The latest look, or None when there is none in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._woken.wait()
        self._woken.clear()
        seen, self._seen = self._seen, None
        return seen


class _Reader:
    """Looks once per interval for all watchers of a tenant that have this interval."""

    def __init__(self, figures: QueueFigures, tenant: str, interval: float) -> None:
        self._figures = figures
        self._tenant = tenant
        self._repeater = Repeater("watched queues", self._run_once, interval)
        self.watchers: set[_Watcher] = set()
        self.start = self._repeater.start
        self.stop = self._repeater.stop

    async def look(self, names: frozenset[str], *, everything: bool) -> Seen:
        """Look at all queues, or at some."""
        views: dict[str, QueueView] = {}
        last = ""
        if everything:
            found, more = await self._figures.page(self._tenant, "", MAX_PAGE_SIZE)
            views = {view.row.name: view for view in found}
            last = found[-1].row.name if more else ""
        missing = sorted(names - views.keys())
        for start in range(0, len(missing), MAX_PAGE_SIZE):
            found = await self._figures.named(self._tenant, missing[start : start + MAX_PAGE_SIZE])
            views |= {view.row.name: view for view in found}
        return Seen(views, last)

    async def _run_once(self) -> None:
        names = frozenset[str]().union(*(watcher.names for watcher in self.watchers))
        everything = any(not watcher.names for watcher in self.watchers)
        try:
            seen = await self.look(names, everything=everything)
        except MeshqError as error:
            _log.info("watched queues not read", reason=error.message)
            return
        for watcher in self.watchers:
            watcher.put(seen)


class QueueWatches:
    """Serves watches.

    Args:
        figures: What is looked at.
        keepalive: Seconds after which a silent watch says that it lives.

    Attributes:
        keepalive: The same.
    """

    def __init__(self, figures: QueueFigures, *, keepalive: float = STREAM_KEEPALIVE_SECONDS) -> None:
        self._figures = figures
        self.keepalive = keepalive
        self._readers: dict[tuple[str, float], _Reader] = {}
        self._draining = False

    @property
    def readers(self) -> int:
        """How many readers there are: one for each interval that somebody watches with."""
        return len(self._readers)

    def drain(self) -> None:
        """The instance stops: all watches have to go elsewhere."""
        self._draining = True
        for reader in self._readers.values():
            for watcher in reader.watchers:
                watcher.wake()

    async def watch(self, tenant: str, names: Sequence[str], interval: float) -> AsyncGenerator[Change]:
        """The queues as they stand, then what changes.

        Args:
            tenant: Whose queues.
            names: Which; none for all.
            interval: Seconds between two looks.

        Raises:
            Unavailable: The instance stops, or the ledger does not answer the first look.
        """
        self._heed_drain()
        watcher = _Watcher(frozenset(names))
        async with self._reading(tenant, interval, watcher) as reader:
            seen = await reader.look(watcher.names, everything=not watcher.names)
            known = _shown(seen, watcher.names)
            yield Change(list(known.values()))
            async for change in self._changes(watcher, known):
                yield change

    async def _changes(self, watcher: _Watcher, known: dict[str, QueueView]) -> AsyncGenerator[Change]:
        clock = asyncio.get_running_loop().time
        due = clock() + self.keepalive
        while True:
            seen = await watcher.next(due - clock())
            self._heed_drain()
            change = difference(known, seen, watcher.names) if seen else Change()
            if change.changed or change.deleted or clock() >= due:
                yield change
                due = clock() + self.keepalive

    @asynccontextmanager
    async def _reading(self, tenant: str, interval: float, watcher: _Watcher) -> AsyncGenerator[_Reader]:
        key = tenant, ceil(interval / _STEP_SECONDS) * _STEP_SECONDS
        reader = self._readers.get(key)
        if reader is None:
            reader = self._readers[key] = _Reader(self._figures, *key)
        reader.watchers.add(watcher)
        try:
            await reader.start()
            yield reader
        finally:
            reader.watchers.discard(watcher)
            if not reader.watchers:
                del self._readers[key]
                await reader.stop()

    def _heed_drain(self) -> None:
        if self._draining:
            raise Unavailable("This instance stops; watch again.", Reason.DRAINING, retry_delay=0.1)


def difference(known: dict[str, QueueView], seen: Seen, names: frozenset[str]) -> Change:
    """What a watcher does not know yet; afterwards it knows."""
    shown = _shown(seen, names)
    changed = [
        view for name, view in shown.items() if name not in known or _facts(view) != _facts(known[name])
    ]
    # A queue may also be out of sight because others have come before it.
    deleted = [name for name in known if name not in shown and (not seen.last or name <= seen.last)]
    kept = {name: known[name] for name in shown if name in known}
    known.clear()
    known |= kept | {view.row.name: view for view in changed}
    return Change(changed, deleted)


def _shown(seen: Seen, names: frozenset[str]) -> dict[str, QueueView]:
    if names:
        return {name: seen.views[name] for name in sorted(names & seen.views.keys())}
    return {name: view for name, view in seen.views.items() if not seen.last or name <= seen.last}


def _facts(view: QueueView) -> QueueView:
    """What makes a difference: rates fall for minutes, by less and less."""
    row = view.row
    rates = round(row.arrival_rate, 2), round(row.completion_rate, 2)
    return view._replace(row=row._replace(arrival_rate=rates[0], completion_rate=rates[1]))
