"""The methods of TaskService that read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from meshq.contract.errors import InvalidRequest
from meshq.contract.ids import parse_task_id
from meshq.contract.limits import DEFAULT_TASK_PAGE_SIZE, MAX_COUNT, MAX_FRAME_BYTES
from meshq.management.conversion.filters import read_filter
from meshq.management.conversion.values import text_id
from meshq.management.ledger import one_task
from meshq.management.model.pages import filter_digest, page_token, read_page_token
from meshq.management.model.task import TaskId, TaskRow
from meshq.management.model.validation import check_count, page_size
from meshq.management.servicers.parts import Context, TaskMethods, wait_seconds
from meshq.management.servicers.requests import TENANT
from meshq.v1 import task_pb2, task_service_pb2

_VIEWS: Final = frozenset(map(int, task_pb2.TaskView.values()))
_VIEW_UNSPECIFIED: Final = int(task_pb2.TASK_VIEW_UNSPECIFIED)
_VIEW_BASIC: Final = int(task_pb2.TASK_VIEW_BASIC)
_VIEW_FULL: Final = int(task_pb2.TASK_VIEW_FULL)


class ReadingMethods(TaskMethods):
    """See the protocol."""

    async def GetTask(  # noqa: N802
        self, request: task_service_pb2.GetTaskRequest, context: Context
    ) -> task_pb2.Task:
        """Read one task."""
        del context
        task_id = parse_task_id(request.task_id).bytes
        view = read_view(request.view, default=_VIEW_FULL)
        row = await one_task(self._parts.ledger, task_id, full=view == _VIEW_FULL)
        views = self._parts.views
        task = views.basic(row) if view == _VIEW_BASIC else await views.one(row)
        await self._parts.waiting.add([task], [row], progress=view == _VIEW_FULL)
        return task

    async def BatchGetTasks(  # noqa: N802
        self, request: task_service_pb2.BatchGetTasksRequest, context: Context
    ) -> task_service_pb2.BatchGetTasksResponse:
        """Read several tasks."""
        del context
        view = read_view(request.view, default=_VIEW_BASIC)
        ids = read_ids(request.task_ids)
        tasks, missing = await self._named(ids, await self._parts.ledger.get_tasks(ids, full=False), view)
        return task_service_pb2.BatchGetTasksResponse(tasks=tasks, missing_task_ids=missing)

    async def AwaitTasks(  # noqa: N802
        self, request: task_service_pb2.AwaitTasksRequest, context: Context
    ) -> task_service_pb2.AwaitTasksResponse:
        """Wait until any or all of several tasks have ended."""
        del context
        ids = read_ids(request.task_ids)
        view = read_view(request.view, default=_VIEW_BASIC)
        if request.mode not in task_service_pb2.AwaitMode.values():
            raise InvalidRequest.field("mode", f"must be a mode of waiting, not {request.mode}")
        any_is_enough = request.mode == task_service_pb2.AWAIT_MODE_ANY
        seconds = wait_seconds(request)
        rows = await self._parts.watchers.some_ended(ids, any_is_enough=any_is_enough, seconds=seconds)
        ended = [id_ in rows and rows[id_].ended for id_ in ids]
        tasks, missing = await self._named(ids, rows, view)
        return task_service_pb2.AwaitTasksResponse(
            tasks=tasks, missing_task_ids=missing, satisfied=any(ended) if any_is_enough else all(ended)
        )

    async def _named(
        self, ids: Sequence[TaskId], rows: Mapping[TaskId, TaskRow], view: int
    ) -> tuple[list[task_pb2.Task], list[str]]:
        """Messages of tasks in the order of their ids, and the ids that are not known."""
        missing = [text_id(id_) for id_ in ids if id_ not in rows]
        known = [rows[id_] for id_ in ids if id_ in rows]
        tasks = await self._view(known, view)
        await self._parts.waiting.add(tasks, known, progress=view == _VIEW_FULL)
        if len(tasks) < len(known):
            rule = f"must name tasks of at most {MAX_FRAME_BYTES} bytes; {len(tasks)} fit, not {len(known)}"
            raise InvalidRequest.field("task_ids", rule)
        return tasks, missing

    async def ListTasks(  # noqa: N802
        self, request: task_service_pb2.ListTasksRequest, context: Context
    ) -> task_service_pb2.ListTasksResponse:
        """Read tasks page by page, the newest first."""
        del context
        size = page_size(request.page_size, DEFAULT_TASK_PAGE_SIZE)
        view = read_view(request.view, default=_VIEW_BASIC)
        wanted = read_filter(request, TENANT)
        digest = filter_digest(wanted)
        before = read_page_token(request.page_token, digest) if request.page_token else None
        rows = await self._parts.ledger.list_tasks(wanted, before, size + 1)
        tasks = await self._view(rows[:size], view)
        await self._parts.waiting.add(tasks, rows, progress=view == _VIEW_FULL)
        following = page_token(rows[len(tasks) - 1].task_id, digest) if len(rows) > len(tasks) else ""
        return task_service_pb2.ListTasksResponse(tasks=tasks, next_page_token=following)

    async def CountTasks(  # noqa: N802
        self, request: task_service_pb2.CountTasksRequest, context: Context
    ) -> task_service_pb2.CountTasksResponse:
        """Count tasks, up to a bound."""
        del context
        found = await self._parts.ledger.count_tasks(read_filter(request, TENANT), MAX_COUNT + 1)
        return task_service_pb2.CountTasksResponse(count=min(found, MAX_COUNT), truncated=found > MAX_COUNT)

    async def ListAttempts(  # noqa: N802
        self, request: task_service_pb2.ListAttemptsRequest, context: Context
    ) -> task_service_pb2.ListAttemptsResponse:
        """Read the attempts of a task that have ended."""
        del context
        task_id = parse_task_id(request.task_id).bytes
        await one_task(self._parts.ledger, task_id, full=False)
        return task_service_pb2.ListAttemptsResponse(attempts=await self._parts.attempts.of_task(task_id))

    async def _view(self, rows: list[TaskRow], view: int) -> list[task_pb2.Task]:
        """Messages of rows; with outputs only as many as fit into an answer, but at least one."""
        if view == _VIEW_BASIC:
            return [self._parts.views.basic(row) for row in rows]
        tasks: list[task_pb2.Task] = []
        size = 0
        while len(tasks) < len(rows):
            for task in await self._parts.views.first(rows[len(tasks) :], inputs=view == _VIEW_FULL):
                size += task.ByteSize()
                if tasks and size > MAX_FRAME_BYTES:
                    return tasks
                tasks.append(task)
        return tasks


def read_view(view: int, *, default: int) -> int:
    """The view of a call.

    Raises:
        InvalidRequest: It is none.
    """
    if view not in _VIEWS:
        raise InvalidRequest.field("view", f"must be a view of a task, not {view}")
    return default if view == _VIEW_UNSPECIFIED else view


def read_ids(texts: Sequence[str]) -> list[TaskId]:
    """The ids of a call.

    Raises:
        InvalidRequest: One is no id, or there are none or too many.
    """
    check_count("task_ids", len(texts))
    return [parse_task_id(text, f"task_ids[{index}]").bytes for index, text in enumerate(texts)]
