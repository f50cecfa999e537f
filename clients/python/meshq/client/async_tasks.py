"""What the asyncio client does with tasks."""
# ruff: noqa: ASYNC109 - a timeout here is a gRPC deadline: it travels to the server.

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Unpack

from meshq.client import completing, operations, waiting
from meshq.client.async_bulk import Bulk, StreamCall, TaskSource
from meshq.client.async_calls import AsyncCalls
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
from meshq.client.values import JsonValue
from meshq.client.watching import TasksWatch, TaskWatch
from meshq.contract.errors import InvalidRequest, MeshqError


class AsyncTasks(AsyncCalls):
    """The methods about tasks."""

    async def create(
        self,
        type: str,  # noqa: A002 - the field's name
        payload: JsonValue | Unset = UNSET,
        *,
        request_id: str | None = None,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Task:
        """Create a task and return it once it is stored durably, without waiting for a worker.

        Where the task's `unique_key` is held, the task that holds it is returned, unless `unique_policy`
        says otherwise.

        Args:
            type: The task type, which selects the handler.
            payload: The input as a JSON value.
            request_id: Makes creations with the same id one; a fresh id if None.
            timeout: Seconds for the call, repetitions included.
            options: Queue, data instead of a payload, labels, priority and the like: see `TaskOptions`.

        Raises:
            Conflict: With the reason UNIQUE_KEY_TAKEN, when another task holds the key and the policy is
                REJECT; `metadata["task_id"]` is its id.
        """
        spec = TaskSpec(type=type, payload=payload, **options)
        return await self._perform(operations.create_task(spec, request_id), timeout)

    def create_many(
        self,
        specs: Iterable[TaskSpec] | AsyncIterable[TaskSpec],
        *,
        window: int = DEFAULT_WINDOW,
        timeout: float | None = None,
    ) -> AsyncGenerator[Created, None]:
        """Create many tasks over one stream and yield what became of each, in order.

        A task that is refused is a result with an error; it does not keep the others out. When the stream
        breaks, a new one is opened and what was not answered is sent again, which makes nothing twice.

        Args:
            specs: The tasks; an asynchronous source may be endless.
            window: Frames of up to 1,000 tasks that are under way at a time.
            timeout: Seconds without any answer after which failures are no longer retried.
        """
        return self._streamed(Ingest(window), specs, self._open_ingest, timeout)

    def run_many(
        self,
        specs: Iterable[TaskSpec] | AsyncIterable[TaskSpec],
        *,
        view: TaskView = TaskView.RESULT,
        max_open: int = DEFAULT_MAX_OPEN,
        timeout: float | None = None,
    ) -> AsyncGenerator[Ran, None]:
        """Create many tasks and yield each as it has ended, in whatever order they end.

        Creating, waiting and yielding go on at the same time. A task that is refused is a `Ran` with an
        error, one that failed is a `Ran` with the task; neither keeps the others out. Who stops iterating
        leaves the tasks that were created to go on.

        Args:
            specs: The tasks; an asynchronous source may be endless.
            view: How much of each task; everything but input and headers unless told otherwise.
            max_open: How many tasks may have been created and not ended; no more are created meanwhile.
            timeout: Seconds without any answer after which failures are no longer retried.
        """
        return self._streamed(Runs(view, max_open), specs, self._open_run, timeout)

    async def _streamed(
        self,
        frames: Frames[Request, Response, Outcome],
        specs: TaskSource,
        open_stream: Callable[[], StreamCall[Request, Response]],
        timeout: float | None,
    ) -> AsyncGenerator[Outcome, None]:
        """Send tasks over one stream after the other, and yield what became of them."""
        attempts = self._attempts(timeout)
        closings = self._closings
        async with Bulk(frames, specs) as bulk:
            while not bulk.finished:
                try:
                    async for answer in bulk.exchange(open_stream()):
                        attempts.progressed()
                        for outcome in frames.read(answer):
                            yield outcome
                        bulk.made_room()
                except MeshqError as error:
                    await self._pause(attempts, error, closings)
            for outcome in frames.leftover():
                yield outcome

    async def run(
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
        """Create a task, or take an existing one by its id, and wait for its end.

        Args:
            type: The task type; exactly one of type and task_id is given.
            payload: The input as a JSON value.
            task_id: A task that exists.
            request_id: As in `create`.
            timeout: Seconds to wait for the end; None waits for ever.
            check: Whether a task that ends without success raises TaskFailed.
            options: As in `create`.

        Returns:
            The task as it ended; its `result` or `error` says how.

        Raises:
            DeadlineExceeded: The task is still open; it goes on, and `metadata["task_id"]` is its id.
            TaskFailed: With `check`, the task ended as FAILED, CANCELLED or EXPIRED.
        """
        if (type is None) == (task_id is None):
            raise InvalidRequest.field("task_id", "must be given, or else a type, but not both")
        if type is None:
            return await self._follow(waiting.wait_for(task_id or "", timeout, check))
        spec = TaskSpec(type=type, payload=payload, **options)
        return await self._follow(waiting.run(spec, request_id, timeout, check))

    async def wait(
        self,
        task_ids: Iterable[str],
        *,
        mode: WaitMode = "all",
        timeout: float | None = None,
        view: TaskView | None = None,
    ) -> Awaited:
        """Wait until all of up to 1,000 tasks have ended, or any of them.

        Args:
            task_ids: The tasks.
            mode: `all` or `any`.
            timeout: Seconds to wait; None waits for ever.
            view: How much of each task; BASIC unless told otherwise.

        Returns:
            How the tasks stand, ended or not; `satisfied` is False where the time was over first.
        """
        return await self._follow(waiting.wait_for_several(task_ids, mode, timeout, view))

    async def get(self, task_id: str, *, view: TaskView | None = None, timeout: float | None = None) -> Task:
        """Read one task; the FULL view unless told otherwise."""
        return await self._perform(operations.get_task(task_id, view), timeout)

    async def get_many(
        self, task_ids: Iterable[str], *, view: TaskView | None = None, timeout: float | None = None
    ) -> Found:
        """Read up to 1,000 tasks by id; the BASIC view unless told otherwise."""
        return await self._perform(operations.batch_get_tasks(task_ids, view), timeout)

    def list(self, *, timeout: float | None = None, **wanted: Unpack[ListOptions]) -> AsyncIterator[Task]:
        """Iterate over tasks, the newest first, reading page by page.

        Args:
            timeout: Seconds for each page.
            wanted: Which tasks: see `TaskFilter` and `ListOptions`; all by default.
        """
        return self._items(lambda token: operations.list_tasks(token, wanted), timeout)

    async def list_page(
        self, page_token: str = "", *, timeout: float | None = None, **wanted: Unpack[ListOptions]
    ) -> Page[Task]:
        """Read one page of tasks, for those who keep the token themselves."""
        return await self._perform(operations.list_tasks(page_token, wanted), timeout)

    async def count(self, *, timeout: float | None = None, **wanted: Unpack[TaskFilter]) -> Count:
        """Count tasks; all by default. Counting stops at 1,000,000."""
        return await self._perform(operations.count_tasks(wanted), timeout)

    async def attempts(self, task_id: str, *, timeout: float | None = None) -> tuple[Attempt, ...]:
        """Read the attempts of a task that have ended, the oldest first."""
        return await self._perform(operations.list_attempts(task_id), timeout)

    def watch(self, task_id: str, *, timeout: float | None = None) -> AsyncIterator[TaskEvent]:
        """Iterate over what happens to a task: the task itself at each change, progress, and output.

        The first event is the task as it stands, and the last one the task as it ended. A stream that
        breaks is resumed; progress and output of the gap are lost, states are not.

        Args:
            task_id: The task.
            timeout: Seconds without any word from the server after which resuming is given up.
        """
        return self._watched(TaskWatch(task_id), timeout)

    def watch_tasks(
        self,
        *,
        resume_token: bytes = b"",
        timeout: float | None = None,
        **wanted: Unpack[TaskFilter],
    ) -> AsyncIterator[TaskChange]:
        """Iterate without end over every change of state of the tasks that a filter selects.

        Creations count as changes; `states` selects changes into these states. A stream that breaks is
        resumed where it was.

        Args:
            resume_token: That of the last change that was read, to go on after it; empty to begin now. Some
                changes before it may be told again.
            timeout: Seconds without any word from the server after which resuming is given up.
            wanted: Which tasks: see `TaskFilter`; all by default.

        Raises:
            Aborted: With the reason RESUME_LOST, when too much has happened since the token; list the
                tasks, and begin anew.
        """
        return self._watched(TasksWatch(wanted, resume_token), timeout)

    async def update(
        self, task_id: str, *, timeout: float | None = None, **changes: Unpack[TaskChanges]
    ) -> Task:
        """Change a task that does not run yet: priority, start, input or labels; see `TaskChanges`.

        Raises:
            PreconditionFailed: With the reason TASK_STARTED, when a worker has the task, or it has ended.
        """
        return await self._perform(operations.update_task(task_id, changes), timeout)

    async def cancel(self, task_id: str, reason: str = "", *, timeout: float | None = None) -> Task:
        """Ask for a task to end, and return it as it stands; watch it to see it end."""
        return await self._perform(operations.cancel_task(task_id, reason), timeout)

    async def cancel_many(
        self,
        task_ids: Iterable[str] | None = None,
        *,
        reason: str = "",
        timeout: float | None = None,
        **wanted: Unpack[TaskFilter],
    ) -> Cancelled:
        """Ask for many tasks to end, named by id or else by a filter; goes on until all were asked.

        Args:
            task_ids: The tasks; any number.
            reason: Why, for people.
            timeout: Seconds for each of the calls that it takes.
            wanted: Which open tasks, if no ids are given: see `TaskFilter`.
        """
        return await self._follow(completing.cancel_many(task_ids, wanted, reason), timeout)

    async def delete(self, task_id: str, *, force: bool = False, timeout: float | None = None) -> Task:
        """Remove a task that has ended, and return what it was.

        Args:
            task_id: The task.
            force: Whether an open task is cancelled first, and waited for.
            timeout: Seconds for the call.
        """
        return await self._perform(operations.delete_task(task_id, force=force), timeout)

    async def delete_many(
        self,
        task_ids: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
        **wanted: Unpack[TaskFilter],
    ) -> int:
        """Remove many ended tasks, named by id or else by a filter, and return how many there were.

        Open tasks are left as they are. It goes on until all are removed.
        """
        return await self._follow(completing.delete_many(task_ids, wanted), timeout)

    async def redrive(self, task_id: str, *, timeout: float | None = None) -> Task:
        """Make a new task of one that ended as FAILED, EXPIRED or CANCELLED, and return the new one."""
        return await self._perform(operations.redrive_task(task_id), timeout)

    async def redrive_many(
        self,
        *,
        rate: float | None = None,
        max_tasks: int | None = None,
        timeout: float | None = None,
        **wanted: Unpack[TaskFilter],
    ) -> int:
        """Make new tasks of all that a filter selects, and return how many; the oldest first.

        Args:
            rate: New tasks that start per second; all start at once if None.
            max_tasks: Tasks to redrive at most; all if None.
            timeout: Seconds for each of the calls that it takes.
            wanted: Which ended tasks that were not redriven yet; FAILED ones unless `states` says
                otherwise.
        """
        return await self._follow(completing.redrive_many(wanted, rate, max_tasks), timeout)
