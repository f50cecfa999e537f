"""What the synchronous client does with tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Unpack

from meshq.client import completing, operations, waiting
from meshq.client.frames import DEFAULT_WINDOW, Frames, Outcome, Request, Response
from meshq.client.ingest import Ingest
from meshq.client.models import (
    UNSET,
    Attempt,
    Awaited,
    Cancelled,
    Count,
    Created,
    Found,
    ListOptions,
    Page,
    Ran,
    Task,
    TaskChange,
    TaskChanges,
    TaskEvent,
    TaskFilter,
    TaskOptions,
    TaskSpec,
    TaskView,
    Unset,
)
from meshq.client.operations import WaitMode
from meshq.client.runs import DEFAULT_MAX_OPEN, Runs
from meshq.client.sync_bulk import exchange
from meshq.client.sync_calls import SyncCalls
from meshq.client.values import JsonValue
from meshq.client.watching import TasksWatch, TaskWatch
from meshq.contract.errors import InvalidRequest, MeshqError


class SyncTasks(SyncCalls):
    """The methods about tasks."""

    def create(
        self,
        type: str,  # noqa: A002 - the field's name
        payload: JsonValue | Unset = UNSET,
        *,
        request_id: str | None = None,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Task:
        """Create a task and return it once it is stored durably, without waiting for a worker."""
        spec = TaskSpec(type=type, payload=payload, **options)
        return self._perform(operations.create_task(spec, request_id), timeout)

    def create_many(
        self, specs: Iterable[TaskSpec], *, window: int = DEFAULT_WINDOW, timeout: float | None = None
    ) -> Iterator[Created]:
        """Create many tasks over one stream and yield what became of each, in order.

        As `Client.create_many`, but frames are only sent full, so that a slow source delays its results.
        """
        return self._streamed(Ingest(window), specs, self._open_ingest, timeout)

    def run_many(
        self,
        specs: Iterable[TaskSpec],
        *,
        view: TaskView = TaskView.RESULT,
        max_open: int = DEFAULT_MAX_OPEN,
        timeout: float | None = None,
    ) -> Iterator[Ran]:
        """Create many tasks and yield each as it has ended, in whatever order they end.

        As `Client.run_many`, but tasks are only taken while results are waited for, so that a slow source
        delays them.
        """
        return self._streamed(Runs(view, max_open), specs, self._open_run, timeout)

    def _streamed(
        self,
        frames: Frames[Request, Response, Outcome],
        specs: Iterable[TaskSpec],
        open_stream: Callable[[Iterator[Request]], Any],
        timeout: float | None,
    ) -> Iterator[Outcome]:
        """Send tasks over one stream after the other, and yield what became of them."""
        source = iter(specs)
        attempts = self._attempts(timeout)
        while not frames.finished:
            try:
                for answer in exchange(open_stream, frames, source):
                    attempts.progressed()
                    yield from frames.read(answer)
            except MeshqError as error:
                self._pause(attempts, error)
        yield from frames.leftover()

    def run(
        self,
        type: str | None = None,  # noqa: A002 - the field's name
        payload: JsonValue | Unset = UNSET,
        *,
        task_id: str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        check: bool = False,
        **options: Unpack[TaskOptions],
    ) -> Task:
        """Create a task, or take an existing one by its id, and wait for its end."""
        if (type is None) == (task_id is None):
            raise InvalidRequest.field("task_id", "must be given, or else a type, but not both")
        if type is None:
            return self._follow(waiting.wait_for(task_id or "", timeout, check))
        spec = TaskSpec(type=type, payload=payload, **options)
        return self._follow(waiting.run(spec, request_id, timeout, check))

    def wait(
        self,
        task_ids: Iterable[str],
        *,
        mode: WaitMode = "all",
        timeout: float | None = None,
        view: TaskView | None = None,
    ) -> Awaited:
        """Wait until all of up to 1,000 tasks have ended, or any of them."""
        return self._follow(waiting.wait_for_several(task_ids, mode, timeout, view))

    def get(self, task_id: str, *, view: TaskView | None = None, timeout: float | None = None) -> Task:
        """Read one task; the FULL view unless told otherwise."""
        return self._perform(operations.get_task(task_id, view), timeout)

    def get_many(
        self, task_ids: Iterable[str], *, view: TaskView | None = None, timeout: float | None = None
    ) -> Found:
        """Read up to 1,000 tasks by id; the BASIC view unless told otherwise."""
        return self._perform(operations.batch_get_tasks(task_ids, view), timeout)

    def list(self, *, timeout: float | None = None, **wanted: Unpack[ListOptions]) -> Iterator[Task]:
        """Iterate over tasks, the newest first, reading page by page."""
        return self._items(lambda token: operations.list_tasks(token, wanted), timeout)

    def list_page(
        self, page_token: str = "", *, timeout: float | None = None, **wanted: Unpack[ListOptions]
    ) -> Page[Task]:
        """Read one page of tasks, for those who keep the token themselves."""
        return self._perform(operations.list_tasks(page_token, wanted), timeout)

    def count(self, *, timeout: float | None = None, **wanted: Unpack[TaskFilter]) -> Count:
        """Count tasks; all by default. Counting stops at 1,000,000."""
        return self._perform(operations.count_tasks(wanted), timeout)

    def attempts(self, task_id: str, *, timeout: float | None = None) -> tuple[Attempt, ...]:
        """Read the attempts of a task that have ended, the oldest first."""
        return self._perform(operations.list_attempts(task_id), timeout)

    def watch(self, task_id: str, *, timeout: float | None = None) -> Iterator[TaskEvent]:
        """Iterate over what happens to a task: the task itself at each change, progress, and output."""
        return self._watched(TaskWatch(task_id), timeout)

    def watch_tasks(
        self,
        *,
        resume_token: bytes = b"",
        timeout: float | None = None,
        **wanted: Unpack[TaskFilter],
    ) -> Iterator[TaskChange]:
        """Iterate without end over every change of state of the tasks that a filter selects."""
        return self._watched(TasksWatch(wanted, resume_token), timeout)

    def update(self, task_id: str, *, timeout: float | None = None, **changes: Unpack[TaskChanges]) -> Task:
        """Change a task that does not run yet: priority, start, input or labels; see `TaskChanges`."""
        return self._perform(operations.update_task(task_id, changes), timeout)

    def cancel(self, task_id: str, reason: str = "", *, timeout: float | None = None) -> Task:
        """Ask for a task to end, and return it as it stands; watch it to see it end."""
        return self._perform(operations.cancel_task(task_id, reason), timeout)

    def cancel_many(
        self,
        task_ids: Iterable[str] | None = None,
        *,
        reason: str = "",
        timeout: float | None = None,
        **wanted: Unpack[TaskFilter],
    ) -> Cancelled:
        """Ask for many tasks to end, named by id or else by a filter; goes on until all were asked."""
        return self._follow(completing.cancel_many(task_ids, wanted, reason), timeout)

    def delete(self, task_id: str, *, force: bool = False, timeout: float | None = None) -> Task:
        """Remove a task that has ended, and return what it was."""
        return self._perform(operations.delete_task(task_id, force=force), timeout)

    def delete_many(
        self,
        task_ids: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
        **wanted: Unpack[TaskFilter],
    ) -> int:
        """Remove many ended tasks, named by id or else by a filter, and return how many there were."""
        return self._follow(completing.delete_many(task_ids, wanted), timeout)

    def redrive(self, task_id: str, *, timeout: float | None = None) -> Task:
        """Make a new task of one that ended as FAILED, EXPIRED or CANCELLED, and return the new one."""
        return self._perform(operations.redrive_task(task_id), timeout)

    def redrive_many(
        self,
        *,
        rate: float | None = None,
        max_tasks: int | None = None,
        timeout: float | None = None,
        **wanted: Unpack[TaskFilter],
    ) -> int:
        """Make new tasks of all that a filter selects, and return how many; the oldest first."""
        return self._follow(completing.redrive_many(wanted, rate, max_tasks), timeout)
