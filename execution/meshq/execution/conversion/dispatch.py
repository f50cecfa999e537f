"""Frames of `DispatchService` and what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from google.protobuf.message import DecodeError

from meshq.contract.errors import InvalidRequest
from meshq.contract.ids import ID_BYTES
from meshq.contract.limits import NAME_PATTERN, NAME_RULE
from meshq.execution.conversion.requests import check_count
from meshq.execution.model import QueueItem, Traits
from meshq.internal.v1 import dispatch_service_pb2 as pb
from meshq.v1.task_pb2 import Task


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
        item.task,
        _traits(item, index),
        item.started,
    )


def _traits(item: pb.DispatchItem, index: int) -> Traits | None:
    if not (item.traits or item.start_by_time_ms or item.announce_start):
        return None
    traits = _decoded(item.traits)
    if traits is None:
        raise InvalidRequest.field(f"items[{index}].traits", "must be an encoded task")
    if item.start_by_time_ms or item.announce_start:
        return traits._replace(start_by_ms=item.start_by_time_ms, announce=item.announce_start)
    return traits


@lru_cache(maxsize=4_096)
def _decoded(encoded: bytes) -> Traits | None:
    """What is special about a task; None when that cannot be read. Most tasks of a queue share it."""
    try:
        task = Task.FromString(encoded)
    except DecodeError:
        return None
    return Traits(
        limit_key=task.limit_key,
        rate_units=task.rate_units or 1,
        fairness_weight=task.fairness_weight if task.HasField("fairness_weight") else 1.0,
        start_to_close_ms=task.start_to_close_timeout.ToMilliseconds(),
        heartbeat_ms=task.heartbeat_timeout.ToMilliseconds(),
    )


@lru_cache(maxsize=4_096)
def _class(tenant: str, queue: str, task_type: str) -> str | None:
    """The class of a lane; None when a name breaks its rule. Most items are of a few classes."""
    names = (tenant, queue, task_type)
    return "/".join(names) if all(NAME_PATTERN.fullmatch(name) for name in names) else None


def withdraw_mode(withdrawal: pb.Withdrawal) -> str:
    """What a withdrawal is for, as shards call it."""
    return "recall" if withdrawal.mode == pb.WITHDRAW_MODE_RECALL else "cancel"


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
