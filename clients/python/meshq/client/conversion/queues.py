"""Queues and their settings, in both directions."""

from __future__ import annotations

import dataclasses
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from meshq.client import models
from meshq.client.conversion.basics import fill_count, fill_integer, fill_span, fill_spans, span_of, time_of
from meshq.client.conversion.specs import fill_retry
from meshq.client.conversion.tasks import retry
from meshq.contract.limits import MAX_ATTEMPTS
from meshq.v1 import queue_service_pb2

_LIMITS = ("max_running", "max_running_per_key")
_RATES = ("rate", "rate_per_key")
_NUMBERS = ("retention_days", "poison_limit", "max_open_tasks")
_DEFAULTS = tuple(item.name for item in dataclasses.fields(models.TaskDefaults))
_TIMEOUTS = (
    "schedule_to_start_timeout",
    "start_to_close_timeout",
    "schedule_to_close_timeout",
    "heartbeat_timeout",
)


def queue(message: queue_service_pb2.Queue) -> models.Queue:
    """A queue."""
    return models.Queue(
        queue=message.queue,
        tenant=message.tenant,
        create_time=time_of(message, "create_time"),
        counts=_counts(message.counts),
        oldest_pending_age=span_of(message, "oldest_pending_age"),
        arrival_rate=message.arrival_rate,
        completion_rate=message.completion_rate,
        complete=message.complete,
        defaults=_defaults(message.defaults),
        type_defaults={name: _defaults(item) for name, item in sorted(message.type_defaults.items())},
        limits=_limits(message.limits),
        retention_days=message.retention_days,
        poison_limit=message.poison_limit,
        max_open_tasks=message.max_open_tasks or None,
        pause=_hold(message.pause) if message.HasField("pause") else None,
        drain=_hold(message.drain) if message.HasField("drain") else None,
        resumed=_hold(message.resumed) if message.HasField("resumed") else None,
        update_time=time_of(message, "update_time"),
    )


def queue_news(message: queue_service_pb2.WatchQueuesResponse) -> models.QueueNews:
    """What has changed of the queues."""
    return models.QueueNews(tuple(queue(item) for item in message.queues), tuple(message.deleted_queues))


def fill_settings(message: queue_service_pb2.Queue, settings: models.QueueSettings) -> None:
    """Write settings into a queue; None leaves a field out.

    Raises:
        InvalidRequest: Something is given that cannot be sent.
    """
    if (defaults := settings.get("defaults")) is not None:
        _fill_defaults(message.defaults, defaults, "queue.defaults")
    single: dict[str, Any] = {name: settings.get(name) for name in _DEFAULTS}
    if any(value is not None for value in single.values()):
        _fill_defaults(message.defaults, models.TaskDefaults(**single), "queue.defaults")
    for kind, item in (settings.get("type_defaults") or {}).items():
        _fill_defaults(message.type_defaults[kind], item, f"queue.type_defaults[{kind}]")
    for name in _NUMBERS:
        if isinstance(number := settings.get(name), int):
            fill_integer(message, name, number, "queue")
    for name in _LIMITS:
        if isinstance(number := settings.get(name), int):
            fill_integer(message.limits, name, number, "queue.limits")
    for name in _RATES:
        if isinstance(rate := settings.get(name), models.RateLimit):
            _fill_rate(getattr(message.limits, name), rate, f"queue.limits.{name}")


def settings_mask(settings: models.QueueSettings) -> FieldMask:
    """The fields that an update of these settings names."""
    return FieldMask(paths=sorted(map(_path, settings)))


def _path(name: str) -> str:
    if name in _LIMITS + _RATES:
        return f"limits.{name}"
    if name in _DEFAULTS:
        return "defaults.retry_policy" if name == "retry" else f"defaults.{name}"
    return name


def _fill_defaults(message: queue_service_pb2.TaskDefaults, given: models.TaskDefaults, path: str) -> None:
    message.SetInParent()
    if given.priority is not None:
        fill_integer(message, "priority", given.priority, path)
    if given.max_attempts is not None:
        fill_count(message, "max_attempts", given.max_attempts, MAX_ATTEMPTS, path)
    if given.retry is not None:
        fill_retry(message.retry_policy, given.retry, f"{path}.retry_policy")
    fill_spans(message, {name: getattr(given, name) for name in _TIMEOUTS}, path)


def _fill_rate(message: queue_service_pb2.RateLimit, rate: models.RateLimit, path: str) -> None:
    fill_integer(message, "units", rate.units, path)
    fill_span(message.period, rate.period, f"{path}.period")
    if rate.burst is not None:
        fill_integer(message, "burst", rate.burst, path)


def _defaults(message: queue_service_pb2.TaskDefaults) -> models.TaskDefaults:
    return models.TaskDefaults(
        priority=message.priority if message.HasField("priority") else None,
        max_attempts=message.max_attempts or None,
        retry=retry(message.retry_policy) if message.HasField("retry_policy") else None,
        **{name: span_of(message, name) for name in _TIMEOUTS},
    )


def _limits(message: queue_service_pb2.QueueLimits) -> models.QueueLimits:
    return models.QueueLimits(
        max_running=message.max_running or None,
        max_running_per_key=message.max_running_per_key or None,
        rate=_rate(message.rate) if message.HasField("rate") else None,
        rate_per_key=_rate(message.rate_per_key) if message.HasField("rate_per_key") else None,
    )


def _rate(message: queue_service_pb2.RateLimit) -> models.RateLimit | None:
    if not message.units:
        return None
    period = span_of(message, "period")
    burst = message.burst or None
    return (
        models.RateLimit(message.units, burst=burst)
        if period is None
        else (models.RateLimit(message.units, period, burst))
    )


def _hold(message: queue_service_pb2.QueueHold) -> models.QueueHold:
    return models.QueueHold(message.actor, message.reason, time_of(message, "time"))


def _counts(message: queue_service_pb2.QueueCounts) -> models.QueueCounts:
    return models.QueueCounts(
        **{item.name: getattr(message, item.name) for item in message.DESCRIPTOR.fields}
    )
