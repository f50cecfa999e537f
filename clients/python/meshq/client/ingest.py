"""Bulk creation without its I/O: answers are matched with the frames."""

from __future__ import annotations

from collections.abc import Iterator

from meshq.client import conversion
from meshq.client.frames import DEFAULT_WINDOW, Frame, Frames
from meshq.client.models import Created
from meshq.client.operations import new_request_id
from meshq.contract.errors import InternalError
from meshq.v1.task_service_pb2 import CreateTaskResult, IngestTasksRequest, IngestTasksResponse


class Ingest(Frames[IngestTasksRequest, IngestTasksResponse, Created]):
    """The state of one bulk creation.

    Args:
        window: Frames that are under way at a time.
    """

    def __init__(self, window: int = DEFAULT_WINDOW) -> None:
        super().__init__(lambda: IngestTasksRequest(request_id=new_request_id()), window)

    def read(self, answer: IngestTasksResponse) -> Iterator[Created]:
        """The results of the oldest frame under way, in order."""
        if not self.unanswered:
            raise InternalError(f"frame {answer.frame} was answered, but none is under way")
        frame = self.unanswered.popleft()
        if len(answer.results) != len(frame.sent):
            raise InternalError(f"{len(answer.results)} results came for a frame of {len(frame.sent)} tasks")
        return _merged(frame, iter(answer.results))

    def leftover(self) -> Iterator[Created]:
        """See `Frames`."""
        return _merged(self._filling, iter(()))


def _merged(frame: Frame[IngestTasksRequest], answers: Iterator[CreateTaskResult]) -> Iterator[Created]:
    """The answers and what was refused here, in order."""
    for index in range(frame.first, frame.first + frame.count):
        error = frame.refused.get(index)
        yield Created(index, None, error) if error else conversion.created(index, next(answers))
