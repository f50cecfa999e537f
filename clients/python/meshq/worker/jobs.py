"""The tasks that are at the worker, from their assignment to their answer."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import threading
from collections.abc import Callable
from typing import Any

from meshq.v1.task_pb2 import Task
from meshq.v1.worker_service_pb2 import Assignment, TaskResult
from meshq.worker import outcomes
from meshq.worker.arguments import Bound
from meshq.worker.context import News, TaskContext
from meshq.worker.errors import TaskCancelled
from meshq.worker.registry import Handler


class Stop(enum.Enum):
    """Why a handler is to stop."""

    CANCELLED = "cancelled"
    LEASE_LOST = "lease lost"
    SHUTDOWN = "shutdown"


class Job:
    """One assigned task.

    Attributes:
        token: Names the lease.
        attempt: The number of the attempt.
        task: The specification.
        handler: What runs it.
        claimed: Whether a runner took it; from then on it may have had effects.
        started: When that was, in seconds since the epoch.
        stop: Why it is to stop, if it is.
        stop_reason: The same in the words of who asked for it.
        handle: The asyncio task, for handlers in a loop.
    """

    __slots__ = (
        "_context",
        "_deadline",
        "attempt",
        "claimed",
        "handle",
        "handler",
        "started",
        "stop",
        "stop_reason",
        "task",
        "token",
    )

    def __init__(self, assignment: Assignment, handler: Handler) -> None:
        self.token = assignment.lease_token
        self.attempt = assignment.attempt
        self.task: Task = assignment.task
        self.handler = handler
        self.claimed = False
        self.started = 0.0
        self.stop: Stop | None = None
        self.stop_reason = ""
        self.handle: asyncio.Task[None] | None = None
        self._context: TaskContext | None = None
        self._deadline = assignment.expire_time if assignment.HasField("expire_time") else None

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
        return args, keywords

    def ask_to_stop(self, why: Stop, reason: str = "") -> None:
        """Tell a handler that looks at its context."""
        self.stop_reason = reason
        self.stop = why
        if self._context is not None:
            self._context.cancel(reason)

    def succeeded(self, value: Any) -> TaskResult:
        """The answer for a returned value; it counts even when the handler was to stop."""
        return outcomes.stamp(outcomes.success(self.token, value), self.started)

    def failed(self, error: BaseException) -> TaskResult | None:
        """The answer for an exception; None when nobody waits for one."""
        stopped = isinstance(error, (TaskCancelled, asyncio.CancelledError))
        if stopped and self.stop is not None:
            return self.stopped()
        return outcomes.stamp(outcomes.raised(self.token, error), self.started)

    def stopped(self) -> TaskResult | None:
        """The answer of a job that stopped as it was asked to; None when nobody waits for one."""
        if self.stop is not Stop.CANCELLED:
            return None
        result = outcomes.cancelled(self.token, self.stop_reason)
        return outcomes.stamp(result, self.started) if self.started else result

    def _make_context(self, news: News) -> TaskContext:
        deadline = self._deadline.ToDatetime(dt.UTC) if self._deadline is not None else None
        self._context = TaskContext(self.task, self.attempt, self.token, news, deadline)
        if self.stop is not None:  # It came just now.
            self._context.cancel(self.stop_reason)
        return self._context


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
        self._answer(None if job.stop is Stop.LEASE_LOST else result)
        if self._emptied is not None and not self._jobs:
            self._emptied.set()

    def wait_empty(self, seconds: float) -> bool:
        """Wait until no job is left, for at most so long; False when some are."""
        self._emptied = threading.Event()
        return not self._jobs or self._emptied.wait(seconds) or not self._jobs
