"""The tasks that are at the worker, from their assignment to their answer."""

from __future__ import annotations

import asyncio
import enum
import threading
from collections.abc import Callable
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from meshq.v1.task_pb2 import Task
from meshq.v1.worker_service_pb2 import Assignment, TaskResult
from meshq.worker import outcomes
from meshq.worker.arguments import Bound
from meshq.worker.context import News, TaskContext
from meshq.worker.errors import Ending, TaskCancelled
from meshq.worker.registry import Handler


class Stop(enum.Enum):
    """Why a handler is to stop."""

    CANCELLED = "cancelled"
    LEASE_LOST = "lease lost"
    SHUTDOWN = "shutdown"


class Job:
    """One assigned task.

    Attributes:
        assignment: What the server assigned.
        token: Names the lease.
        task: The specification.
        handler: What runs it.
        received: When it came to the worker, in seconds since the epoch.
        claimed: Whether a runner took it; from then on it may have had effects.
        started: When that was, in seconds since the epoch.
        ended: Whether its handler has ended, or will never begin.
        stop: Why it is to stop, if it is.
        stop_reason: The same in the words of who asked for it.
        grace: Seconds that it has to stop by itself.
        handle: The asyncio task, for handlers in a loop.
    """

    __slots__ = (
        "_context",
        "assignment",
        "claimed",
        "ended",
        "grace",
        "handle",
        "handler",
        "received",
        "started",
        "stop",
        "stop_reason",
        "task",
        "token",
    )

    def __init__(self, assignment: Assignment, handler: Handler, received: float) -> None:
        self.assignment = assignment
        self.token = assignment.lease_token
        self.task: Task = assignment.task
        self.handler = handler
        self.received = received
        self.claimed = False
        self.started = 0.0
        self.ended = False
        self.stop: Stop | None = None
        self.stop_reason = ""
        self.grace = 0.0
        self.handle: asyncio.Task[None] | None = None
        self._context: TaskContext | None = None

    def claim(self) -> bool:
        """A runner takes the job; False when it was stopped before."""
        self.started = outcomes.now()
        self.claimed = True
        return self.stop is None

    def bind(self, news: News) -> Bound:
        """The arguments for the handler.

        Raises:
            InvalidInput: The task's input does not fit.
        """
        args, keywords = self.handler.arguments.bind(self.task)
        name = self.handler.arguments.context
        if name is not None:
            keywords[name] = self._make_context(news)
        if self.task.HasField("heartbeat_timeout"):
            news.keep_alive(self)
        return args, keywords

    def ask_to_stop(self, why: Stop, reason: str = "", grace: float = 0.0) -> None:
        """Tell a handler that looks at its context."""
        self.stop_reason = reason
        self.grace = grace
        self.stop = why
        if self._context is not None:
            self._context.cancel(reason)

    def succeeded(self, value: Any) -> TaskResult | None:
        """The answer for a returned value; it counts even when the handler was to stop."""
        if isinstance(value, Ending):
            return self.failed(value)
        self.ended = True
        return outcomes.stamp(outcomes.success(self.token, value), self.started)

    def failed(self, error: BaseException) -> TaskResult | None:
        """The answer for an exception; None when nobody waits for one."""
        self.ended = True
        stopped = isinstance(error, (TaskCancelled, asyncio.CancelledError))
        if stopped and self.stop is not None:
            return self.stopped(str(error))
        return outcomes.stamp(outcomes.raised(self.token, error, self.handler.no_retry), self.started)

    def stopped(self, message: str = "") -> TaskResult | None:
        """The answer of a job that stopped as it was asked to; None when nobody waits for one.

        Args:
            message: What the handler wants to say about it; by default why it was stopped.
        """
        if self.stop is not Stop.CANCELLED:
            return None
        result = outcomes.cancelled(self.token, message or self.stop_reason)
        return outcomes.stamp(result, self.started) if self.started else result

    def _make_context(self, news: News) -> TaskContext:
        self._context = TaskContext(self.assignment, news, deadline(self.task, self.received))
        if self.stop is not None:  # It came just now.
            self._context.cancel(self.stop_reason)
        return self._context


def deadline(task: Task, received: float) -> float | None:
    """When an attempt is over by the timeouts of its task, in seconds since the epoch; None without any.

    Args:
        task: The specification.
        received: When the attempt came to the worker.
    """
    ends = []
    if task.HasField("start_to_close_timeout"):
        ends.append(received + _seconds(task.start_to_close_timeout))
    if task.HasField("schedule_to_close_timeout"):
        # A start that had passed when the task was created means at once.
        start = max(_seconds(task.start_time), _seconds(task.create_time))
        ends.append(start + _seconds(task.schedule_to_close_timeout))
    return min(ends, default=None)


def _seconds(message: Duration | Timestamp) -> float:
    return message.seconds + message.nanos / 1e9


def call(job: Job, news: News) -> TaskResult | None:
    """Run a plain function and make its answer."""
    try:
        args, keywords = job.bind(news)
        return job.succeeded(job.handler.function(*args, **keywords))
    except BaseException as error:  # noqa: BLE001 - whatever it raises is the task's outcome
        return job.failed(error)


class Board:
    """The jobs by lease. Whoever takes a job off the board answers it, so that it is answered once."""

    def __init__(self, answer: Callable[[TaskResult | None], None]) -> None:
        self._answer = answer
        self._jobs: dict[bytes, Job] = {}
        self._emptied: threading.Event | None = None

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def jobs(self) -> list[Job]:
        """The jobs, in the order of assignment."""
        return list(self._jobs.values())

    def add(self, job: Job) -> bool:
        """Put a job on the board; False when its lease is there already."""
        return self._jobs.setdefault(job.token, job) is job

    def get(self, token: bytes) -> Job | None:
        """The job of a lease."""
        return self._jobs.get(token)

    def finish(self, job: Job, result: TaskResult | None) -> None:
        """Take a job off and answer it; of a job that is off already nothing is heard."""
        if self._jobs.pop(job.token, None) is None:
            return
        job.ended = True
        self._answer(None if job.stop is Stop.LEASE_LOST else result)
        if self._emptied is not None and not self._jobs:
            self._emptied.set()

    def wait_empty(self, seconds: float) -> bool:
        """Wait until no job is left, for at most so long; False when some are."""
        self._emptied = threading.Event()
        return not self._jobs or self._emptied.wait(seconds) or not self._jobs
