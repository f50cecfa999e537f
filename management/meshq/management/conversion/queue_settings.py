"""What queues are set to, as messages, and as it is stored: an encoded `meshq.v1.Queue`."""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration

from meshq.contract.limits import DEFAULT_POISON_LIMIT, DEFAULT_RETENTION_DAYS
from meshq.management.conversion.values import milliseconds, set_time
from meshq.management.model.queues import Hold, Limits, QueueSettings, Rate, RetryPolicy, TaskDefaults
from meshq.v1 import queue_service_pb2, task_pb2

_DEFAULT_PERIOD_MS: Final = 1_000
_RETRY: Final = RetryPolicy()


def encoded_settings(settings: QueueSettings) -> bytes:
    """The stored form; version and time of the change stand beside it."""
    queue = queue_service_pb2.Queue()
    add_settings(queue, settings)
    queue.ClearField("update_time")
    return queue.SerializeToString(deterministic=True)


def decoded_settings(stored: bytes) -> QueueSettings:
    """Read the stored form."""
    return read_settings(queue_service_pb2.Queue.FromString(stored))


def read_settings(queue: queue_service_pb2.Queue) -> QueueSettings:
    """The settings and holds of a message that was checked, with defaults where it says nothing."""
    return QueueSettings(
        defaults=read_defaults(queue.defaults),
        type_defaults={name: read_defaults(item) for name, item in queue.type_defaults.items()},
        limits=read_limits(queue.limits),
        retention_days=queue.retention_days or DEFAULT_RETENTION_DAYS,
        poison_limit=queue.poison_limit or DEFAULT_POISON_LIMIT,
        max_open_tasks=queue.max_open_tasks,
        pause=_read_hold(queue.pause) if queue.HasField("pause") else None,
        drain=_read_hold(queue.drain) if queue.HasField("drain") else None,
        resumed=_read_hold(queue.resumed) if queue.HasField("resumed") else None,
    )


def read_defaults(message: queue_service_pb2.TaskDefaults) -> TaskDefaults:
    """What tasks get that leave a field out."""
    return TaskDefaults(
        priority=message.priority if message.HasField("priority") else None,
        max_attempts=message.max_attempts,
        retry=read_retry_policy(message.retry_policy) if message.HasField("retry_policy") else None,
        schedule_to_start_ms=_duration_ms(message.schedule_to_start_timeout),
        start_to_close_ms=_duration_ms(message.start_to_close_timeout),
        schedule_to_close_ms=_duration_ms(message.schedule_to_close_timeout),
        heartbeat_ms=_duration_ms(message.heartbeat_timeout),
    )


def read_retry_policy(message: task_pb2.RetryPolicy) -> RetryPolicy:
    """A policy, complete."""
    initial_ms, max_ms = _duration_ms(message.initial_delay), _duration_ms(message.max_delay)
    return RetryPolicy(
        initial_ms=initial_ms if message.HasField("initial_delay") else _RETRY.initial_ms,
        multiplier=message.multiplier if message.HasField("multiplier") else _RETRY.multiplier,
        max_ms=max_ms if message.HasField("max_delay") else _RETRY.max_ms,
        jitter=message.jitter if message.HasField("jitter") else _RETRY.jitter,
        non_retryable=tuple(message.non_retryable_errors),
    )


def read_limits(message: queue_service_pb2.QueueLimits) -> Limits:
    """What may run at a time and how fast."""
    return Limits(
        max_running=message.max_running,
        max_running_per_key=message.max_running_per_key,
        rate=_read_rate(message.rate) if message.HasField("rate") else None,
        rate_per_key=_read_rate(message.rate_per_key) if message.HasField("rate_per_key") else None,
    )


def add_settings(queue: queue_service_pb2.Queue, settings: QueueSettings) -> None:
    """Show what a queue is set to."""
    if settings.defaults != TaskDefaults():
        _write_defaults(queue.defaults, settings.defaults)
    for name, defaults in settings.type_defaults.items():
        _write_defaults(queue.type_defaults[name], defaults)
    if settings.limits != Limits():
        _write_limits(queue.limits, settings.limits)
    queue.retention_days = settings.retention_days
    queue.poison_limit = settings.poison_limit
    queue.max_open_tasks = settings.max_open_tasks
    if settings.pause:
        _write_hold(queue.pause, settings.pause)
    if settings.drain:
        _write_hold(queue.drain, settings.drain)
    if settings.resumed:
        _write_hold(queue.resumed, settings.resumed)
    if settings.update_ms:
        set_time(queue.update_time, settings.update_ms)


def _write_defaults(message: queue_service_pb2.TaskDefaults, defaults: TaskDefaults) -> None:
    # Of a map a message comes about when it is asked for, also where nothing is set in it.
    if defaults.priority is not None:
        message.priority = defaults.priority
    message.max_attempts = defaults.max_attempts
    if defaults.retry is not None:
        write_retry_policy(message.retry_policy, defaults.retry)
    for duration, value_ms in (
        ("schedule_to_start_timeout", defaults.schedule_to_start_ms),
        ("start_to_close_timeout", defaults.start_to_close_ms),
        ("schedule_to_close_timeout", defaults.schedule_to_close_ms),
        ("heartbeat_timeout", defaults.heartbeat_ms),
    ):
        if value_ms:
            getattr(message, duration).FromMilliseconds(value_ms)


def write_retry_policy(message: task_pb2.RetryPolicy, policy: RetryPolicy) -> None:
    """Write a policy, complete."""
    message.initial_delay.FromMilliseconds(policy.initial_ms)
    message.multiplier = policy.multiplier
    message.max_delay.FromMilliseconds(policy.max_ms)
    message.jitter = policy.jitter
    message.non_retryable_errors.extend(policy.non_retryable)


def _write_limits(message: queue_service_pb2.QueueLimits, limits: Limits) -> None:
    message.max_running = limits.max_running
    message.max_running_per_key = limits.max_running_per_key
    if limits.rate:
        _write_rate(message.rate, limits.rate)
    if limits.rate_per_key:
        _write_rate(message.rate_per_key, limits.rate_per_key)


def _read_rate(message: queue_service_pb2.RateLimit) -> Rate | None:
    if not message.units:
        return None
    period_ms = _duration_ms(message.period) if message.HasField("period") else _DEFAULT_PERIOD_MS
    return Rate(message.units, period_ms, message.burst or message.units)


def _write_rate(message: queue_service_pb2.RateLimit, rate: Rate) -> None:
    message.units = rate.units
    message.period.FromMilliseconds(rate.period_ms)
    message.burst = rate.burst


def _read_hold(message: queue_service_pb2.QueueHold) -> Hold:
    return Hold(message.actor, message.reason, milliseconds(message.time))


def _write_hold(message: queue_service_pb2.QueueHold, hold: Hold) -> None:
    message.actor = hold.actor
    message.reason = hold.reason
    set_time(message.time, hold.time_ms)


def _duration_ms(duration: Duration) -> int:
    return duration.seconds * 1_000 + duration.nanos // 1_000_000
