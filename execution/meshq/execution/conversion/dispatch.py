"""Frames of `DispatchService` and what they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meshq.contract.errors import InvalidRequest
from meshq.contract.ids import ID_BYTES
from meshq.contract.limits import MAX_FRAME_ITEMS, NAME_PATTERN, NAME_RULE
from meshq.execution.model import QueueItem
from meshq.internal.v1 import dispatch_service_pb2 as pb


def queue_items(request: pb.DispatchRequest) -> list[QueueItem]:
    """The attempts of a frame; raises `InvalidRequest`."""
    check_items(len(request.items), "items")
    return [_queue_item(item, index) for index, item in enumerate(request.items)]


def _queue_item(item: pb.DispatchItem, index: int) -> QueueItem:
    if len(item.task_id) != ID_BYTES or item.attempt < 1:
        raise InvalidRequest.field(f"items[{index}]", "must name a task and an attempt")
    for name in ("tenant", "queue", "type"):
        if not NAME_PATTERN.fullmatch(getattr(item, name)):
            raise InvalidRequest.field(f"items[{index}].{name}", NAME_RULE)
    return QueueItem(
        item.task_id,
        item.attempt,
        f"{item.tenant}/{item.queue}/{item.type}/{item.fairness_key}",
        item.ready_time_ms,
        item.priority,
        item.repeat,
        item.routing_key.encode() or item.task_id,
        item.task,
    )


def check_items(count: int, field: str) -> None:
    """Raises `InvalidRequest` when there are more items than a call may have."""
    if count > MAX_FRAME_ITEMS:
        raise InvalidRequest.field(field, f"must have at most {MAX_FRAME_ITEMS} items, not {count}")


def check_ids(task_ids: Iterable[bytes], field: str) -> None:
    """Raises `InvalidRequest` unless all are ids."""
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
