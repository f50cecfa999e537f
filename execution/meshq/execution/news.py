"""Progress and output of running tasks, passed on to whoever watches. Only the latest progress is kept.

What waits and what is kept is bounded in number and in bytes, however much handlers say.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

_MAX_WAITING: Final = 2_000
_MAX_WAITING_BYTES: Final = 8 << 20
_MAX_KEPT: Final = 50_000
_MAX_KEPT_BYTES: Final = 32 << 20


class Listener:
    """One stream of news. A listener that is too slow misses the oldest."""

    def __init__(self) -> None:
        self.watched: set[bytes] = set()
        self.closed = False
        self._news: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()

    def put(self, item: Any, size: int) -> None:
        """Queue a piece of news of so many bytes."""
        self._news.append((item, size))
        self._bytes += size
        while len(self._news) > _MAX_WAITING or self._bytes > _MAX_WAITING_BYTES:
            self._bytes -= self._news.popleft()[1]
        self._wake.set()

    def close(self) -> None:
        """No more is wanted."""
        self.closed = True
        self._wake.set()

    async def next(self, seconds: float) -> list[Any]:
        """What has come, waiting for the first piece; empty when none came in time."""
        if not self._news and not self.closed:
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
        found = [item for item, _ in self._news]
        self._news.clear()
        self._bytes = 0
        return found


class ProgressBoard:
    """The latest progress of the tasks that workers of this instance run; of very many the latest."""

    def __init__(self) -> None:
        self._latest: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    def note(self, task_id: bytes, progress: Any) -> None:
        """A handler has reported."""
        self.forget([task_id])
        size = progress.ByteSize()
        self._latest[task_id] = progress, size
        self._bytes += size
        while len(self._latest) > _MAX_KEPT or self._bytes > _MAX_KEPT_BYTES:
            self._bytes -= self._latest.popitem(last=False)[1][1]

    def of(self, task_id: bytes) -> Any | None:
        """What the handler of a task last said, None if nothing is known."""
        found = self._latest.get(task_id)
        return found[0] if found else None

    def forget(self, task_ids: Iterable[bytes]) -> None:
        """Tasks have ended."""
        if self._latest:
            for task_id in task_ids:
                found = self._latest.pop(task_id, None)
                self._bytes -= found[1] if found else 0


class NewsRoom:
    """Who watches which task."""

    def __init__(self) -> None:
        self._watchers: dict[bytes, set[Listener]] = {}

    def watched(self, task_id: bytes) -> bool:
        """Whether anybody wants to hear of a task."""
        return task_id in self._watchers

    def watch(self, listener: Listener, task_ids: Iterable[bytes]) -> None:
        """Tell the listener of some tasks from now on."""
        for task_id in task_ids:
            listener.watched.add(task_id)
            self._watchers.setdefault(task_id, set()).add(listener)

    def unwatch(self, listener: Listener, task_ids: Iterable[bytes]) -> None:
        """Tell the listener of some tasks no more."""
        for task_id in list(task_ids):
            listener.watched.discard(task_id)
            watchers = self._watchers.get(task_id)
            if watchers is not None:
                watchers.discard(listener)
                if not watchers:
                    del self._watchers[task_id]

    def leave(self, listener: Listener) -> None:
        """The listener has gone."""
        self.unwatch(listener, listener.watched)

    def tell(self, task_id: bytes, item: Any) -> None:
        """Pass on a piece of news, a message."""
        watchers = self._watchers.get(task_id)
        if watchers:
            size = item.ByteSize()
            for listener in watchers:
                listener.put(item, size)
