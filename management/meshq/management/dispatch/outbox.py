"""What is to be dispatched next: a bounded queue that all streams take from.

Streams that are ready take turns, and a stream that is slow to answer takes less, so that the load
spreads by itself. What does not fit is dropped here and stays in the ledger, where the sweeper finds it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from prometheus_client import Counter, Gauge

from meshq.contract.limits import MAX_FRAME_ITEMS, SOFT_FRAME_BYTES
from meshq.management.model.task import Sendable

_WAITING: Final = Gauge("meshq_dispatch_waiting", "Attempts that wait for a Dispatch stream.")
_LEFT: Final = Counter("meshq_dispatch_left", "Attempts that did not fit and were left to the sweeper.")


class Outbox:
    """The queue.

    Args:
        max_items: Attempts that may wait.
        max_bytes: Bytes of their specifications that may wait.
    """

    def __init__(self, max_items: int = 50_000, max_bytes: int = 64 << 20) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._items: deque[Sendable] = deque()
        self._bytes = 0
        self._takers: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def half_full(self) -> bool:
        """Whether whoever can wait should."""
        return len(self._items) * 2 >= self._max_items or self._bytes * 2 >= self._max_bytes

    def offer(self, items: Sequence[Sendable]) -> None:
        """Queue attempts, as far as there is room."""
        for index, item in enumerate(items):
            if len(self._items) >= self._max_items or self._bytes >= self._max_bytes:
                _LEFT.inc(len(items) - index)
                break
            self._items.append(item)
            self._bytes += len(item.spec)
        self._changed()

    def put_back(self, items: Sequence[Sendable]) -> None:
        """Queue attempts of a broken stream once more, ahead of the others and as repeats."""
        for item in reversed(items):
            if len(self._items) >= self._max_items or self._bytes >= self._max_bytes:
                _LEFT.inc()
                continue
            self._items.appendleft(item._replace(repeat=True))
            self._bytes += len(item.spec)
        self._changed()

    async def take(self) -> list[Sendable]:
        """The next frame, when there is something; callers are served in their order."""
        while not self._items:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._takers.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                # The turn may have come just as the stream broke: it is the next one's.
                if turn.done() and not turn.cancelled():
                    self._changed()
                raise
        frame = self._frame()
        self._changed()
        return frame

    def _frame(self) -> list[Sendable]:
        frame: list[Sendable] = []
        size = 0
        while self._items and len(frame) < MAX_FRAME_ITEMS:
            size += len(self._items[0].spec)
            if frame and size > SOFT_FRAME_BYTES:
                break
            frame.append(self._items.popleft())
        self._bytes -= sum(len(item.spec) for item in frame)
        return frame

    def _changed(self) -> None:
        _WAITING.set(len(self._items))
        while self._items and self._takers:
            turn = self._takers.popleft()
            if not turn.done():
                turn.set_result(None)
                break
