"""Every unary call as data: where it goes, what it says, what its answer becomes.

Both clients perform these; nothing here waits or knows a channel.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from meshq.client import conversion, models
from meshq.v1 import (
    queue_service_pb2,
    registry_service_pb2,
    ring_service_pb2,
    task_pb2,
    task_service_pb2,
    worker_service_pb2,
)

_TASKS = "/meshq.v1.TaskService/"
_QUEUES = "/meshq.v1.QueueService/"
_WORKERS = "/meshq.v1.WorkerService/"
_REGISTRY = "/meshq.v1.RegistryService/"
_RING = "/meshq.v1.RingService/"

INGEST_TASKS = _TASKS + "IngestTasks"
WATCH_TASK = _TASKS + "WatchTask"

LIST_PAGE_SIZE = 1_000
_VIEWS = {
    None: task_pb2.TASK_VIEW_UNSPECIFIED,
    models.TaskView.BASIC: task_pb2.TASK_VIEW_BASIC,
    models.TaskView.FULL: task_pb2.TASK_VIEW_FULL,
}

Result = TypeVar("Result")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Operation(Generic[Result]):
    """One unary call.

    Attributes:
        method: The full name of the method.
        request: What is sent.
        answer: The class of the answer.
        convert: Makes the result from the answer.
        safe: Whether repeating the call has no further effect.
        wait: Seconds that the server is asked to wait before it answers.
    """

    method: str
    request: Message
    answer: type[Message]
    convert: Callable[[Any], Result]
    safe: bool = True
    wait: float = 0.0


def new_request_id() -> str:
    """A request id of its own; the contract needs it unique per caller."""
    return uuid.uuid4().hex


def create_task(spec: models.TaskSpec, request_id: str | None) -> Operation[models.Task]:
    """Create one task."""
    request = task_service_pb2.CreateTaskRequest(request_id=request_id or new_request_id())
    conversion.fill_task(request.task, spec)
    return Operation(_TASKS + "CreateTask", request, task_pb2.Task, conversion.task)


def get_task(task_id: str, view: models.TaskView | None) -> Operation[models.Task]:
    """Read one task."""
    request = task_service_pb2.GetTaskRequest(task_id=task_id, view=_VIEWS[view])
    return Operation(_TASKS + "GetTask", request, task_pb2.Task, conversion.task)


def batch_get_tasks(task_ids: Iterable[str], view: models.TaskView | None) -> Operation[models.Found]:
    """Read up to 1,000 tasks."""
    request = task_service_pb2.BatchGetTasksRequest(task_ids=task_ids, view=_VIEWS[view])
    answer = task_service_pb2.BatchGetTasksResponse
    return Operation(_TASKS + "BatchGetTasks", request, answer, conversion.found)


def list_tasks(page_token: str, wanted: models.TaskFilter) -> Operation[models.Page[models.Task]]:
    """Read one page of tasks."""
    request = task_service_pb2.ListTasksRequest(
        page_size=wanted.get("page_size", 0),
        page_token=page_token,
        states=[conversion.state_number(state) for state in wanted.get("states", ())],
        type=wanted.get("type") or "",
        queue=wanted.get("queue") or "",
        view=_VIEWS[wanted.get("view")],
    )
    for field in ("min_create_time", "max_create_time"):
        time = wanted.get(field)
        if isinstance(time, dt.datetime):
            conversion.fill_time(getattr(request, field), time, field)
    answer = task_service_pb2.ListTasksResponse
    return Operation(_TASKS + "ListTasks", request, answer, _page("tasks", conversion.task))


def cancel_task(task_id: str, reason: str) -> Operation[models.Task]:
    """Ask for a task to end."""
    request = task_service_pb2.CancelTaskRequest(task_id=task_id, reason=reason)
    return Operation(_TASKS + "CancelTask", request, task_pb2.Task, conversion.task)


def delete_task(task_id: str, *, force: bool) -> Operation[models.Task]:
    """Remove a task. Not repeated: a repetition would answer that there is no such task."""
    request = task_service_pb2.DeleteTaskRequest(task_id=task_id, force=force)
    return Operation(_TASKS + "DeleteTask", request, task_pb2.Task, conversion.task, safe=False)


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
    return Operation(_TASKS + "RunTask", request, task_pb2.Task, conversion.task, wait=wait)


def watch_request(task_id: str) -> task_service_pb2.WatchTaskRequest:
    """What opens a watch."""
    return task_service_pb2.WatchTaskRequest(task_id=task_id)


def list_queues(page_token: str) -> Operation[models.Page[models.Queue]]:
    """Read one page of queues."""
    request = queue_service_pb2.ListQueuesRequest(page_size=LIST_PAGE_SIZE, page_token=page_token)
    answer = queue_service_pb2.ListQueuesResponse
    return Operation(_QUEUES + "ListQueues", request, answer, _page("queues", conversion.queue))


def get_queue(name: str) -> Operation[models.Queue]:
    """Read one queue."""
    request = queue_service_pb2.GetQueueRequest(queue=name)
    return Operation(_QUEUES + "GetQueue", request, queue_service_pb2.Queue, conversion.queue)


def list_workers(page_token: str) -> Operation[models.Page[models.Worker]]:
    """Read one page of workers."""
    request = worker_service_pb2.ListWorkersRequest(page_size=LIST_PAGE_SIZE, page_token=page_token)
    answer = worker_service_pb2.ListWorkersResponse
    return Operation(_WORKERS + "ListWorkers", request, answer, _page("workers", conversion.worker))


def get_worker(worker_id: str) -> Operation[models.Worker]:
    """Read one worker."""
    request = worker_service_pb2.GetWorkerRequest(worker_id=worker_id)
    return Operation(_WORKERS + "GetWorker", request, worker_service_pb2.Worker, conversion.worker)


def list_services() -> Operation[tuple[models.Service, ...]]:
    """Read the services of the mesh."""
    answer = registry_service_pb2.ListServicesResponse
    request = registry_service_pb2.ListServicesRequest()
    return Operation(_REGISTRY + "ListServices", request, answer, conversion.services)


def list_instances(component: str) -> Operation[tuple[models.Instance, ...]]:
    """Read the processes of the mesh."""
    answer = registry_service_pb2.ListInstancesResponse
    request = registry_service_pb2.ListInstancesRequest(component=component)
    return Operation(_REGISTRY + "ListInstances", request, answer, conversion.instances)


def list_shards() -> Operation[models.Ring]:
    """Read the ring."""
    answer = ring_service_pb2.ListShardsResponse
    return Operation(_RING + "ListShards", ring_service_pb2.ListShardsRequest(), answer, conversion.ring)


def _page(field: str, convert: Callable[..., Item]) -> Callable[[Any], models.Page[Item]]:
    def read(message: Any) -> models.Page[Item]:
        return models.Page(tuple(convert(item) for item in getattr(message, field)), message.next_page_token)

    return read
