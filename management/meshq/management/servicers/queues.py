"""QueueService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final, Literal

import grpc

from meshq.contract.errors import InvalidRequest
from meshq.contract.limits import DEFAULT_PAGE_SIZE, MAX_ACTOR_LENGTH, MAX_FRAME_BYTES
from meshq.management.conversion.queue_changes import checked_queue, merged_settings, settings_paths
from meshq.management.conversion.queues import public_queue, watch_interval, watch_responses
from meshq.management.model.pages import name_token, read_name_token
from meshq.management.model.validation import Violations, check_name, checked_reason, page_size
from meshq.management.queues.changes import QueueChanges, no_such_queue
from meshq.management.queues.figures import QueueFigures
from meshq.management.queues.purge import Purger
from meshq.management.queues.store import QueueKey
from meshq.management.queues.watch import QueueWatches
from meshq.management.servicers.deadlines import seconds_for_many
from meshq.management.servicers.requests import TENANT
from meshq.v1 import queue_service_pb2, queue_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
Hold = queue_service_pb2.PauseQueueRequest | queue_service_pb2.DrainQueueRequest
Told = Hold | queue_service_pb2.ResumeQueueRequest

_PAGE_BYTES: Final = MAX_FRAME_BYTES
"""Where a page of queues with much to say is cut, holding at least one."""


class QueueServicer(queue_service_pb2_grpc.QueueServiceServicer):
    """See the protocol.

    Args:
        figures: What is shown.
        changes: What is done.
        purger: Clears queues.
        watches: Serves watches.
        now_ms: The clock.
    """

    def __init__(
        self,
        figures: QueueFigures,
        changes: QueueChanges,
        purger: Purger,
        watches: QueueWatches,
        now_ms: Callable[[], int],
    ) -> None:
        self._figures = figures
        self._changes = changes
        self._purger = purger
        self._watches = watches
        self._now_ms = now_ms

    async def ListQueues(  # noqa: N802
        self, request: queue_service_pb2.ListQueuesRequest, context: Context
    ) -> queue_service_pb2.ListQueuesResponse:
        """Read queues page by page, by name."""
        del context
        size = page_size(request.page_size, DEFAULT_PAGE_SIZE)
        found, more = await self._figures.page(TENANT, _after(request.page_token), size)
        page = _cut([public_queue(view, self._now_ms()) for view in found])
        following = name_token(page[-1].queue) if more or len(page) < len(found) else ""
        return queue_service_pb2.ListQueuesResponse(queues=page, next_page_token=following)

    async def GetQueue(  # noqa: N802
        self, request: queue_service_pb2.GetQueueRequest, context: Context
    ) -> queue_service_pb2.Queue:
        """Read one queue."""
        del context
        return await self._shown(_key(request.queue))

    async def CreateQueue(  # noqa: N802
        self, request: queue_service_pb2.CreateQueueRequest, context: Context
    ) -> queue_service_pb2.Queue:
        """Declare a queue."""
        del context
        settings = checked_queue(request.queue)
        key = TENANT, request.queue.queue
        await self._changes.create(key, settings)
        return await self._shown(key)

    async def UpdateQueue(  # noqa: N802
        self, request: queue_service_pb2.UpdateQueueRequest, context: Context
    ) -> queue_service_pb2.Queue:
        """Change settings."""
        del context
        paths = settings_paths(request)
        key = TENANT, request.queue.queue
        await self._changes.update(
            key,
            lambda before: merged_settings(before, request.queue, paths),
            allow_missing=request.allow_missing,
        )
        return await self._shown(key)

    async def DeleteQueue(  # noqa: N802
        self, request: queue_service_pb2.DeleteQueueRequest, context: Context
    ) -> queue_service_pb2.Queue:
        """Forget a queue."""
        del context
        key = _key(request.queue)
        queue = await self._shown(key)
        await self._changes.delete(key)
        return queue

    async def PauseQueue(  # noqa: N802
        self, request: queue_service_pb2.PauseQueueRequest, context: Context
    ) -> queue_service_pb2.Queue:
        """Hand out nothing more."""
        del context
        return await self._hold("pause", request)

    async def DrainQueue(  # noqa: N802
        self, request: queue_service_pb2.DrainQueueRequest, context: Context
    ) -> queue_service_pb2.Queue:
        """Take no new tasks."""
        del context
        return await self._hold("drain", request)

    async def ResumeQueue(  # noqa: N802
        self, request: queue_service_pb2.ResumeQueueRequest, context: Context
    ) -> queue_service_pb2.Queue:
        """End both."""
        del context
        key, reason = _told(request)
        await self._changes.resume(key, request.actor, reason)
        return await self._shown(key)

    async def PurgeQueue(  # noqa: N802
        self, request: queue_service_pb2.PurgeQueueRequest, context: Context
    ) -> queue_service_pb2.PurgeQueueResponse:
        """Cancel what no worker has."""
        key = _key(request.queue)
        reason = checked_reason(request.reason)
        await self._shown(key)
        purged = await self._purger.purge(key, reason, seconds_for_many(context))
        return queue_service_pb2.PurgeQueueResponse(cancelled_count=purged.tasks, complete=purged.complete)

    async def WatchQueues(  # noqa: N802
        self, request: queue_service_pb2.WatchQueuesRequest, context: Context
    ) -> AsyncIterator[queue_service_pb2.WatchQueuesResponse]:
        """Follow queues."""
        del context
        interval = watch_interval(request)
        async with aclosing(self._watches.watch(TENANT, request.queues, interval)) as changes:
            async for change in changes:
                for response in watch_responses(change, self._now_ms()):
                    yield response

    async def _hold(self, kind: Literal["pause", "drain"], request: Hold) -> queue_service_pb2.Queue:
        key, reason = _told(request)
        await self._changes.hold(key, kind, request.actor, reason)
        return await self._shown(key)

    async def _shown(self, key: QueueKey) -> queue_service_pb2.Queue:
        found = await self._figures.one(key)
        if found is None:
            raise no_such_queue(key[1])
        return public_queue(found, self._now_ms())


def _cut(queues: list[queue_service_pb2.Queue]) -> list[queue_service_pb2.Queue]:
    size = 0
    for index, queue in enumerate(queues):
        size += queue.ByteSize()
        if index and size > _PAGE_BYTES:
            return queues[:index]
    return queues


def _key(name: str) -> QueueKey:
    violations: Violations = []
    check_name(violations, "queue", name)
    if violations:
        raise InvalidRequest(violations)
    return TENANT, name


def _told(request: Told) -> tuple[QueueKey, str]:
    """Which queue, and why, of a request whose actor is checked as well."""
    key = _key(request.queue)
    if len(request.actor) > MAX_ACTOR_LENGTH:
        rule = f"must have at most {MAX_ACTOR_LENGTH} characters, not {len(request.actor)}"
        raise InvalidRequest.field("actor", rule)
    return key, checked_reason(request.reason)


def _after(token: str) -> str:
    return read_name_token(token) if token else ""
