"""Attempts on their way to execution."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from meshq.internal.v1 import dispatch_service_pb2
from meshq.management.model.task import Sendable
from meshq.v1 import task_pb2


def dispatch_frame(number: int, items: Sequence[Sendable]) -> dispatch_service_pb2.DispatchRequest:
    """A frame of attempts for execution."""
    frame = dispatch_service_pb2.DispatchRequest(frame=number)
    add = frame.items.add
    for sendable in items:
        (
            task_id, attempt, tenant, queue, type_, ready_ms, priority, fairness, repeat, spec,
            traits, _, announce, _,
        ) = sendable  # fmt: skip
        item = add(
            task_id=task_id,
            attempt=attempt,
            tenant=tenant,
            queue=queue,
            type=type_,
            ready_time_ms=ready_ms,
            task=spec,
        )
        # Each field costs time here and bytes on the wire, so defaults are left out.
        if repeat:
            item.repeat = True
        if priority:
            item.priority = priority
        if fairness:
            item.fairness_key = fairness
        if traits or announce:
            _add_special(item, sendable)
    return frame


def _add_special(item: dispatch_service_pb2.DispatchItem, sendable: Sendable) -> None:
    if sendable.traits:
        item.traits = _told(sendable.traits)
    if sendable.start_by_ms:
        item.start_by_time_ms = sendable.start_by_ms
    if sendable.announce_start:
        item.announce_start = True
        item.started = sendable.started


@lru_cache(maxsize=1_024)
def _told(traits: bytes) -> bytes:
    """What execution is told of the traits; the same ones come again and again."""
    task = task_pb2.Task.FromString(traits)
    told = task_pb2.Task(limit_key=task.limit_key, rate_units=task.rate_units)
    if task.HasField("fairness_weight"):
        told.fairness_weight = task.fairness_weight
    if task.HasField("start_to_close_timeout"):
        told.start_to_close_timeout.CopyFrom(task.start_to_close_timeout)
    if task.HasField("heartbeat_timeout"):
        told.heartbeat_timeout.CopyFrom(task.heartbeat_timeout)
    return told.SerializeToString()
