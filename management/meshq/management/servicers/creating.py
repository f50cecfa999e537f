"""The methods of TaskService that accept tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from meshq.contract.errors import InvalidRequest, NotFound
from meshq.contract.ids import parse_task_id
from meshq.management.conversion.tasks import accepted_task
from meshq.management.ledger import one_task, task_missing
from meshq.management.model.claims import ClaimKind
from meshq.management.model.task import NewTask, TaskId, TaskRow, created_row
from meshq.management.servicers.ingest import ingest
from meshq.management.servicers.parts import Context, TaskMethods, wait_seconds
from meshq.management.servicers.requests import created, effective_request_id, frame, results, single, submit
from meshq.management.servicers.running import run_tasks
from meshq.v1 import task_pb2, task_service_pb2


class CreatingMethods(TaskMethods):
    """See the protocol."""

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
        with _stands_for_request(task_id):
            row = await one_task(self._parts.ledger, task_id, full=True)
        return await self._parts.views.one(row)

    async def BatchCreateTasks(  # noqa: N802
        self, request: task_service_pb2.BatchCreateTasksRequest, context: Context
    ) -> task_service_pb2.BatchCreateTasksResponse:
        """Accept several tasks."""
        del context
        size, request_id = request.ByteSize(), effective_request_id(request.request_id)
        checked = frame(ClaimKind.BATCH, request.tasks, size, request_id, self._parts.admission)
        accepted = await submit(self._parts.creator, checked)
        return task_service_pb2.BatchCreateTasksResponse(results=results(checked, accepted))

    async def IngestTasks(  # noqa: N802
        self, request_iterator: AsyncIterator[task_service_pb2.IngestTasksRequest], context: Context
    ) -> AsyncIterator[task_service_pb2.IngestTasksResponse]:
        """Accept frames of tasks."""
        del context
        async for response in ingest(
            self._parts.creator, self._parts.admission, request_iterator, self._parts.stopping
        ):
            yield response

    async def RunTasks(  # noqa: N802
        self, request_iterator: AsyncIterator[task_service_pb2.RunTasksRequest], context: Context
    ) -> AsyncIterator[task_service_pb2.RunTasksResponse]:
        """Accept frames of tasks, and wait for their outcomes."""
        del context
        async for response in run_tasks(self._parts, request_iterator):
            yield response

    async def RunTask(  # noqa: N802
        self, request: task_service_pb2.RunTaskRequest, context: Context
    ) -> task_pb2.Task:
        """Wait for a task's outcome."""
        del context
        seconds = wait_seconds(request)
        if request.HasField("task") == bool(request.task_id):
            given = "both" if request.task_id else "neither"
            raise InvalidRequest.field("task_id", f"exactly one of task_id and task must be set, not {given}")
        if request.task_id:
            row = await self._parts.watchers.ended(parse_task_id(request.task_id).bytes, seconds)
        else:
            row = await self._run(request.task, request.request_id, seconds)
        return await self._parts.views.one(row)

    async def _run(self, task: task_pb2.Task, request_id: str, seconds: float) -> TaskRow:
        checked = single(task, request_id, self._parts.admission)
        watchers = self._parts.watchers
        with watchers.expect(*(new.task_id for new in checked.submission.tasks)) as subscription:
            new, task_id = created(checked, await submit(self._parts.creator, checked))
            if new is not None:
                row = created_row(new)._replace(spec=new.spec)
                return await watchers.end_of(subscription, row, seconds)
        with _stands_for_request(task_id):
            return await watchers.ended(task_id, seconds)

    async def _create(self, task: task_pb2.Task, request_id: str) -> tuple[NewTask | None, TaskId]:
        """Store a task; returns it if it is new, and the id of the task that stands for the request."""
        checked = single(task, request_id, self._parts.admission)
        return created(checked, await submit(self._parts.creator, checked))


@contextmanager
def _stands_for_request(task_id: TaskId) -> Iterator[None]:
    """Say of a missing task that the request for it was done, so that nobody takes it for refused."""
    try:
        yield
    except NotFound:
        sentence = "The request was accepted before; its task {} was deleted or has expired since."
        raise task_missing(task_id, sentence) from None
