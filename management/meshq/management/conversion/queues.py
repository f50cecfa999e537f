"""Queues as callers see them, and as execution has to know them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshq.contract.errors import FieldViolation, InvalidRequest
from meshq.contract.limits import (
    DEFAULT_WATCH_INTERVAL_SECONDS,
    MAX_WATCH_INTERVAL_SECONDS,
    MAX_WATCHED_QUEUES,
    MIN_WATCH_INTERVAL_SECONDS,
    SOFT_FRAME_BYTES,
    STREAM_KEEPALIVE_SECONDS,
)
from meshq.internal.v1 import dispatch_service_pb2
from meshq.management.conversion.checks import check_duration
from meshq.management.conversion.queue_settings import add_settings
from meshq.management.conversion.values import timestamp
from meshq.management.model.queues import Rate
from meshq.management.model.validation import Violations, check_name
from meshq.management.queues.figures import QueueView
from meshq.management.queues.store import QueueChange
from meshq.management.queues.watch import Change
from meshq.v1 import queue_service_pb2


def public_queue(view: QueueView, now_ms: int) -> queue_service_pb2.Queue:
    """A queue as callers see it."""
    row = view.row
    queue = queue_service_pb2.Queue(
        queue=row.name,
        tenant=row.tenant,
        create_time=timestamp(row.create_ms),
        counts=queue_service_pb2.QueueCounts(
            open=row.open,
            waiting=view.waiting,
            scheduled=view.scheduled,
            pending=view.pending,
            running=view.running,
            succeeded=row.succeeded,
            failed=row.failed,
            cancelled=row.cancelled,
            expired=row.expired,
        ),
        arrival_rate=row.arrival_rate,
        completion_rate=row.completion_rate,
        complete=view.complete,
    )
    if view.oldest_ready_ms:
        queue.oldest_pending_age.FromMilliseconds(max(now_ms - view.oldest_ready_ms, 0))
    add_settings(queue, row.settings)
    return queue


def watch_interval(request: queue_service_pb2.WatchQueuesRequest) -> float:
    """The seconds between two looks of a watch, whose request is checked.

    Raises:
        InvalidRequest: A name or the interval breaks its rule.
    """
    violations: Violations = []
    if len(request.queues) > MAX_WATCHED_QUEUES:
        rule = f"must have at most {MAX_WATCHED_QUEUES} entries, not {len(request.queues)}"
        violations.append(FieldViolation("queues", rule))
    else:
        for index, name in enumerate(request.queues):
            check_name(violations, f"queues[{index}]", name)
    seconds = DEFAULT_WATCH_INTERVAL_SECONDS
    if request.HasField("interval"):
        bounds = MIN_WATCH_INTERVAL_SECONDS, MAX_WATCH_INTERVAL_SECONDS
        check_duration(violations, "interval", request.interval, *bounds)
        seconds = request.interval.seconds + request.interval.nanos / 1e9
    if violations:
        raise InvalidRequest(violations)
    return seconds


def watch_responses(change: Change, now_ms: int) -> Iterator[queue_service_pb2.WatchQueuesResponse]:
    """What a watcher is told, in frames of a bounded size."""
    response = _watch_response(change.deleted)
    size = 0
    for view in change.changed:
        queue = public_queue(view, now_ms)
        if response.queues and size + queue.ByteSize() > SOFT_FRAME_BYTES:
            yield response
            response, size = _watch_response(()), 0
        response.queues.append(queue)
        size += queue.ByteSize()
    yield response


def _watch_response(deleted: Sequence[str]) -> queue_service_pb2.WatchQueuesResponse:
    response = queue_service_pb2.WatchQueuesResponse(deleted_queues=deleted)
    response.keepalive_interval.FromMilliseconds(int(STREAM_KEEPALIVE_SECONDS * 1_000))
    return response


def configure_request(changes: Sequence[QueueChange]) -> dispatch_service_pb2.ConfigureQueuesRequest:
    """What execution has to know of queues."""
    return dispatch_service_pb2.ConfigureQueuesRequest(queues=[_config(change) for change in changes])


def _config(change: QueueChange) -> dispatch_service_pb2.QueueConfig:
    settings = change.settings
    limits = settings.limits
    return dispatch_service_pb2.QueueConfig(
        tenant=change.tenant,
        queue=change.name,
        version=settings.version,
        paused=settings.pause is not None,
        max_running=limits.max_running,
        max_running_per_key=limits.max_running_per_key,
        rate=_bucket(limits.rate),
        rate_per_key=_bucket(limits.rate_per_key),
    )


def _bucket(rate: Rate | None) -> dispatch_service_pb2.TokenBucket | None:
    if rate is None:
        return None
    return dispatch_service_pb2.TokenBucket(units=rate.units, period_ms=rate.period_ms, burst=rate.burst)
