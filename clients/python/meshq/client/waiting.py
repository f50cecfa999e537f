"""Waiting for the end of tasks as a series of calls, shared by both clients.

The server waits for a limited time in each call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from meshq.client import operations
from meshq.client.models import Awaited, Task, TaskFailed, TaskSpec, TaskView
from meshq.client.operations import Steps, WaitMode
from meshq.contract.errors import DeadlineExceeded

WAIT_SECONDS: Final = 10.0
"""How long one call waits. Short enough for the proxies on the way, which like to end calls at 15 s."""


def run(spec: TaskSpec, request_id: str | None, timeout: float | None, check: bool) -> Steps[Task]:
    """Create a task and wait for its end.

    Raises:
        DeadlineExceeded: The task is still open after `timeout` seconds; `metadata` has its id.
        TaskFailed: It ended without success, and `check` is set.
    """
    request_id = request_id or operations.new_request_id()
    wait = _Patience(timeout)
    task = yield operations.run_task(spec, request_id, wait.next())
    return (yield from _until_done(task, wait, check))


def wait_for(task_id: str, timeout: float | None, check: bool) -> Steps[Task]:
    """Wait for the end of a task that exists; raises as `run` does."""
    wait = _Patience(timeout)
    task = yield operations.wait_for_task(task_id, wait.next())
    return (yield from _until_done(task, wait, check))


def wait_for_several(
    task_ids: Iterable[str], mode: WaitMode, timeout: float | None, view: TaskView | None
) -> Steps[Awaited]:
    """Wait until any or all of several tasks have ended, or the time is over."""
    wait = _Patience(timeout)
    ids = tuple(task_ids)
    while True:
        found: Awaited = yield operations.await_tasks(ids, mode, view, wait.next())
        # Without an open task, nothing is left to wait for: the others are not known.
        if found.satisfied or wait.over() or all(task.done for task in found.tasks):
            return found


def _until_done(task: Task, wait: _Patience, check: bool) -> Steps[Task]:
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
