"""The methods of TaskService that follow tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from meshq.contract.errors import Unavailable
from meshq.contract.ids import parse_task_id
from meshq.contract.limits import STREAM_KEEPALIVE_SECONDS
from meshq.management.conversion.filters import read_filter
from meshq.management.model.pages import read_resume_token, resume_token
from meshq.management.model.task import TaskRow
from meshq.management.servicers.parts import Context, TaskMethods
from meshq.management.servicers.requests import TENANT
from meshq.management.watch.bus import News
from meshq.v1 import task_pb2, task_service_pb2

_RESULT_TRIES: Final = 10
_KEEPALIVE_MS: Final = int(STREAM_KEEPALIVE_SECONDS * 1_000)


class WatchingMethods(TaskMethods):
    """See the protocol."""

    async def WatchTask(  # noqa: N802
        self, request: task_service_pb2.WatchTaskRequest, context: Context
    ) -> AsyncIterator[task_service_pb2.WatchTaskResponse]:
        """Follow a task to its end."""
        del context
        task_id = parse_task_id(request.task_id).bytes
        first = True
        async for step in self._parts.watchers.watch(task_id):
            yield await self._event(step, full=first)
            first = False

    async def WatchTasks(  # noqa: N802
        self, request: task_service_pb2.WatchTasksRequest, context: Context
    ) -> AsyncIterator[task_service_pb2.WatchTasksResponse]:
        """Follow the tasks that a filter selects."""
        del context
        wanted = read_filter(request.filter, TENANT, "filter.")
        since_ms = read_resume_token(request.resume_token) if request.resume_token else None
        async for row, time_ms in self._parts.feed.follow(wanted, since_ms):
            response = task_service_pb2.WatchTasksResponse(resume_token=resume_token(time_ms))
            if row is None:
                response.keepalive.interval.FromMilliseconds(_KEEPALIVE_MS)
            else:
                response.task.CopyFrom(self._parts.views.basic(row))
            yield response

    async def _event(self, step: TaskRow | News | None, *, full: bool) -> task_service_pb2.WatchTaskResponse:
        if isinstance(step, TaskRow):
            task = await self._patiently(step) if full or step.ended else self._parts.views.basic(step)
            return task_service_pb2.WatchTaskResponse(task=task)
        if isinstance(step, News):
            return _news(step)
        keepalive = task_service_pb2.WatchTaskResponse()
        keepalive.keepalive.interval.FromMilliseconds(_KEEPALIVE_MS)
        return keepalive

    async def _patiently(self, row: TaskRow) -> task_pb2.Task:
        """The FULL view, waiting for execution while it is away for a moment."""
        for _ in range(_RESULT_TRIES):
            try:
                return await self._parts.views.one(row)
            except Unavailable as error:
                await asyncio.sleep(error.retry_delay or 1.0)
        return await self._parts.views.one(row)


def _news(news: News) -> task_service_pb2.WatchTaskResponse:
    if isinstance(news.message, task_pb2.TaskOutput):
        return task_service_pb2.WatchTaskResponse(output=news.message)
    assert isinstance(news.message, task_pb2.TaskProgress)
    return task_service_pb2.WatchTaskResponse(progress=news.message)
