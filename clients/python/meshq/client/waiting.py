"""Waiting for a task's end as a series of calls, shared by both clients.

The server waits for a limited time in each call. A generator yields the calls to make, takes their
answers, and returns the task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Final

from meshq.client import operations
from meshq.client.models import Task, TaskFailed, TaskSpec
from meshq.client.operations import Operation
from meshq.contract.errors import DeadlineExceeded

WAIT_SECONDS: Final = 10.0
"""How long one call waits. Short enough for the proxies on the way, which like to end calls at 15 s."""

Steps = Generator[Operation[Task], Task, Task]


def run(spec: TaskSpec, request_id: str | None, timeout: float | None, check: bool) -> Steps:
    """Create a task and wait for its end.

    Raises:
        DeadlineExceeded: The task is still open after `timeout` seconds; `metadata` has its id.
        TaskFailed: It ended without success, and `check` is set.
    """
    request_id = request_id or operations.new_request_id()
    wait = _Patience(timeout)
    task = yield operations.run_task(spec, request_id, wait.next())
    return (yield from _until_done(task, wait, check))


def wait_for(task_id: str, timeout: float | None, check: bool) -> Steps:
    """Wait for the end of a task that exists; raises as `run` does."""
    wait = _Patience(timeout)
    task = yield operations.wait_for_task(task_id, wait.next())
    return (yield from _until_done(task, wait, check))


def _until_done(task: Task, wait: _Patience, check: bool) -> Steps:
    while not task.done:
        if wait.over():
            raise DeadlineExceeded(f"task {task.task_id} is still {task.state}", task_id=task.task_id)
        task = yield operations.wait_for_task(task.task_id, wait.next())
    if check and not task.succeeded:
        raise TaskFailed(task)
    return task


class _Patience:
    def __init__(self, timeout: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = None if timeout is None else clock() + timeout

    def over(self) -> bool:
        return self._end is not None and self._clock() >= self._end

    def next(self) -> float:
        if self._end is None:
            return WAIT_SECONDS
        return min(WAIT_SECONDS, max(self._end - self._clock(), 0.0))
