"""Running many tasks without the I/O: tasks go out in frames and come back one by one, as they end.

Over a new stream frames that were not stored are sent again under their request ids. Tasks that were stored
and did not come back are asked for by their ids, since request ids are forgotten after a day, and tasks may
take longer than that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from meshq.client import conversion
from meshq.client.frames import Frame, Frames
from meshq.client.models import Ran, TaskView
from meshq.client.operations import new_request_id, view_number
from meshq.contract.errors import InternalError, InvalidRequest
from meshq.contract.limits import MAX_FRAME_ITEMS, MAX_RUN_TASKS
from meshq.contract.status import from_status
from meshq.v1.task_service_pb2 import RunTasksFrame, RunTasksRequest, RunTasksResponse, RunTasksResult

DEFAULT_MAX_OPEN: Final = MAX_RUN_TASKS
"""Tasks that have been created and have not ended; some are needed to keep all workers busy."""


class Runs(Frames[RunTasksRequest, RunTasksResponse, Ran]):
    """The state of one run of many tasks.

    Args:
        view: How much of each task is wanted.
        max_open: How many tasks may be open at a time.
    """

    def __init__(self, view: TaskView, max_open: int = DEFAULT_MAX_OPEN) -> None:
        if max_open < 1:
            raise InvalidRequest.field("max_open", f"must be at least 1, not {max_open}")
        number = view_number(view)
        super().__init__(lambda: RunTasksRequest(request_id=new_request_id(), view=number))
        self._view = number
        self._max_open = max_open
        self._open: dict[int, str] = {}
        self._places: dict[int, int] = {}
        self._sent = self._returned = 0

    @property
    def full(self) -> bool:
        """Whether no more tasks should be added until some have come back."""
        return super().full or self.added - self._returned >= self._max_open

    @property
    def finished(self) -> bool:
        """Whether all tasks have come back and no more will be given."""
        return super().finished and not self._open

    def take_full(self) -> RunTasksRequest | None:
        """The next full frame to send, if there is one."""
        request = super().take_full()
        if request is not None:
            self._open.update(dict.fromkeys(self.unanswered[-1].sent, ""))
        return request

    def restart(self) -> Sequence[RunTasksRequest]:
        """What a new stream has to send first."""
        self._places.clear()
        self._sent = 0
        again = deque(frame for frame in self.unanswered if frame.request.tasks)
        stored = ((index, task_id) for index, task_id in self._open.items() if task_id)
        while part := tuple(islice(stored, MAX_FRAME_ITEMS)):
            request = RunTasksRequest(task_ids=[task_id for _, task_id in part], view=self._view)
            frame = Frame(request, 0)
            frame.sent = [index for index, _ in part]
            again.append(frame)
        self.unanswered = again
        return super().restart()

    def _sending(self, frame: Frame[RunTasksRequest]) -> None:
        # Results name the positions in the stream.
        self._places.update(enumerate(frame.sent, self._sent))
        self._sent += len(frame.sent)

    def read(self, answer: RunTasksResponse) -> Iterator[Ran]:
        """What became of tasks, as they end."""
        for frame in answer.frames:
            yield from self._stored(frame)
        for result in answer.results:
            index = self._places.pop(result.index, None)
            # What came back before its frame was stored comes back again over the next stream.
            if index is not None and self._open.pop(index, None) is not None:
                self._returned += 1
                yield _ran(index, result)

    def leftover(self) -> Iterator[Ran]:
        """See `Frames`."""
        return _refused(self._filling)

    def _stored(self, answer: RunTasksFrame) -> Iterator[Ran]:
        if not self.unanswered:
            raise InternalError(f"frame {answer.frame} was stored, but none is under way")
        frame = self.unanswered.popleft()
        if len(answer.task_ids) != len(frame.sent):
            raise InternalError(f"{len(answer.task_ids)} ids came for a frame of {len(frame.sent)} tasks")
        for index, task_id in zip(frame.sent, answer.task_ids, strict=True):
            if index in self._open:
                self._open[index] = task_id
        return _refused(frame)


def _refused(frame: Frame[RunTasksRequest]) -> Iterator[Ran]:
    for index, error in frame.refused.items():
        yield Ran(index, None, error)


def _ran(index: int, result: RunTasksResult) -> Ran:
    if result.HasField("error"):
        return Ran(index, None, from_status(result.error))
    return Ran(index, conversion.task(result.task))
