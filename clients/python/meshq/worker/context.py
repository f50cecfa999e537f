"""What a handler can see and say about its task while it runs."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Mapping
from typing import Final, Protocol

from meshq.client.values import JsonValue, to_value
from meshq.contract.limits import (
    MAX_OUTPUT_CHUNK_BYTES,
    MAX_OUTPUT_STREAM_LENGTH,
    MAX_PROGRESS_DETAIL_BYTES,
    MAX_REASON_LENGTH,
)
from meshq.v1.task_pb2 import Task
from meshq.v1.worker_service_pb2 import LeaseOutput, LeaseProgress
from meshq.worker.errors import TaskCancelled

LOG_STREAM: Final = "log"


class News(Protocol):
    """Where a handler's words go."""

    def progress(self, progress: LeaseProgress) -> None:
        """Take the latest progress of a lease; an earlier one that was not sent yet is dropped."""

    def output(self, output: LeaseOutput) -> None:
        """Take a piece of output."""


class TaskContext:
    """A task at work. A handler gets it by a parameter with this type; it may be used from any thread.

    Attributes:
        task_id: The task.
        type: Its type.
        queue: Its queue.
        attempt: The number of this attempt, from 1.
        headers: The headers that it was created with.
        content_type: The media type of its `data`.
        deadline: When the lease ends whatever the handler does; None while there is no such time.
    """

    def __init__(
        self, task: Task, attempt: int, lease_token: bytes, news: News, deadline: dt.datetime | None = None
    ) -> None:
        self.task_id = task.task_id
        self.type = task.type
        self.queue = task.queue
        self.attempt = attempt
        self.headers: Mapping[str, str] = dict(task.headers)
        self.content_type = task.content_type
        self.deadline = deadline
        self._token = lease_token
        self._news = news
        self._offsets: dict[str, int] = {}
        self._cancelled = threading.Event()
        self._cancel_reason = ""
        self._lock = threading.Lock()

    @property
    def cancelled(self) -> bool:
        """Whether the handler should stop: the task was cancelled, or its lease was lost."""
        return self._cancelled.is_set()

    @property
    def cancel_reason(self) -> str:
        """Why, in the words of who cancelled it."""
        return self._cancel_reason

    def wait_cancelled(self, seconds: float) -> bool:
        """Sleep, but wake at once when the handler should stop. For plain functions.

        Returns:
            Whether it should stop.
        """
        return self._cancelled.wait(seconds)

    def raise_if_cancelled(self) -> None:
        """Stop here if the handler should stop.

        Raises:
            TaskCancelled: It should; let it pass.
        """
        if self._cancelled.is_set():
            raise TaskCancelled(self._cancel_reason)

    def progress(self, fraction: float, message: str = "", detail: JsonValue = None) -> None:
        """Report how far the task is. Cheap; only the latest word is sent, several times a second.

        Args:
            fraction: The part that is done, 0 to 1.
            message: For people; cut at 1,024 characters.
            detail: Anything else, as a JSON value of at most 16 KiB.

        Raises:
            ValueError: The fraction is not in its range, or the detail is no JSON or too large.
        """
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"fraction must be 0 to 1, not {fraction}")
        progress = LeaseProgress(
            lease_token=self._token, fraction=fraction, message=message[:MAX_REASON_LENGTH]
        )
        if detail is not None:
            progress.detail.CopyFrom(to_value(detail))
            if progress.detail.ByteSize() > MAX_PROGRESS_DETAIL_BYTES:
                raise ValueError(f"detail must be at most {MAX_PROGRESS_DETAIL_BYTES} bytes encoded")
        self._news.progress(progress)

    def log(self, line: str) -> None:
        """Write a line to the task's log."""
        self.output(f"{line}\n", stream=LOG_STREAM)

    def output(self, chunk: str | bytes, *, stream: str = "stdout") -> None:
        """Write to one of the task's streams, for those who watch it; nobody keeps it.

        Args:
            chunk: Text, sent as UTF-8, or bytes.
            stream: The stream's name, at most 64 characters.

        Raises:
            ValueError: The name breaks its rule.
        """
        if not 0 < len(stream) <= MAX_OUTPUT_STREAM_LENGTH:
            raise ValueError(f"stream must be 1 to {MAX_OUTPUT_STREAM_LENGTH} characters, not {stream!r}")
        data = chunk.encode("utf-8", "replace") if isinstance(chunk, str) else chunk
        with self._lock:
            for start in range(0, len(data), MAX_OUTPUT_CHUNK_BYTES):
                self._write(stream, data[start : start + MAX_OUTPUT_CHUNK_BYTES])

    def cancel(self, reason: str = "") -> None:
        """Called by the worker: the handler should stop."""
        self._cancel_reason = reason
        self._cancelled.set()

    def _write(self, stream: str, piece: bytes) -> None:
        offset = self._offsets.get(stream, 0)
        self._offsets[stream] = offset + len(piece)
        self._news.output(LeaseOutput(lease_token=self._token, offset=offset, stream=stream, chunk=piece))
