"""The local bus: who watches which tasks here, and what they have not read yet.

State changes come from the ledger after their commit, of this instance and of the others; progress and
output come from execution. Where nobody watches, publishing costs a look at an empty table.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Final, NamedTuple, Protocol, TypeAlias

from prometheus_client import Counter, Gauge

from meshq.contract.errors import Aborted, Reason, Unavailable
from meshq.management.model.reports import Finish
from meshq.management.model.task import TaskId, TaskRow

_MAX_EVENTS: Final = 1_000
_MAX_FOLLOWED: Final = 10_000
_EVENTS_OF_TASK: Final = 8
_MAX_BYTES: Final = 8 << 20

_WATCHED: Final = Gauge("meshq_watched_tasks", "Tasks that somebody watches here.")
_FOLLOWED: Final = Gauge("meshq_watches_by_filter", "Watches here that select tasks by a filter.")
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


class Over(NamedTuple):
    """An attempt has ended its task.

    Attributes:
        end: How, where that and its creation say all there is to know; else its row is to be read.
        max_attempts: The attempts that it could have had, where the end is known.
    """

    task_id: TaskId
    attempt: int
    end: Finish | None = None
    max_attempts: int = 0


Committed: TypeAlias = TaskRow | Over
"""A change of the ledger, after its commit."""


class Change(NamedTuple):
    """A change for a watch by filter.

    Attributes:
        row: The task after it.
        horizon_ms: Whatever was committed before this time has come before this.
    """

    row: TaskRow
    horizon_ms: int


class Gap(enum.Enum):
    """Says that changes may have been missed."""

    GAP = enum.auto()


Event: TypeAlias = TaskRow | News | Gone | Over | Change | Gap

_ROW_SIZE: Final = 512
"""About what a row without its specification takes."""


class Listener(Protocol):
    """Hears events.

    Attributes:
        news: Whether progress and output are wanted as well.
        rows: Whether the states are wanted; if not, it may be told that a task is over instead.
    """

    news: bool
    rows: bool

    def put(self, event: Event, size: int) -> None:
        """An event has come; it takes about so many bytes."""

    def drain(self) -> None:
        """The instance stops: what has come is read, and then the watch has to go elsewhere."""


class Subscription:
    """The events of one watcher, in a bounded buffer; see `Listener`.

    Args:
        news: As of `Listener`.
        rows: Likewise.
        max_events: What the buffer holds.
    """

    def __init__(self, *, news: bool = True, rows: bool = True, max_events: int = _MAX_EVENTS) -> None:
        self.news = news
        self.rows = rows
        self._max_events = max_events
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._too_slow = False
        self._draining = False
        self._arrived = asyncio.Event()

    def put(self, event: Event, size: int) -> None:
        """Add an event; a buffer that is full is given up, and the watch with it."""
        if len(self._events) >= self._max_events or self._bytes + size > _MAX_BYTES:
            self._too_slow = True
        else:
            self._events.append(event)
            self._bytes += size
        self._arrived.set()

    def drain(self) -> None:
        """See `Listener`."""
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
                raise Unavailable("This instance stops; call again.", Reason.DRAINING, retry_delay=0.1)
            return None
        event = self._events.popleft()
        self._bytes -= _size(event)
        return event


class Follower(NamedTuple):
    """What somebody watches by a filter.

    Attributes:
        selects: Whether a task is wanted as it stands.
        horizon_ms: Says until when all that was committed anywhere has arrived here.
    """

    selects: Callable[[TaskRow], bool]
    horizon_ms: Callable[[], int]


class Bus:
    """Hands events to the subscriptions of their task, and to those whose filter selects it."""

    def __init__(self) -> None:
        self._by_task: dict[TaskId, set[Listener]] = {}
        self._by_filter: dict[Subscription, Follower] = {}
        self._wanting_news: dict[TaskId, int] = {}
        self._unread: set[TaskId] = set()
        self._listeners: set[Listener] = set()
        self._draining = False
        self._on_watched: list[Callable[[], None]] = []
        self._on_news_wanted: list[Callable[[TaskId], None]] = []
        self._on_unread: list[Callable[[], None]] = []

    @property
    def watched(self) -> list[TaskId]:
        """The tasks that somebody watches."""
        return list(self._by_task)

    @property
    def busy(self) -> bool:
        """Whether anybody watches anything."""
        return bool(self._by_task or self._by_filter or self._listeners)

    @property
    def creations_wanted(self) -> bool:
        """Whether anybody watches by a filter, and so wants to know of new tasks."""
        return bool(self._by_filter)

    @property
    def news_wanted(self) -> list[TaskId]:
        """The tasks whose progress and output somebody wants."""
        return list(self._wanting_news)

    def wants_news(self, task_id: TaskId) -> bool:
        """Whether somebody wants the progress and output of a task."""
        return task_id in self._wanting_news

    def on_watched(self, listener: Callable[[], None]) -> None:
        """Call back when the first watcher comes and when the last one goes, of those by filter as well."""
        self._on_watched.append(listener)

    def on_news_wanted(self, listener: Callable[[TaskId], None]) -> None:
        """Call back when the news of a task is wanted for the first time, or no longer."""
        self._on_news_wanted.append(listener)

    def on_unread(self, listener: Callable[[], None]) -> None:
        """Call back when there are tasks to be read for their watchers."""
        self._on_unread.append(listener)

    def take_unread(self) -> list[TaskId]:
        """The watched tasks that are over, and whose rows were not published."""
        unread, self._unread = self._unread, set()
        return list(unread)

    @contextmanager
    def subscribe(self, *task_ids: TaskId, news: bool, rows: bool = True) -> Iterator[Subscription]:
        """Receive the events of tasks from now on; see `Subscription`."""
        size = max(_MAX_EVENTS, _EVENTS_OF_TASK * len(task_ids))
        subscription = Subscription(news=news, rows=rows, max_events=size)
        self.add(subscription, task_ids)
        for task_id in task_ids if news else ():
            self._count_news(task_id, 1)
        try:
            yield self._begun(subscription)
        finally:
            self.remove(subscription, task_ids)
            for task_id in task_ids if news else ():
                self._count_news(task_id, -1)

    @contextmanager
    def attach(self, listener: Listener) -> Iterator[None]:
        """Let a listener hear of tasks that it adds and removes, and of the end of the instance."""
        with self._changing():
            self._listeners.add(listener)
        if self._draining:
            listener.drain()
        try:
            yield
        finally:
            with self._changing():
                self._listeners.discard(listener)

    def add(self, listener: Listener, task_ids: Iterable[TaskId]) -> None:
        """Let a listener hear of tasks."""
        with self._changing():
            for task_id in task_ids:
                self._by_task.setdefault(task_id, set()).add(listener)

    def remove(self, listener: Listener, task_ids: Iterable[TaskId]) -> None:
        """Let it hear no more of tasks that it was added for."""
        with self._changing():
            for task_id in task_ids:
                self._remove(task_id, listener)

    @contextmanager
    def follow(self, follower: Follower) -> Iterator[Subscription]:
        """Receive the changes of all tasks that a filter selects from now on, creations included."""
        subscription = Subscription(news=False, max_events=_MAX_FOLLOWED)
        with self._changing():
            self._by_filter[subscription] = follower
        try:
            yield self._begun(subscription)
        finally:
            with self._changing():
                del self._by_filter[subscription]

    def _begun(self, subscription: Subscription) -> Subscription:
        if self._draining:
            subscription.drain()
        return subscription

    def _remove(self, task_id: TaskId, listener: Listener) -> None:
        others = self._by_task[task_id]
        others.discard(listener)
        if not others:
            del self._by_task[task_id]

    @contextmanager
    def _changing(self) -> Iterator[None]:
        before = self.busy, self.creations_wanted
        yield
        _WATCHED.set(len(self._by_task))
        _FOLLOWED.set(len(self._by_filter))
        if before != (self.busy, self.creations_wanted):
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
        for subscription in chain(self._by_filter, self._listeners, *self._by_task.values()):
            subscription.drain()

    def publish_rows(self, rows: Sequence[TaskRow]) -> None:
        """State changes, after their commit. A change may come twice or late; watchers sort that out."""
        if self._by_task:
            self._publish(rows)
        if self._by_filter:
            self.publish_creations(rows)

    def publish_creations(self, rows: Sequence[TaskRow]) -> None:
        """New tasks; only who watches by a filter can want them."""
        for subscription, follower in self._by_filter.items():
            horizon_ms = follower.horizon_ms()
            for row in rows:
                if follower.selects(row):
                    subscription.put(Change(row, horizon_ms), _ROW_SIZE)

    def publish_gap(self) -> None:
        """Changes may have been missed; who watches by a filter has to read them."""
        for subscription in self._by_filter:
            subscription.put(Gap.GAP, 0)

    def publish_news(self, news: Sequence[News]) -> None:
        """Progress and output."""
        find = self._by_task.get
        for item in news:
            for subscription in find(item.task_id, ()):
                if subscription.news:
                    subscription.put(item, item.size)

    def publish_over(self, ends: Iterable[Over]) -> None:
        """Tasks have ended. Watchers that want to know how are told when somebody has read it."""
        find = self._by_task.get
        for end in ends if self._by_task else ():
            for subscription in find(end.task_id, ()):
                if subscription.rows:
                    self._unread.add(end.task_id)
                else:
                    subscription.put(end, 0)
        for listener in self._on_unread if self._unread else ():
            listener()

    def publish_gone(self, task_ids: Sequence[TaskId]) -> None:
        """Deletions."""
        self._publish([Gone(task_id) for task_id in task_ids])

    def _publish(self, events: Iterable[TaskRow | Gone]) -> None:
        find = self._by_task.get
        for event in events:
            for subscription in find(event.task_id, ()):
                subscription.put(event, _size(event))


def _size(event: Event) -> int:
    if isinstance(event, News):
        return event.size
    return 0 if isinstance(event, Gap | Over) else _ROW_SIZE
