"""Progress and output of running tasks, passed on to whoever watches. Only the latest progress is kept."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

_MAX_WAITING: Final = 2_000
_MAX_KEPT: Final = 50_000


class Listener:
    """One stream of news. A listener that is too slow misses the oldest."""

    def __init__(self) -> None:
        self.watched: set[bytes] = set()
        self.closed = False
        self._news: deque[Any] = deque(maxlen=_MAX_WAITING)
        self._wake = asyncio.Event()

    def put(self, item: Any) -> None:
        """Queue a piece of news."""
        self._news.append(item)
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
        found = list(self._news)
        self._news.clear()
        return found


class ProgressBoard:
    """The latest progress of the tasks that workers of this instance run; of very many the latest."""

    def __init__(self) -> None:
        self._latest: OrderedDict[bytes, Any] = OrderedDict()

    def note(self, task_id: bytes, progress: Any) -> None:
        """A handler has reported."""
        self._latest[task_id] = progress
        self._latest.move_to_end(task_id)
        if len(self._latest) > _MAX_KEPT:
            self._latest.popitem(last=False)

    def of(self, task_id: bytes) -> Any | None:
        """What the handler of a task last said, None if nothing is known."""
        return self._latest.get(task_id)

    def forget(self, task_ids: Iterable[bytes]) -> None:
        """Tasks have ended."""
        if self._latest:
            for task_id in task_ids:
                self._latest.pop(task_id, None)


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
        """Pass on a piece of news."""
        for listener in self._watchers.get(task_id, ()):
            listener.put(item)
