"""The methods of TaskService that change one task."""

from __future__ import annotations

from meshq.contract.errors import Unavailable
from meshq.contract.ids import parse_task_id
from meshq.management.conversion.updates import read_update, updated
from meshq.management.model.validation import checked_reason
from meshq.management.servicers.deadlines import seconds_to_end
from meshq.management.servicers.parts import Context, TaskMethods
from meshq.v1 import task_pb2, task_service_pb2


class ChangingMethods(TaskMethods):
    """See the protocol."""

    async def CancelTask(  # noqa: N802
        self, request: task_service_pb2.CancelTaskRequest, context: Context
    ) -> task_pb2.Task:
        """Ask for a task to end."""
        del context
        task_id = parse_task_id(request.task_id).bytes
        return self._parts.views.basic(
            await self._parts.canceller.cancel(task_id, checked_reason(request.reason))
        )

    async def DeleteTask(  # noqa: N802
        self, request: task_service_pb2.DeleteTaskRequest, context: Context
    ) -> task_pb2.Task:
        """Remove a task that has ended."""
        task_id = parse_task_id(request.task_id).bytes
        row = await self._parts.deleter.end(task_id, force=request.force, seconds=seconds_to_end(context))
        try:
            task = await self._parts.views.one(row)
        except Unavailable:
            # Its result is about to be deleted; that it cannot be shown does not keep it.
            task = self._parts.views.basic(row)
        await self._parts.deleter.delete(task_id)
        return task

    async def UpdateTask(  # noqa: N802
        self, request: task_service_pb2.UpdateTaskRequest, context: Context
    ) -> task_pb2.Task:
        """Change a task that does not run yet."""
        del context
        task_id = parse_task_id(request.task.task_id, "task.task_id").bytes
        change = read_update(request)
        row = await self._parts.updater.update(task_id, lambda found, now_ms: updated(found, change, now_ms))
        return await self._parts.views.one(row)

    async def RedriveTask(  # noqa: N802
        self, request: task_service_pb2.RedriveTaskRequest, context: Context
    ) -> task_pb2.Task:
        """Make good for a task."""
        del context
        row = await self._parts.redriver.redrive(parse_task_id(request.task_id).bytes)
        return await self._parts.views.one(row)
