"""Streams of tasks without their I/O: tasks are cut into frames.

A frame is sent when it is full, or when nothing else is under way, so that a slow source is not kept
waiting and a fast one fills its frames. Each frame keeps its request id, so that a frame that was sent
over a stream which broke can be sent again without making a task twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from meshq.client import conversion
from meshq.client.models import Created, Ran, TaskSpec
from meshq.contract.errors import InvalidRequest
from meshq.contract.limits import MAX_FRAME_BYTES, MAX_FRAME_ITEMS, SOFT_FRAME_BYTES
from meshq.v1.task_pb2 import Task
from meshq.v1.task_service_pb2 import (
    IngestTasksRequest,
    IngestTasksResponse,
    RunTasksRequest,
    RunTasksResponse,
)

DEFAULT_WINDOW: Final = 8
"""Frames that are under way at a time."""

Request = TypeVar("Request", IngestTasksRequest, RunTasksRequest)
Response = TypeVar("Response", IngestTasksResponse, RunTasksResponse)
Outcome = TypeVar("Outcome", Created, Ran)


class Frame(Generic[Request]):
    """Tasks that are sent together.

    Attributes:
        request: The message.
        first: The position of the first task in the whole series.
        count: Tasks in the frame, with those that are refused.
        refused: Errors of tasks that were not even sent, by their positions in the series.
        sent: The positions in the series of the tasks in the message.
    """

    __slots__ = ("_size", "count", "first", "refused", "request", "sent")

    def __init__(self, request: Request, first: int) -> None:
        self.request: Request = request
        self.first = first
        self.count = 0
        self.refused: dict[int, InvalidRequest] = {}
        self.sent: list[int] = []
        self._size = 0

    def add(self, task: Task, size: int) -> None:
        """Take one more task."""
        self.request.tasks.append(task)
        self.sent.append(self.first + self.count)
        self.count += 1
        self._size += size

    def refuse(self, error: InvalidRequest) -> None:
        """Note a task that cannot be sent."""
        self.refused[self.first + self.count] = error
        self.count += 1

    def has_room(self, size: int) -> bool:
        """Whether a task of that many bytes still belongs into this frame."""
        return len(self.sent) < MAX_FRAME_ITEMS and (not self.sent or self._size + size <= SOFT_FRAME_BYTES)


class Frames(ABC, Generic[Request, Response, Outcome]):
    """The state of one series of tasks.

    Frames move from the one being filled over those that wait to those under way. `unanswered` keeps the
    order of the series.

    Attributes:
        added: Tasks that were taken, without those that cannot be sent.

    Args:
        request: Makes an empty message.
        window: Frames that are under way at a time.
    """

    def __init__(self, request: Callable[[], Request], window: int = DEFAULT_WINDOW) -> None:
        self.unanswered: deque[Frame[Request]] = deque()
        self.added = 0
        self._request: Callable[[], Request] = request
        self._window = window
        self._waiting: deque[Frame[Request]] = deque()
        self._filling: Frame[Request] = Frame(request(), 0)
        self._ended = False

    def add(self, spec: TaskSpec) -> None:
        """Take a task; what cannot be encoded becomes a result."""
        position = self._filling.first + self._filling.count
        task = Task()
        try:
            conversion.fill_task(task, spec, f"tasks[{position}]")
            size = task.ByteSize()
            if size > MAX_FRAME_BYTES:
                raise InvalidRequest.field(f"tasks[{position}]", f"is {size:,} bytes; no frame can carry it")
        except InvalidRequest as error:
            self._roomy(0).refuse(error)
        else:
            self._roomy(size).add(task, size)
            self.added += 1

    def end(self) -> None:
        """There are no more tasks."""
        self._ended = True

    @property
    def full(self) -> bool:
        """Whether no more tasks should be added until an answer came."""
        return len(self._waiting) + len(self.unanswered) >= self._window

    @property
    def finished(self) -> bool:
        """Whether every task was answered and no more will come."""
        return self._ended and not (self.unanswered or self._waiting or self._filling.sent)

    @property
    def all_sent(self) -> bool:
        """Whether there is nothing more to send."""
        return self._ended and not (self._waiting or self._filling.sent)

    def take(self) -> Request | None:
        """The next frame to send; None when there is none, or it is worth waiting for more tasks."""
        if not self._waiting and self._filling.sent and (self._ended or not self.unanswered):
            self._close()
        return self.take_full()

    def take_full(self) -> Request | None:
        """The next full frame to send, if there is one."""
        if not self._waiting:
            return None
        frame = self._waiting.popleft()
        self.unanswered.append(frame)
        self._sending(frame)
        return frame.request

    def restart(self) -> Sequence[Request]:
        """What a new stream has to send first."""
        for frame in self.unanswered:
            self._sending(frame)
        return [frame.request for frame in self.unanswered]

    @abstractmethod
    def read(self, answer: Response) -> Iterator[Outcome]:
        """What an answer says about tasks."""

    @abstractmethod
    def leftover(self) -> Iterator[Outcome]:
        """When all is finished: tasks at the very end that could not be sent."""

    def _sending(self, frame: Frame[Request]) -> None:
        """A frame goes out next."""

    def _roomy(self, size: int) -> Frame[Request]:
        if not self._filling.has_room(size):
            self._close()
        return self._filling

    def _close(self) -> None:
        frame = self._filling
        self._waiting.append(frame)
        self._filling = Frame(self._request(), frame.first + frame.count)
