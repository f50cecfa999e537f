"""Queues as callers see them."""

from __future__ import annotations

from meshq.internal.v1 import dispatch_service_pb2
from meshq.management.conversion.values import timestamp
from meshq.management.model.task import QueueFigures
from meshq.v1 import queue_service_pb2


def public_queue(
    figures: QueueFigures, depth: dispatch_service_pb2.QueueDepth | None, now_ms: int, *, complete: bool
) -> queue_service_pb2.Queue:
    """A queue as callers see it.

    Args:
        figures: What the ledger counts.
        depth: What the shards hold; None when they could not be asked.
        now_ms: The time.
        complete: Whether all shards were asked.
    """
    ended = figures.succeeded + figures.failed + figures.cancelled + figures.expired
    queue = queue_service_pb2.Queue(
        queue=figures.name,
        tenant=figures.tenant,
        create_time=timestamp(figures.create_ms),
        counts=queue_service_pb2.QueueCounts(
            open=max(figures.created - ended, 0),
            succeeded=figures.succeeded,
            failed=figures.failed,
            cancelled=figures.cancelled,
            expired=figures.expired,
        ),
        arrival_rate=figures.arrival_rate,
        completion_rate=figures.completion_rate,
        complete=complete,
    )
    if depth is not None:
        queue.counts.scheduled = depth.delayed
        queue.counts.pending = depth.ready
        queue.counts.running = depth.leased
        if depth.oldest_ready_time_ms:
            age_ms = max(now_ms - depth.oldest_ready_time_ms, 0)
            queue.oldest_pending_age.FromMilliseconds(age_ms)
    return queue
