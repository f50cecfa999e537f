"""The calls of `QueueService`."""

from __future__ import annotations

from meshq.client import conversion, models
from meshq.client.operations.calls import LIST_PAGE_SIZE, Operation, page_of
from meshq.client.operations.tasks import Progress
from meshq.v1 import queue_service_pb2

SERVICE = "/meshq.v1.QueueService/"


def list_queues(page_token: str) -> Operation[models.Page[models.Queue]]:
    """Read one page of queues."""
    request = queue_service_pb2.ListQueuesRequest(page_size=LIST_PAGE_SIZE, page_token=page_token)
    answer = queue_service_pb2.ListQueuesResponse
    return Operation(SERVICE + "ListQueues", request, answer, page_of("queues", conversion.queue))


def get_queue(name: str) -> Operation[models.Queue]:
    """Read one queue."""
    request = queue_service_pb2.GetQueueRequest(queue=name)
    return Operation(SERVICE + "GetQueue", request, queue_service_pb2.Queue, conversion.queue)


def create_queue(name: str, settings: models.QueueSettings) -> Operation[models.Queue]:
    """Declare a queue. Not repeated: a repetition would answer that there is such a queue."""
    request = queue_service_pb2.CreateQueueRequest()
    request.queue.queue = name
    conversion.fill_settings(request.queue, settings)
    return Operation(SERVICE + "CreateQueue", request, queue_service_pb2.Queue, conversion.queue, safe=False)


def update_queue(
    name: str, settings: models.QueueSettings, *, allow_missing: bool
) -> Operation[models.Queue]:
    """Change settings of a queue."""
    request = queue_service_pb2.UpdateQueueRequest(allow_missing=allow_missing)
    request.queue.queue = name
    conversion.fill_settings(request.queue, settings)
    request.update_mask.CopyFrom(conversion.settings_mask(settings))
    return Operation(SERVICE + "UpdateQueue", request, queue_service_pb2.Queue, conversion.queue)


def delete_queue(name: str) -> Operation[models.Queue]:
    """Forget a queue. Not repeated: a repetition would answer that there is no such queue."""
    request = queue_service_pb2.DeleteQueueRequest(queue=name)
    return Operation(SERVICE + "DeleteQueue", request, queue_service_pb2.Queue, conversion.queue, safe=False)


def pause_queue(name: str, reason: str, actor: str) -> Operation[models.Queue]:
    """Keep a queue's tasks from workers."""
    request = queue_service_pb2.PauseQueueRequest(queue=name, reason=reason, actor=actor)
    return Operation(SERVICE + "PauseQueue", request, queue_service_pb2.Queue, conversion.queue)


def drain_queue(name: str, reason: str, actor: str) -> Operation[models.Queue]:
    """Keep new tasks from a queue."""
    request = queue_service_pb2.DrainQueueRequest(queue=name, reason=reason, actor=actor)
    return Operation(SERVICE + "DrainQueue", request, queue_service_pb2.Queue, conversion.queue)


def resume_queue(name: str, reason: str, actor: str) -> Operation[models.Queue]:
    """End pause and drain."""
    request = queue_service_pb2.ResumeQueueRequest(queue=name, reason=reason, actor=actor)
    return Operation(SERVICE + "ResumeQueue", request, queue_service_pb2.Queue, conversion.queue)


def purge_queue(name: str, reason: str) -> Operation[Progress]:
    """Cancel all tasks of a queue that no worker has."""
    request = queue_service_pb2.PurgeQueueRequest(queue=name, reason=reason)
    return Operation(
        SERVICE + "PurgeQueue",
        request,
        queue_service_pb2.PurgeQueueResponse,
        lambda answer: (answer.cancelled_count, answer.complete, ()),
    )
