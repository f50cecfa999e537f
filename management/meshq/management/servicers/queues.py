"""QueueService."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc

from meshq.contract.errors import InvalidRequest, NotFound, Reason
from meshq.contract.limits import DEFAULT_PAGE_SIZE
from meshq.management.conversion.queues import public_queue
from meshq.management.ledger import Ledger
from meshq.management.model.pages import name_token, read_name_token
from meshq.management.model.task import QueueFigures
from meshq.management.model.validation import Violations, check_name, page_size
from meshq.management.servicers.requests import TENANT
from meshq.management.stubs.placement import Placement
from meshq.v1 import queue_service_pb2, queue_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

_MISSING: Final = "No task was ever created in this queue."


class QueueServicer(queue_service_pb2_grpc.QueueServiceServicer):
    """See the protocol."""

    def __init__(self, ledger: Ledger, placement: Placement, now_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self._placement = placement
        self._now_ms = now_ms

    async def ListQueues(  # noqa: N802
        self, request: queue_service_pb2.ListQueuesRequest, context: Context
    ) -> queue_service_pb2.ListQueuesResponse:
        """Read queues page by page, by name."""
        del context
        size = page_size(request.page_size, DEFAULT_PAGE_SIZE)
        after = _after(request.page_token)
        found = await self._ledger.list_queues(TENANT, after=after, limit=size + 1, now_ms=self._now_ms())
        page = found[:size]
        following = name_token(page[-1].name) if len(found) > size else ""
        return queue_service_pb2.ListQueuesResponse(queues=await self._shown(page), next_page_token=following)

    async def GetQueue(  # noqa: N802
        self, request: queue_service_pb2.GetQueueRequest, context: Context
    ) -> queue_service_pb2.Queue:
        """Read one queue."""
        del context
        violations: Violations = []
        check_name(violations, "queue", request.queue)
        if violations:
            raise InvalidRequest(violations)
        found = await self._ledger.list_queues(
            TENANT, after="", limit=1, name=request.queue, now_ms=self._now_ms()
        )
        if not found:
            raise NotFound(_MISSING, Reason.QUEUE_NOT_FOUND)
        return (await self._shown(found))[0]

    async def _shown(self, page: Sequence[QueueFigures]) -> list[queue_service_pb2.Queue]:
        if not page:
            return []
        depths, complete = await self._placement.depths(TENANT, [figures.name for figures in page])
        now_ms = self._now_ms()
        return [
            public_queue(figures, depths.get(figures.name), now_ms, complete=complete) for figures in page
        ]


def _after(token: str) -> str:
    if not token:
        return ""
    name = read_name_token(token)
    violations: Violations = []
    check_name(violations, "page_token", name)
    if violations:
        raise InvalidRequest.field("page_token", "must be the next_page_token of an earlier call")
    return name
