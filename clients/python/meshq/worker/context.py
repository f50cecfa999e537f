"""What a handler can see and say about its task while it runs."""

from __future__ import annotations

import base64
import datetime as dt
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from meshq.client import conversion
from meshq.client.models import Task as ClientTask
from meshq.client.values import JsonValue, from_value, to_value
from meshq.contract.limits import (
    MAX_CHECKPOINT_BYTES,
    MAX_OUTPUT_CHUNK_BYTES,
    MAX_OUTPUT_STREAM_LENGTH,
    MAX_PROGRESS_DETAIL_BYTES,
    MAX_REASON_LENGTH,
)
from meshq.v1.worker_service_pb2 import Assignment, LeaseOutput, LeaseProgress
from meshq.worker.errors import TaskCancelled

if TYPE_CHECKING:  # a job makes its context
    from meshq.worker.jobs import Job

LOG_STREAM: Final = "log"
HEARTBEAT_SECONDS: Final = 0.05
"""Heartbeats that come faster are not passed on: the shortest heartbeat_timeout is twice as long."""


class News(Protocol):
    """Where a handler's words go."""

    def progress(self, progress: LeaseProgress) -> None:
        """Take progress, a checkpoint, or a mere sign of life of a lease.

        What was not sent yet is replaced by what is newer of its kind.
        """

    def output(self, output: LeaseOutput) -> None:
        """Take a piece of output."""

    def keep_alive(self, job: Job) -> None:
        """Give signs of life for a job with a heartbeat_timeout as long as its handler does not."""


class TaskContext:
    """A task at work. A handler gets it by a parameter with this type; it may be used from any thread.

    Attributes:
        task_id: The task.
        type: Its type.
        queue: Its queue.
        attempt: The number of this attempt, from 1.
        content_type: The media type of its `data`.
        deadline: When the attempt is over whatever the handler does, by the task's start-to-close or
            schedule-to-close timeout; None without either.
    """

    def __init__(self, assignment: Assignment, news: News, deadline: float | None = None) -> None:
        task = assignment.task
        self.task_id = task.task_id
        self.type = task.type
        self.queue = task.queue
        self.attempt = assignment.attempt
        self.content_type = task.content_type
        self.deadline = None if deadline is None else dt.datetime.fromtimestamp(deadline, dt.UTC)
        self._assignment = assignment
        self._token = assignment.lease_token
        self._news = news
        self._offsets: dict[str, int] = {}
        self._cancelled = threading.Event()
        self._cancel_reason = ""
        self._lock = threading.Lock()
        self._beaten_at = 0.0

    # The task

    @property
    def task(self) -> ClientTask:
        """All that the task was created with, as `Client.get` shows it."""
        return conversion.task(self._assignment.task)

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that it was created with."""
        return dict(self._assignment.task.headers)

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels that it was created with."""
        return dict(self._assignment.task.labels)

    @property
    def priority(self) -> int:
        """Its priority, 0 to 9."""
        return self._assignment.task.priority

    @property
    def max_attempts(self) -> int:
        """How many attempts it has in all, snoozed ones not counted."""
        return self._assignment.task.max_attempts

    @property
    def last_checkpoint(self) -> Any:
        """The latest checkpoint of the attempts before this one, a JSON value; None if there is none."""
        return from_value(self._assignment.checkpoint)

    @property
    def lease_token(self) -> str:
        """What names this attempt to a `Completer`, as text of `A-Z a-z 0-9 - _`.

        Whoever has it can end the attempt.
        """
        return base64.urlsafe_b64encode(self._token).decode().rstrip("=")

    def time_left(self) -> float | None:
        """Seconds until the deadline, not less than 0; None without one."""
        if self.deadline is None:
            return None
        return max((self.deadline - dt.datetime.now(dt.UTC)).total_seconds(), 0.0)

    # Being cancelled

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

    def check_cancelled(self) -> None:
        """Stop here if the handler should stop.

        Raises:
            TaskCancelled: It should; let it pass.
        """
        if self._cancelled.is_set():
            raise TaskCancelled(self._cancel_reason)

    def cancel(self, reason: str = "") -> None:
        """Called by the worker: the handler should stop."""
        self._cancel_reason = reason
        self._cancelled.set()

    # What the handler says

    def progress(self, fraction: float, message: str = "", detail: JsonValue = None) -> None:
        """Report how far the task is. Cheap; only the latest word is sent, several times a second.

        It is a heartbeat as well.

        Args:
            fraction: The part that is done, 0 to 1.
            message: For people; cut at 1,024 characters.
            detail: Anything else, as a JSON value of at most 16 KiB.

        Raises:
            ValueError: The fraction is not in its range, or the detail is no JSON or too large.
        """
        self._news.progress(progress_of(self._token, fraction, message, detail))

    def heartbeat(self) -> None:
        """Give a sign of life, for a task with a heartbeat_timeout. Cheap; call it as often as you like."""
        now = time.monotonic()
        if now - self._beaten_at >= HEARTBEAT_SECONDS:
            self._beaten_at = now
            self._news.progress(LeaseProgress(lease_token=self._token))

    def checkpoint(self, value: JsonValue) -> None:
        """Leave where the next attempt can go on: it finds the latest one in `last_checkpoint`.

        Stored when the attempt ends at its worker, and at the latest ten seconds from now; a worker that
        dies takes what was not stored along. It is a heartbeat as well.

        Args:
            value: A JSON value of at most 64 KiB, in place of the one before.

        Raises:
            ValueError: The value is no JSON or too large.
        """
        self._news.progress(checkpoint_of(self._token, value))

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

    def _write(self, stream: str, piece: bytes) -> None:
        offset = self._offsets.get(stream, 0)
        self._offsets[stream] = offset + len(piece)
        self._news.output(LeaseOutput(lease_token=self._token, offset=offset, stream=stream, chunk=piece))


def progress_of(token: bytes, fraction: float, message: str, detail: JsonValue) -> LeaseProgress:
    """The word of a lease about how far it is; see `TaskContext.progress`."""
    if not 0.0 <= fraction <= 1.0:  # Not a number is not in any range either.
        raise ValueError(f"fraction must be 0 to 1, not {fraction}")
    word = LeaseProgress(lease_token=token, fraction=fraction, message=message[:MAX_REASON_LENGTH])
    if detail is not None:
        word.detail.CopyFrom(to_value(detail))
        _check_size("detail", word.detail.ByteSize(), MAX_PROGRESS_DETAIL_BYTES)
    return word


def checkpoint_of(token: bytes, value: JsonValue) -> LeaseProgress:
    """The word of a lease about where to go on; see `TaskContext.checkpoint`."""
    word = LeaseProgress(lease_token=token, checkpoint=to_value(value))
    _check_size("checkpoint", word.checkpoint.ByteSize(), MAX_CHECKPOINT_BYTES)
    return word


def _check_size(name: str, size: int, most: int) -> None:
    if size > most:
        raise ValueError(f"{name} must be at most {most:,} bytes encoded, not {size:,}")
