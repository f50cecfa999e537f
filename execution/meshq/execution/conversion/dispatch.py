"""Frames of `DispatchService` and what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from meshq.contract.errors import InvalidRequest
from meshq.contract.ids import ID_BYTES
from meshq.contract.limits import NAME_PATTERN, NAME_RULE
from meshq.execution.conversion.requests import check_count
from meshq.execution.model import QueueItem
from meshq.internal.v1 import dispatch_service_pb2 as pb


def queue_items(request: pb.DispatchRequest) -> list[QueueItem]:
    """The attempts of a frame; raises `InvalidRequest`."""
    check_count(len(request.items), "items")
    return [_queue_item(item, index) for index, item in enumerate(request.items)]


def _queue_item(item: pb.DispatchItem, index: int) -> QueueItem:
    task_id = item.task_id
    if len(task_id) != ID_BYTES or item.attempt < 1:
        raise InvalidRequest.field(f"items[{index}]", "must name a task and an attempt")
    lane = _class(item.tenant, item.queue, item.type)
    if lane is None:
        raise InvalidRequest.field(f"items[{index}]", f"its tenant, queue and type {NAME_RULE}")
    return QueueItem(
        task_id,
        item.attempt,
        f"{lane}/{item.fairness_key}",
        item.ready_time_ms,
        item.priority,
        item.repeat,
        task_id,
        item.task,
    )


@lru_cache(maxsize=4_096)
def _class(tenant: str, queue: str, task_type: str) -> str | None:
    """The class of a lane; None when a name breaks its rule. Most items are of a few classes."""
    names = (tenant, queue, task_type)
    return "/".join(names) if all(NAME_PATTERN.fullmatch(name) for name in names) else None


def check_ids(task_ids: Sequence[bytes], field: str) -> None:
    """Raises `InvalidRequest` unless all are ids, and not more than a call may have."""
    check_count(len(task_ids), field)
    for index, task_id in enumerate(task_ids):
        if len(task_id) != ID_BYTES:
            raise InvalidRequest.field(f"{field}[{index}]", f"must have {ID_BYTES} bytes")


def dispatch_response(frame: int, rejected: Sequence[tuple[int, int]]) -> pb.DispatchResponse:
    """The answer to a frame."""
    return pb.DispatchResponse(
        frame=frame,
        rejected=[
            pb.RejectedItem(index=index, reason=pb.RejectReason.ValueType(reason))
            for index, reason in sorted(rejected)
        ],
    )
