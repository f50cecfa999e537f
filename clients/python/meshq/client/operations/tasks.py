"""The calls of `TaskService`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, cast

from meshq.client import conversion, models
from meshq.client.operations.calls import Operation, new_request_id, page_of
from meshq.v1 import task_pb2, task_service_pb2

SERVICE = "/meshq.v1.TaskService/"
INGEST_TASKS = SERVICE + "IngestTasks"
RUN_TASKS = SERVICE + "RunTasks"

WaitMode: TypeAlias = Literal["all", "any"]
"""Which of several tasks have to end."""

_MODES = {"all": task_service_pb2.AWAIT_MODE_ALL, "any": task_service_pb2.AWAIT_MODE_ANY}
_VIEWS = {
    None: task_pb2.TASK_VIEW_UNSPECIFIED,
    models.TaskView.BASIC: task_pb2.TASK_VIEW_BASIC,
    models.TaskView.FULL: task_pb2.TASK_VIEW_FULL,
    models.TaskView.RESULT: task_pb2.TASK_VIEW_RESULT,
}


def view_number(view: models.TaskView) -> task_pb2.TaskView.ValueType:
    """A view on the wire."""
    return _VIEWS[view]


def create_task(spec: models.TaskSpec, request_id: str | None) -> Operation[models.Task]:
    """Create one task."""
    request = task_service_pb2.CreateTaskRequest(request_id=request_id or new_request_id())
    conversion.fill_task(request.task, spec)
    return Operation(SERVICE + "CreateTask", request, task_pb2.Task, conversion.task)


def get_task(task_id: str, view: models.TaskView | None) -> Operation[models.Task]:
    """Read one task."""
    request = task_service_pb2.GetTaskRequest(task_id=task_id, view=_VIEWS[view])
    return Operation(SERVICE + "GetTask", request, task_pb2.Task, conversion.task)


def batch_get_tasks(task_ids: Iterable[str], view: models.TaskView | None) -> Operation[models.Found]:
    """Read up to 1,000 tasks."""
    request = task_service_pb2.BatchGetTasksRequest(task_ids=task_ids, view=_VIEWS[view])
    answer = task_service_pb2.BatchGetTasksResponse
    return Operation(SERVICE + "BatchGetTasks", request, answer, conversion.found)


def list_tasks(page_token: str, wanted: models.ListOptions) -> Operation[models.Page[models.Task]]:
    """Read one page of tasks."""
    request = task_service_pb2.ListTasksRequest(
        page_size=wanted.get("page_size", 0), page_token=page_token, view=_VIEWS[wanted.get("view")]
    )
    conversion.fill_filter(request, cast("models.TaskFilter", wanted))
    answer = task_service_pb2.ListTasksResponse
    return Operation(SERVICE + "ListTasks", request, answer, page_of("tasks", conversion.task))


def count_tasks(wanted: models.TaskFilter) -> Operation[models.Count]:
    """Count tasks."""
    request = task_service_pb2.CountTasksRequest()
    conversion.fill_filter(request, wanted)
    answer = task_service_pb2.CountTasksResponse
    return Operation(
        SERVICE + "CountTasks", request, answer, lambda found: models.Count(found.count, found.truncated)
    )


def list_attempts(task_id: str) -> Operation[tuple[models.Attempt, ...]]:
    """Read the attempts of a task."""
    request = task_service_pb2.ListAttemptsRequest(task_id=task_id)
    answer = task_service_pb2.ListAttemptsResponse
    return Operation(SERVICE + "ListAttempts", request, answer, conversion.attempts)


def update_task(task_id: str, changes: models.TaskChanges) -> Operation[models.Task]:
    """Change a task that does not run yet.

    Not repeated: when a repetition finds the task started, nobody knows whether it started changed.
    """
    request = task_service_pb2.UpdateTaskRequest()
    conversion.fill_changes(request, task_id, changes)
    return Operation(SERVICE + "UpdateTask", request, task_pb2.Task, conversion.task, safe=False)


def cancel_task(task_id: str, reason: str) -> Operation[models.Task]:
    """Ask for a task to end."""
    request = task_service_pb2.CancelTaskRequest(task_id=task_id, reason=reason)
    return Operation(SERVICE + "CancelTask", request, task_pb2.Task, conversion.task)


def delete_task(task_id: str, *, force: bool) -> Operation[models.Task]:
    """Remove a task. Not repeated: a repetition would answer that there is no such task."""
    request = task_service_pb2.DeleteTaskRequest(task_id=task_id, force=force)
    return Operation(SERVICE + "DeleteTask", request, task_pb2.Task, conversion.task, safe=False)


def redrive_task(task_id: str) -> Operation[models.Task]:
    """Make a new task of one that ended without success."""
    request = task_service_pb2.RedriveTaskRequest(task_id=task_id)
    return Operation(SERVICE + "RedriveTask", request, task_pb2.Task, conversion.task)


Progress: TypeAlias = tuple[int, bool, tuple[str, ...]]
"""How far a call about many tasks went: how many it changed, whether that was all, and unknown ids."""


def cancel_tasks(
    task_ids: Sequence[str], wanted: models.TaskFilter | None, reason: str
) -> Operation[Progress]:
    """Ask for many tasks to end, by ids or else by a filter."""
    request = task_service_pb2.CancelTasksRequest(task_ids=task_ids, reason=reason)
    if wanted is not None:
        conversion.fill_filter(request.filter, wanted, "filter.")
    return Operation(
        SERVICE + "CancelTasks",
        request,
        task_service_pb2.CancelTasksResponse,
        lambda answer: (answer.cancelled_count, answer.complete, tuple(answer.missing_task_ids)),
    )


def delete_tasks(task_ids: Sequence[str], wanted: models.TaskFilter | None) -> Operation[Progress]:
    """Remove many ended tasks, by ids or else by a filter."""
    request = task_service_pb2.DeleteTasksRequest(task_ids=task_ids)
    if wanted is not None:
        conversion.fill_filter(request.filter, wanted, "filter.")
    return Operation(
        SERVICE + "DeleteTasks",
        request,
        task_service_pb2.DeleteTasksResponse,
        lambda answer: (answer.deleted_count, answer.complete, ()),
    )


def redrive_tasks(
    wanted: models.TaskFilter, rate: float | None, max_tasks: int | None
) -> Operation[Progress]:
    """Make new tasks of all that a filter selects."""
    request = task_service_pb2.RedriveTasksRequest(rate=rate or 0.0, max_tasks=max_tasks or 0)
    conversion.fill_filter(request.filter, wanted, "filter.")
    return Operation(
        SERVICE + "RedriveTasks",
        request,
        task_service_pb2.RedriveTasksResponse,
        lambda answer: (answer.redriven_count, answer.complete, ()),
    )


def await_tasks(
    task_ids: Sequence[str], mode: WaitMode, view: models.TaskView | None, wait: float
) -> Operation[models.Awaited]:
    """Wait for any or all of several tasks."""
    request = task_service_pb2.AwaitTasksRequest(task_ids=task_ids, mode=_MODES[mode], view=_VIEWS[view])
    request.wait_timeout.FromMilliseconds(int(wait * 1000))
    answer = task_service_pb2.AwaitTasksResponse
    return Operation(SERVICE + "AwaitTasks", request, answer, conversion.awaited, wait=wait)


def run_task(spec: models.TaskSpec, request_id: str, wait: float) -> Operation[models.Task]:
    """Create a task and wait for its outcome."""
    request = task_service_pb2.RunTaskRequest(request_id=request_id)
    conversion.fill_task(request.task, spec)
    return _run(request, wait)


def wait_for_task(task_id: str, wait: float) -> Operation[models.Task]:
    """Wait for the outcome of a task that exists."""
    return _run(task_service_pb2.RunTaskRequest(task_id=task_id), wait)


def _run(request: task_service_pb2.RunTaskRequest, wait: float) -> Operation[models.Task]:
    request.wait_timeout.FromMilliseconds(int(wait * 1000))
    return Operation(SERVICE + "RunTask", request, task_pb2.Task, conversion.task, wait=wait)
