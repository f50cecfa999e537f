"""Queues with their figures.

The counters come from the ledger with each call. What shards and ledger hold in which state is asked for
only when somebody wants to know, and at most once a second for a queue, however many want to know; more
rarely where the ledger has long to count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from meshq.management.model.placement import Depth
from meshq.management.model.task import DISPATCH_HORIZON_MS
from meshq.management.queues.store import Held, QueueKey, QueueRow, QueueStore

T = TypeVar("T")

_FRESH_SECONDS: Final = 1.0
_REST: Final = 10.0
"""How many times as long as the ledger took to count figures are kept at least. It takes most of a second
for a million waiting tasks: whoever looks on must not keep it busy with that."""
_KEPT_SECONDS: Final = 60.0
_MAX_KEPT: Final = 10_000


class Shards(Protocol):
    """Execution, which knows what is on the shards."""

    async def depths(self, tenant: str, queues: Sequence[str]) -> tuple[dict[str, Depth], bool]:
        """What the shards hold of each queue, at most 1,000, and whether all of them were asked."""


class Live(NamedTuple):
    """What was held of a queue a moment ago.

    Attributes:
        complete: Whether all shards were asked.
    """

    held: Held
    depth: Depth
    complete: bool


class QueueView(NamedTuple):
    """A queue as it is shown.

    Attributes:
        oldest_ready_ms: Since when the task is ready that waits longest for a worker; 0 when none waits.
        complete: Whether all shards were asked; then the four counts add up to the open tasks.
    """

    row: QueueRow
    waiting: int
    scheduled: int
    pending: int
    running: int
    oldest_ready_ms: int
    complete: bool


class QueueFigures:
    """See the module.

    Args:
        store: The counters, and what is held in the ledger.
        shards: Execution.
        now_ms: The clock.
    """

    def __init__(self, store: QueueStore, shards: Shards, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._shards = shards
        self._now_ms = now_ms
        self._known: dict[QueueKey, tuple[float, Live]] = {}
        self._reading: dict[QueueKey, asyncio.Task[None]] = {}

    async def page(self, tenant: str, after: str, limit: int) -> tuple[list[QueueView], bool]:
        """Queues behind a name, by name, at most 1,000; and whether there are more."""
        rows = await self._store.page(tenant, after, limit + 1, self._now_ms())
        return await self._shown(rows[:limit]), len(rows) > limit

    async def named(self, tenant: str, names: Sequence[str]) -> list[QueueView]:
        """Those queues of these names that exist, by name; at most 1,000."""
        return await self._shown(await self._store.named(tenant, names, self._now_ms()))

    async def one(self, key: QueueKey) -> QueueView | None:
        """A queue, if there is one."""
        found = await self.named(key[0], [key[1]])
        return found[0] if found else None

    async def _shown(self, rows: Sequence[QueueRow]) -> list[QueueView]:
        keys = [(row.tenant, row.name) for row in rows]
        old = [key for key in keys if not self._fresh(key) and key not in self._reading]
        if old:
            self._begin_reading(old)
        # Whoever goes away does not take from others what they wait for as well.
        await asyncio.gather(*(asyncio.shield(self._reading[key]) for key in keys if key in self._reading))
        return [view(row, self._known[key][1]) for key, row in zip(keys, rows, strict=True)]

    def _fresh(self, key: QueueKey) -> bool:
        known = self._known.get(key)
        return known is not None and _clock() < known[0]

    def _begin_reading(self, keys: Sequence[QueueKey]) -> None:
        if len(self._known) > _MAX_KEPT:
            old = _clock() - _KEPT_SECONDS
            self._known = {key: known for key, known in self._known.items() if known[0] > old}
        reading = asyncio.create_task(self._read(keys))
        self._reading.update(dict.fromkeys(keys, reading))

    async def _read(self, keys: Sequence[QueueKey]) -> None:
        try:
            tenant, names = keys[0][0], [name for _, name in keys]
            later_ms = self._now_ms() + DISPATCH_HORIZON_MS
            (depths, complete), (held, took) = await asyncio.gather(
                self._shards.depths(tenant, names), _timed(self._store.held(tenant, names, later_ms))
            )
            until = _clock() + max(_FRESH_SECONDS, _REST * took)
            for key in keys:
                live = Live(held[key[1]], depths.get(key[1], NOTHING), complete)
                self._known[key] = until, live
        finally:
            for key in keys:
                del self._reading[key]


NOTHING: Final = Depth()


def view(row: QueueRow, live: Live) -> QueueView:
    """A queue with its open tasks by state.

    The counters and what is held are read one after the other, and tasks are on their way between ledger and
    shards all the time. The counters decide how many there are. What none of the others accounts for is
    about to be on a shard, and is pending.
    """
    (waiting, later), (ready, delayed, leased, oldest_ready_ms), complete = live
    if not complete:
        return QueueView(row, waiting, delayed + later, ready, leased, oldest_ready_ms, complete)
    running = min(leased, row.open)
    scheduled = min(delayed + later, row.open - running)
    waiting = min(waiting, row.open - running - scheduled)
    pending = row.open - running - scheduled - waiting
    return QueueView(row, waiting, scheduled, pending, running, oldest_ready_ms, complete)


async def _timed(work: Awaitable[T]) -> tuple[T, float]:
    """Do something, and say how many seconds it took."""
    began = _clock()
    return await work, _clock() - began


def _clock() -> float:
    return asyncio.get_running_loop().time()
