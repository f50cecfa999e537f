"""The methods of TaskService that read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from meshq.management.servicers.views import VIEW_BASIC, VIEW_FULL, read_view
from meshq.v1 import task_pb2, task_service_pb2


class ReadingMethods(TaskMethods):
    """See the protocol."""

    async def GetTask(  # noqa: N802
        self, request: task_service_pb2.GetTaskRequest, context: Context
    ) -> task_pb2.Task:
        """Read one task."""
        del context
        task_id = parse_task_id(request.task_id).bytes
        view = read_view(request.view, default=VIEW_FULL)
        row = await one_task(self._parts.ledger, task_id, full=view == VIEW_FULL)
        views = self._parts.views
        task = views.basic(row) if view == VIEW_BASIC else await views.one(row)
        await self._parts.waiting.add([task], [row], progress=view == VIEW_FULL)
        return task

    async def BatchGetTasks(  # noqa: N802
        self, request: task_service_pb2.BatchGetTasksRequest, context: Context
    ) -> task_service_pb2.BatchGetTasksResponse:
        """Read several tasks."""
        del context
        view = read_view(request.view, default=VIEW_BASIC)
        ids = read_ids(request.task_ids)
        tasks, missing = await self._named(ids, await self._parts.ledger.get_tasks(ids, full=False), view)
        return task_service_pb2.BatchGetTasksResponse(tasks=tasks, missing_task_ids=missing)

    async def AwaitTasks(  # noqa: N802
        self, request: task_service_pb2.AwaitTasksRequest, context: Context
    ) -> task_service_pb2.AwaitTasksResponse:
        """Wait until any or all of several tasks have ended."""
        del context
        ids = read_ids(request.task_ids)
        view = read_view(request.view, default=VIEW_BASIC)
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
        tasks = await self._parts.views.page(known, view)
        await self._parts.waiting.add(tasks, known, progress=view == VIEW_FULL)
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
        view = read_view(request.view, default=VIEW_BASIC)
        wanted = read_filter(request, TENANT)
        digest = filter_digest(wanted)
        before = read_page_token(request.page_token, digest) if request.page_token else None
        rows = await self._parts.ledger.list_tasks(wanted, before, size + 1)
        tasks = await self._parts.views.page(rows[:size], view)
        await self._parts.waiting.add(tasks, rows, progress=view == VIEW_FULL)
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


def read_ids(texts: Sequence[str]) -> list[TaskId]:
    """The ids of a call.

    Raises:
        InvalidRequest: One is no id, or there are none or too many.
    """
    check_count("task_ids", len(texts))
    return [parse_task_id(text, f"task_ids[{index}]").bytes for index, text in enumerate(texts)]
