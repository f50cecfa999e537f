"""Bulk creation without its I/O: tasks are cut into frames, answers are matched with them.

A frame is sent when it is full, or when nothing else is under way, so that a slow source is not kept
waiting and a fast one fills its frames. Each frame keeps its request id, so that a frame that was sent
over a stream which broke can be sent again without making a task twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from meshq.client import conversion
from meshq.client.models import Created, TaskSpec
from meshq.client.operations import new_request_id
from meshq.contract.errors import InternalError, InvalidRequest
from meshq.contract.limits import MAX_FRAME_BYTES, MAX_FRAME_ITEMS, SOFT_FRAME_BYTES
from meshq.v1.task_pb2 import Task
from meshq.v1.task_service_pb2 import CreateTaskResult, IngestTasksRequest, IngestTasksResponse

DEFAULT_WINDOW: Final = 8
"""Frames that are under way at a time."""


class Frame:
    """Tasks that are sent together.

    Attributes:
        request: The message.
        first: The position of the first task in the whole series.
        refused: Errors of tasks that were not even sent, by their position in the frame.
        count: Tasks in the frame, with those that are refused.
        sendable: Tasks in the message.
    """

    __slots__ = ("_size", "count", "first", "refused", "request", "sendable")

    def __init__(self, first: int) -> None:
        self.request = IngestTasksRequest(request_id=new_request_id())
        self.first = first
        self.count = 0
        self.sendable = 0
        self.refused: dict[int, InvalidRequest] = {}
        self._size = 0

    def add(self, task: Task, size: int) -> None:
        """Take one more task."""
        self.request.tasks.append(task)
        self.count += 1
        self.sendable += 1
        self._size += size

    def refuse(self, error: InvalidRequest) -> None:
        """Note a task that cannot be sent."""
        self.refused[self.count] = error
        self.count += 1

    def has_room(self, size: int) -> bool:
        """Whether a task of that many bytes still belongs into this frame."""
        return self.sendable < MAX_FRAME_ITEMS and (
            self.sendable == 0 or self._size + size <= SOFT_FRAME_BYTES
        )

    def results(self, answer: IngestTasksResponse) -> Iterator[Created]:
        """What became of each task, in order."""
        if len(answer.results) != self.sendable:
            raise InternalError(f"{len(answer.results)} results came for a frame of {self.sendable} tasks")
        return self.merged(iter(answer.results))

    def merged(self, answers: Iterator[CreateTaskResult]) -> Iterator[Created]:
        """The answers and what was refused here, in order."""
        for position in range(self.count):
            index = self.first + position
            error = self.refused.get(position)
            yield Created(index, None, error) if error else conversion.created(index, next(answers))


class Ingest:
    """The state of one bulk creation.

    Frames move from the one being filled over those that wait to those under way. `unanswered` keeps the
    order of the series, and is what a new stream has to send first.
    """

    def __init__(self, window: int = DEFAULT_WINDOW) -> None:
        self.unanswered: deque[Frame] = deque()
        self._window = window
        self._waiting: deque[Frame] = deque()
        self._filling = Frame(0)
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
        return self._ended and not (self.unanswered or self._waiting or self._filling.sendable)

    @property
    def all_sent(self) -> bool:
        """Whether there is nothing more to send."""
        return self._ended and not (self._waiting or self._filling.sendable)

    def take(self) -> Frame | None:
        """The next frame to send; None when there is none, or it is worth waiting for more tasks."""
        if not self._waiting and self._filling.sendable and (self._ended or not self.unanswered):
            self._close()
        return self.take_full()

    def take_full(self) -> Frame | None:
        """The next full frame to send, if there is one."""
        if not self._waiting:
            return None
        frame = self._waiting.popleft()
        self.unanswered.append(frame)
        return frame

    def answered(self, answer: IngestTasksResponse) -> Iterator[Created]:
        """The results of the oldest frame under way."""
        if not self.unanswered:
            raise InternalError(f"frame {answer.frame} was answered, but none is under way")
        return self.unanswered.popleft().results(answer)

    def leftover(self) -> Iterator[Created]:
        """When all is finished: tasks at the very end that could not be sent."""
        return self._filling.merged(iter(()))

    def _roomy(self, size: int) -> Frame:
        if not self._filling.has_room(size):
            self._close()
        return self._filling

    def _close(self) -> None:
        frame = self._filling
        self._waiting.append(frame)
        self._filling = Frame(frame.first + frame.count)
