"""Watches without their I/O: how each one begins and resumes, and what of it is news.

A client opens a stream with `request()`, hands each message to `read`, and when the stream breaks for a
reason that `mends`, opens the next one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import Message

from meshq.client import conversion
from meshq.client.models import QueueNews, Task, TaskChange, TaskEvent, TaskFilter, TaskState
from meshq.client.models.specs import Span
from meshq.client.operations import queues as queue_calls
from meshq.client.operations import tasks as task_calls
from meshq.client.retries import is_resumable
from meshq.contract.errors import MeshqError, Reason
from meshq.v1 import queue_service_pb2, task_service_pb2

Event = TypeVar("Event")

REMEMBERED: Final = 10_000
"""Tasks whose last change is remembered: as many as a server tells again at most."""


class Watch(ABC, Generic[Event]):
    """One watch over any number of streams.

    Attributes:
        method: The full name of the method.
        answer: The class of its messages.
        ended: Whether nothing more will come.
    """

    method: str
    answer: type[Message]
    ended = False

    @abstractmethod
    def request(self) -> Message:
        """What opens the next stream."""

    @abstractmethod
    def read(self, message: Any) -> Sequence[Event]:
        """What a message tells that is news."""

    def mends(self, error: MeshqError) -> bool:
        """Whether another stream may go on where this one broke."""
        return is_resumable(error)


class TaskWatch(Watch[TaskEvent]):
    """One task until it has ended.

    A new stream begins with the task as it stands; that is news only if state or attempt moved.
    """

    method = task_calls.SERVICE + "WatchTask"
    answer = task_service_pb2.WatchTaskResponse

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id
        self._last: tuple[int, TaskState] | None = None

    def request(self) -> Message:
        """The task."""
        return task_service_pb2.WatchTaskRequest(task_id=self._task_id)

    def read(self, message: task_service_pb2.WatchTaskResponse) -> Sequence[TaskEvent]:
        """The event, unless it was told already."""
        event = conversion.event(message)
        return () if event is None or not self._is_news(event) else (event,)

    def _is_news(self, event: TaskEvent) -> bool:
        if not isinstance(event, Task):
            return True
        here = (event.attempt, event.state)
        news = here != self._last
        self._last = here
        self.ended = event.done
        return news


class TasksWatch(Watch[TaskChange]):
    """The tasks that a filter selects, without end. Every stream goes on where the one before broke.

    A server begins a little earlier, lest it misses anything; what was told of a task last is not news.
    """

    method = task_calls.SERVICE + "WatchTasks"
    answer = task_service_pb2.WatchTasksResponse

    def __init__(self, wanted: TaskFilter, resume_token: bytes) -> None:
        self._wanted = wanted
        self._token = resume_token
        self._told: dict[str, tuple[int, TaskState]] = {}

    def request(self) -> Message:
        """The filter, and where to go on."""
        request = task_service_pb2.WatchTasksRequest(resume_token=self._token)
        if self._wanted:
            conversion.fill_filter(request.filter, self._wanted, "filter.")
        return request

    def read(self, message: task_service_pb2.WatchTasksResponse) -> Sequence[TaskChange]:
        """The change; signs of life move the token, too."""
        self._token = message.resume_token or self._token
        if message.WhichOneof("event") != "task":
            return ()
        task = conversion.task(message.task)
        return (TaskChange(task, self._token),) if self._is_news(task) else ()

    def _is_news(self, task: Task) -> bool:
        here = (task.attempt, task.state)
        news = self._told.pop(task.task_id, None) != here
        self._told[task.task_id] = here
        if len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]
        return news

    def mends(self, error: MeshqError) -> bool:
        """All that mends a watch, but for a token that is too old."""
        return error.reason is not Reason.RESUME_LOST and is_resumable(error)


class QueuesWatch(Watch[QueueNews]):
    """Queues, without end. Every stream begins with all of them."""

    method = queue_calls.SERVICE + "WatchQueues"
    answer = queue_service_pb2.WatchQueuesResponse

    def __init__(self, names: Iterable[str], interval: Span | None) -> None:
        self._names = tuple(names)
        self._interval = interval

    def request(self) -> Message:
        """The names, and how often to look."""
        request = queue_service_pb2.WatchQueuesRequest(queues=self._names)
        if self._interval is not None:
            conversion.fill_span(request.interval, self._interval, "interval")
        return request

    def read(self, message: queue_service_pb2.WatchQueuesResponse) -> Sequence[QueueNews]:
        """What has changed, if anything has."""
        news = conversion.queue_news(message)
        return (news,) if news.queues or news.deleted else ()
