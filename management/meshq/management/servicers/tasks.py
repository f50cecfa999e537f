"""TaskService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from meshq.contract.errors import InvalidRequest, Unavailable
from meshq.contract.ids import parse_task_id
from meshq.contract.limits import (
    DEFAULT_RUN_WAIT_SECONDS,
    DEFAULT_TASK_PAGE_SIZE,
    MAX_FRAME_BYTES,
    MAX_RUN_WAIT_SECONDS,
    STREAM_KEEPALIVE_SECONDS,
)
from meshq.management.cancel import Canceller
from meshq.management.conversion.filters import read_filter
from meshq.management.conversion.tasks import accepted_task
from meshq.management.create import Creator
from meshq.management.delete import Deleter
from meshq.management.ledger import Ledger, one_task
from meshq.management.model.claims import ClaimKind
from meshq.management.model.pages import filter_digest, page_token, read_page_token
from meshq.management.model.task import NewTask, TaskId, TaskRow
from meshq.management.model.validation import check_count, checked_reason, page_size
from meshq.management.servicers.ingest import ingest
from meshq.management.servicers.requests import TENANT, frame, refusal, results, single
from meshq.management.servicers.views import Views
from meshq.management.watch.bus import News
from meshq.management.watch.watchers import Watchers
from meshq.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

_VIEWS: Final = frozenset(map(int, task_pb2.TaskView.values()))
_VIEW_UNSPECIFIED: Final = int(task_pb2.TASK_VIEW_UNSPECIFIED)
_VIEW_FULL: Final = int(task_pb2.TASK_VIEW_FULL)
_DELETE_SECONDS: Final = 30.0
_DEADLINE_MARGIN: Final = 0.5
_RESULT_TRIES: Final = 10
_FULL_AT_A_TIME: Final = 25
"""Tasks whose input and output are read together; so many of the largest are 50 MiB."""


class TaskServicer(task_service_pb2_grpc.TaskServiceServicer):
    """See the protocol."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        creator: Creator,
        canceller: Canceller,
        deleter: Deleter,
        watchers: Watchers,
        views: Views,
    ) -> None:
        self._ledger = ledger
        self._creator = creator
        self._canceller = canceller
        self._deleter = deleter
        self._watchers = watchers
        self._views = views
        self._stopping = asyncio.Event()

    def drain(self) -> None:
        """The instance stops: bulk streams have to go elsewhere."""
        self._stopping.set()

    async def CreateTask(  # noqa: N802
        self, request: task_service_pb2.CreateTaskRequest, context: Context
    ) -> task_pb2.Task:
        """Accept one task."""
        del context
        if not request.HasField("task"):
            raise InvalidRequest.field("task", "is required")
        task, task_id = await self._create(request.task, request.request_id)
        if task is not None:
            return accepted_task(task)
        return await self._views.one(await one_task(self._ledger, task_id, full=True))

    async def BatchCreateTasks(  # noqa: N802
        self, request: task_service_pb2.BatchCreateTasksRequest, context: Context
    ) -> task_service_pb2.BatchCreateTasksResponse:
        """Accept several tasks."""
        del context
        checked = frame(ClaimKind.BATCH, request.tasks, request.ByteSize(), request.request_id)
        accepted = await self._creator.submit(checked.submission) if checked.submission.tasks else None
        return task_service_pb2.BatchCreateTasksResponse(results=results(checked, accepted))

    async def IngestTasks(  # noqa: N802
        self, request_iterator: AsyncIterator[task_service_pb2.IngestTasksRequest], context: Context
    ) -> AsyncIterator[task_service_pb2.IngestTasksResponse]:
        """Accept frames of tasks."""
        del context
        async for response in ingest(self._creator, request_iterator, self._stopping):
            yield response

    async def GetTask(  # noqa: N802
        self, request: task_service_pb2.GetTaskRequest, context: Context
    ) -> task_pb2.Task:
        """Read one task."""
        del context
        task_id = parse_task_id(request.task_id).bytes
        full = _wants_full(request.view, default=True)
        row = await one_task(self._ledger, task_id, full=full)
        return await self._views.one(row) if full else self._views.basic(row)

    async def BatchGetTasks(  # noqa: N802
        self, request: task_service_pb2.BatchGetTasksRequest, context: Context
    ) -> task_service_pb2.BatchGetTasksResponse:
        """Read several tasks."""
        del context
        check_count("task_ids", len(request.task_ids))
        full = _wants_full(request.view, default=False)
        ids = [parse_task_id(text, f"task_ids[{i}]").bytes for i, text in enumerate(request.task_ids)]
        rows = await self._ledger.get_tasks(ids, full=False)
        missing = [text for text, id_ in zip(request.task_ids, ids, strict=True) if id_ not in rows]
        known = [rows[id_] for id_ in ids if id_ in rows]
        tasks = await self._view(known, full=full)
        if len(tasks) < len(known):
            raise InvalidRequest.field(
                "task_ids", f"name tasks of more than {MAX_FRAME_BYTES} bytes; ask for fewer at a time"
            )
        return task_service_pb2.BatchGetTasksResponse(tasks=tasks, missing_task_ids=missing)

    async def ListTasks(  # noqa: N802
        self, request: task_service_pb2.ListTasksRequest, context: Context
    ) -> task_service_pb2.ListTasksResponse:
        """Read tasks page by page, the newest first."""
        del context
        size = page_size(request.page_size, DEFAULT_TASK_PAGE_SIZE)
        full = _wants_full(request.view, default=False)
        wanted = read_filter(request, TENANT)
        digest = filter_digest(wanted)
        before = read_page_token(request.page_token, digest) if request.page_token else None
        rows = await self._ledger.list_tasks(wanted, before, size + 1)
        tasks = await self._view(rows[:size], full=full)
        following = page_token(rows[len(tasks) - 1].task_id, digest) if len(rows) > len(tasks) else ""
        return task_service_pb2.ListTasksResponse(tasks=tasks, next_page_token=following)

    async def CancelTask(  # noqa: N802
        self, request: task_service_pb2.CancelTaskRequest, context: Context
    ) -> task_pb2.Task:
        """Ask for a task to end."""
        del context
        task_id = parse_task_id(request.task_id).bytes
        return self._views.basic(await self._canceller.cancel(task_id, checked_reason(request.reason)))

    async def DeleteTask(  # noqa: N802
        self, request: task_service_pb2.DeleteTaskRequest, context: Context
    ) -> task_pb2.Task:
        """Remove a task that has ended."""
        task_id = parse_task_id(request.task_id).bytes
        left = context.time_remaining()
        seconds = _DELETE_SECONDS if left is None else max(left - _DEADLINE_MARGIN, 0.0)
        row = await self._deleter.end(task_id, force=request.force, seconds=seconds)
        try:
            task = await self._views.one(row)
        except Unavailable:
            # Its result is about to be deleted; that it cannot be shown does not keep it.
            task = self._views.basic(row)
        await self._deleter.delete(task_id)
        return task

    async def RunTask(  # noqa: N802
        self, request: task_service_pb2.RunTaskRequest, context: Context
    ) -> task_pb2.Task:
        """Wait for a task's outcome."""
        del context
        seconds = _wait_seconds(request)
        if request.HasField("task") == bool(request.task_id):
            raise InvalidRequest.field("task_id", "exactly one of task_id and task must be set")
        if request.task_id:
            task_id = parse_task_id(request.task_id).bytes
        else:
            _, task_id = await self._create(request.task, request.request_id)
        return await self._views.one(await self._watchers.ended(task_id, seconds))

    async def WatchTask(  # noqa: N802
        self, request: task_service_pb2.WatchTaskRequest, context: Context
    ) -> AsyncIterator[task_service_pb2.WatchTaskResponse]:
        """Follow a task to its end."""
        del context
        task_id = parse_task_id(request.task_id).bytes
        first = True
        async for step in self._watchers.watch(task_id):
            yield await self._event(step, full=first)
            first = False

    async def _event(self, step: TaskRow | News | None, *, full: bool) -> task_service_pb2.WatchTaskResponse:
        if isinstance(step, TaskRow):
            task = await self._patiently(step) if full or step.ended else self._views.basic(step)
            return task_service_pb2.WatchTaskResponse(task=task)
        if isinstance(step, News):
            return _news(step)
        keepalive = task_service_pb2.WatchTaskResponse()
        keepalive.keepalive.interval.FromMilliseconds(int(STREAM_KEEPALIVE_SECONDS * 1_000))
        return keepalive

    async def _patiently(self, row: TaskRow) -> task_pb2.Task:
        """The FULL view, waiting for execution while it is away for a moment."""
        for _ in range(_RESULT_TRIES):
            try:
                return await self._views.one(row)
            except Unavailable as error:
                await asyncio.sleep(error.retry_delay or 1.0)
        return await self._views.one(row)

    async def _create(self, task: task_pb2.Task, request_id: str) -> tuple[NewTask | None, TaskId]:
        """Store a task; returns it if it is new, and the id of the task that stands for the request."""
        new, submission = single(task, request_id)
        accepted = await self._creator.submit(submission)
        if accepted.refused:
            raise refusal()
        if accepted.earlier_ids is not None:
            return None, accepted.earlier_ids
        return new, new.task_id

    async def _view(self, rows: list[TaskRow], *, full: bool) -> list[task_pb2.Task]:
        """Messages of rows; FULL ones only as many as fit into an answer, but at least one."""
        if not full:
            return [self._views.basic(row) for row in rows]
        tasks: list[task_pb2.Task] = []
        size = 0
        for start in range(0, len(rows), _FULL_AT_A_TIME):
            part = rows[start : start + _FULL_AT_A_TIME]
            found = await self._ledger.get_tasks([row.task_id for row in part], full=True)
            # What was deleted since is shown as it was.
            for task in await self._views.full([found.get(row.task_id, row) for row in part]):
                size += task.ByteSize()
                if tasks and size > MAX_FRAME_BYTES:
                    return tasks
                tasks.append(task)
        return tasks


def _wants_full(view: int, *, default: bool) -> bool:
    if view not in _VIEWS:
        raise InvalidRequest.field("view", f"must be a view of a task, not {view}")
    return default if view == _VIEW_UNSPECIFIED else view == _VIEW_FULL


def _wait_seconds(request: task_service_pb2.RunTaskRequest) -> float:
    if not request.HasField("wait_timeout"):
        return DEFAULT_RUN_WAIT_SECONDS
    seconds = request.wait_timeout.seconds + request.wait_timeout.nanos / 1e9
    if not 0 <= seconds <= MAX_RUN_WAIT_SECONDS:
        raise InvalidRequest.field(
            "wait_timeout", f"must be 0 to {MAX_RUN_WAIT_SECONDS:g} s, not {seconds:g} s"
        )
    return seconds


def _news(news: News) -> task_service_pb2.WatchTaskResponse:
    if isinstance(news.message, task_pb2.TaskOutput):
        return task_service_pb2.WatchTaskResponse(output=news.message)
    assert isinstance(news.message, task_pb2.TaskProgress)
    return task_service_pb2.WatchTaskResponse(progress=news.message)
