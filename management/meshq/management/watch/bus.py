"""The local bus: who watches which task here, and what they have not read yet.

State changes come from the ledger after their commit, of this instance and of the others; progress and
output come from execution. Where nobody watches, publishing costs a look at an empty table.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple, TypeAlias

from prometheus_client import Counter, Gauge

from meshq.contract.errors import Aborted, Reason, Unavailable
from meshq.management.model.task import TaskId, TaskRow

_MAX_EVENTS: Final = 1_000
_MAX_BYTES: Final = 8 << 20

_WATCHED: Final = Gauge("meshq_watched_tasks", "Tasks that somebody watches here.")
_TOO_SLOW: Final = Counter("meshq_watchers_too_slow", "Watches ended because the caller read too slowly.")


class News(NamedTuple):
    """What a running handler said.

    Attributes:
        task_id: Of which task.
        message: A `TaskProgress` or `TaskOutput`, passed on as it is.
        size: Its encoded size.
    """

    task_id: TaskId
    message: object
    size: int


class Gone(NamedTuple):
    """The task was deleted."""

    task_id: TaskId


Event: TypeAlias = TaskRow | News | Gone

_ROW_SIZE: Final = 512
"""About what a row without its specification takes."""


class Subscription:
    """The events of one task for one watcher, in a bounded buffer.

    Attributes:
        news: Whether progress and output are wanted as well.
    """

    def __init__(self, *, news: bool = True) -> None:
        self.news = news
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._too_slow = False
        self._draining = False
        self._arrived = asyncio.Event()

    def put(self, event: Event, size: int) -> None:
        """Add an event; a buffer that is full is given up, and the watch with it."""
        if len(self._events) >= _MAX_EVENTS or self._bytes + size > _MAX_BYTES:
            self._too_slow = True
        else:
            self._events.append(event)
            self._bytes += size
        self._arrived.set()

    def drain(self) -> None:
        """The instance stops: what has arrived is read, and then the watch has to go elsewhere."""
        self._draining = True
        self._arrived.set()

    async def next(self, seconds: float) -> Event | None:
        """The next event, or None when there is none in time.

        Raises:
            Aborted: Events came faster than they were read.
            Unavailable: The instance stops.
        """
        if not (self._events or self._too_slow or self._draining):
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._arrived.wait()
        if self._too_slow:
            _TOO_SLOW.inc()
            raise Aborted("Events arrive faster than they are read; watch again.", Reason.WATCH_TOO_SLOW)
        if not self._events:
            if self._draining:
                raise Unavailable("This instance stops; watch again.", Reason.DRAINING, retry_delay=0.1)
            return None
        event = self._events.popleft()
        self._bytes -= _size(event)
        return event


class Bus:
    """Hands events to the subscriptions of their task."""

    def __init__(self) -> None:
        self._by_task: dict[TaskId, set[Subscription]] = {}
        self._wanting_news: dict[TaskId, int] = {}
        self._draining = False
        self._on_watched: list[Callable[[], None]] = []
        self._on_news_wanted: list[Callable[[TaskId], None]] = []

    @property
    def watched(self) -> list[TaskId]:
        """The tasks that somebody watches."""
        return list(self._by_task)

    @property
    def busy(self) -> bool:
        """Whether anybody watches anything."""
        return bool(self._by_task)

    @property
    def news_wanted(self) -> list[TaskId]:
        """The tasks whose progress and output somebody wants."""
        return list(self._wanting_news)

    def wants_news(self, task_id: TaskId) -> bool:
        """Whether somebody wants the progress and output of a task."""
        return task_id in self._wanting_news

    def on_watched(self, listener: Callable[[], None]) -> None:
        """Call back when the first watcher comes and when the last one goes."""
        self._on_watched.append(listener)

    def on_news_wanted(self, listener: Callable[[TaskId], None]) -> None:
        """Call back when the news of a task is wanted for the first time, or no longer."""
        self._on_news_wanted.append(listener)

    @contextmanager
    def subscribe(self, task_id: TaskId, *, news: bool) -> Iterator[Subscription]:
        """Receive the events of a task from now on, with its progress and output if `news`."""
        subscription = Subscription(news=news)
        if self._draining:
            subscription.drain()
        was_busy = self.busy
        self._by_task.setdefault(task_id, set()).add(subscription)
        self._watched_changed(was_busy)
        if news:
            self._count_news(task_id, 1)
        try:
            yield subscription
        finally:
            self._unsubscribe(task_id, subscription)

    def _unsubscribe(self, task_id: TaskId, subscription: Subscription) -> None:
        was_busy = self.busy
        others = self._by_task[task_id]
        others.discard(subscription)
        if not others:
            del self._by_task[task_id]
        self._watched_changed(was_busy)
        if subscription.news:
            self._count_news(task_id, -1)

    def _watched_changed(self, was_busy: bool) -> None:
        _WATCHED.set(len(self._by_task))
        if was_busy != self.busy:
            for listener in self._on_watched:
                listener()

    def _count_news(self, task_id: TaskId, change: int) -> None:
        before = self._wanting_news.get(task_id, 0)
        self._wanting_news[task_id] = before + change
        if not self._wanting_news[task_id]:
            del self._wanting_news[task_id]
        if not (before and task_id in self._wanting_news):
            for listener in self._on_news_wanted:
                listener(task_id)

    def drain(self) -> None:
        """The instance stops: all watches have to go elsewhere."""
        self._draining = True
        for subscriptions in self._by_task.values():
            for subscription in subscriptions:
                subscription.drain()

    def publish_rows(self, rows: Sequence[TaskRow]) -> None:
        """State changes, after their commit. A change may come twice or late; watchers sort that out."""
        if self._by_task:
            self._publish(rows)

    def publish_news(self, news: Sequence[News]) -> None:
        """Progress and output."""
        find = self._by_task.get
        for item in news:
            for subscription in find(item.task_id, ()):
                if subscription.news:
                    subscription.put(item, item.size)

    def publish_gone(self, task_ids: Sequence[TaskId]) -> None:
        """Deletions."""
        self._publish([Gone(task_id) for task_id in task_ids])

    def _publish(self, events: Iterable[Event]) -> None:
        find = self._by_task.get
        for event in events:
            for subscription in find(event.task_id, ()):
                subscription.put(event, _size(event))


def _size(event: Event) -> int:
    return event.size if isinstance(event, News) else _ROW_SIZE
