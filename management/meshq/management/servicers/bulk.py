"""The methods of TaskService that change many tasks."""

from __future__ import annotations

from meshq.contract.errors import FieldViolation, InvalidRequest
from meshq.contract.limits import MAX_REDRIVE_RATE, MAX_REDRIVE_TASKS, MIN_REDRIVE_RATE
from meshq.management.conversion.filters import read_filter
from meshq.management.conversion.values import text_id
from meshq.management.model.states import State
from meshq.management.model.task import TaskFilter
from meshq.management.model.validation import Violations, check_range, checked_reason
from meshq.management.redrive import REDRIVABLE
from meshq.management.servicers.deadlines import seconds_for_many
from meshq.management.servicers.parts import Context, TaskMethods
from meshq.management.servicers.reading import read_ids
from meshq.management.servicers.requests import TENANT
from meshq.v1 import task_service_pb2


class BulkMethods(TaskMethods):
    """See the protocol."""

    async def CancelTasks(  # noqa: N802
        self, request: task_service_pb2.CancelTasksRequest, context: Context
    ) -> task_service_pb2.CancelTasksResponse:
        """Ask for many tasks to end."""
        reason = checked_reason(request.reason)
        wanted = _selected(request)
        if wanted is None:
            ids = read_ids(request.task_ids)
            count, unknown = await self._parts.bulk.cancel(ids, reason)
            missing = [text_id(task_id) for task_id in ids if task_id in unknown]
            return task_service_pb2.CancelTasksResponse(
                cancelled_count=count, complete=True, missing_task_ids=missing
            )
        done = await self._parts.bulk.cancel_selected(wanted, reason, seconds_for_many(context))
        return task_service_pb2.CancelTasksResponse(cancelled_count=done.tasks, complete=done.complete)

    async def DeleteTasks(  # noqa: N802
        self, request: task_service_pb2.DeleteTasksRequest, context: Context
    ) -> task_service_pb2.DeleteTasksResponse:
        """Remove many tasks that have ended."""
        wanted = _selected(request)
        if wanted is None:
            count = await self._parts.bulk.delete(read_ids(request.task_ids))
            return task_service_pb2.DeleteTasksResponse(deleted_count=count, complete=True)
        done = await self._parts.bulk.delete_selected(wanted, seconds_for_many(context))
        return task_service_pb2.DeleteTasksResponse(deleted_count=done.tasks, complete=done.complete)

    async def RedriveTasks(  # noqa: N802
        self, request: task_service_pb2.RedriveTasksRequest, context: Context
    ) -> task_service_pb2.RedriveTasksResponse:
        """Make good for many tasks."""
        wanted = _redrivable(request)
        done = await self._parts.redriver.redrive_selected(
            wanted,
            rate=request.rate,
            max_tasks=request.max_tasks or MAX_REDRIVE_TASKS,
            seconds=seconds_for_many(context),
        )
        return task_service_pb2.RedriveTasksResponse(redriven_count=done.tasks, complete=done.complete)


def _selected(
    request: task_service_pb2.CancelTasksRequest | task_service_pb2.DeleteTasksRequest,
) -> TaskFilter | None:
    """What the filter of a call selects; None where the call has ids."""
    if bool(request.task_ids) == request.HasField("filter"):
        given = "both" if request.task_ids else "neither"
        raise InvalidRequest.field("task_ids", f"exactly one of task_ids and filter must be set, not {given}")
    if request.task_ids:
        return None
    wanted = read_filter(request.filter, TENANT, "filter.")
    if wanted.empty:
        raise InvalidRequest.field("filter", "must not be empty; it would select all tasks")
    return wanted


def _redrivable(request: task_service_pb2.RedriveTasksRequest) -> TaskFilter:
    """What a call is to redrive."""
    violations: Violations = []
    wanted = read_filter(request.filter, TENANT, "filter.")
    violations.extend(
        FieldViolation(
            f"filter.states[{index}]",
            f"must be FAILED, EXPIRED or CANCELLED, not {State(state).name}",
        )
        for index, state in enumerate(map(int, request.filter.states))
        if state not in REDRIVABLE
    )
    if wanted._replace(states=()).empty:
        given = "only states" if request.filter.states else "nothing"
        rule = f"must name a queue, a type, labels or a time, not {given}"
        violations.append(FieldViolation("filter", rule))
    if request.rate:
        check_range(violations, "rate", request.rate, (MIN_REDRIVE_RATE, MAX_REDRIVE_RATE))
    if request.max_tasks:
        check_range(violations, "max_tasks", request.max_tasks, (1, MAX_REDRIVE_TASKS))
    if violations:
        raise InvalidRequest(violations)
    return wanted if wanted.states else wanted._replace(states=(int(State.FAILED),))
