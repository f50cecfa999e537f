"""Queues: their settings and their figures."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from meshq.client.models.specs import RetryPolicy, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounts:
    """Tasks per state. Open ones are live figures, ended ones count from the queue's creation."""

    open: int = 0
    waiting: int = 0
    scheduled: int = 0
    pending: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDefaults:
    """What tasks get that leave a field out; the fields are those of `TaskSpec`, None where not set."""

    priority: int | None = None
    max_attempts: int | None = None
    retry: RetryPolicy | None = None
    schedule_to_start_timeout: Span | None = None
    start_to_close_timeout: Span | None = None
    schedule_to_close_timeout: Span | None = None
    heartbeat_timeout: Span | None = None


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A bucket of tokens. A start takes the task's `rate_units` from it.

    Attributes:
        units: Tokens that flow into it per period.
        period: The period; a second by default.
        burst: Tokens that it holds at most; as many as `units` by default.
    """

    units: int
    period: Span = dt.timedelta(seconds=1)
    burst: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """What may run at a time and how fast, over all workers; None means no limit.

    Attributes:
        max_running: Tasks of the queue at workers at a time.
        max_running_per_key: Tasks with the same limit_key at workers at a time.
        rate: Starts of tasks of the queue.
        rate_per_key: Starts of tasks with the same limit_key.
    """

    max_running: int | None = None
    max_running_per_key: int | None = None
    rate: RateLimit | None = None
    rate_per_key: RateLimit | None = None


@dataclass(frozen=True, slots=True)
class QueueHold:
    """Who stopped a queue or let it go on, why and when."""

    actor: str = ""
    reason: str = ""
    time: dt.datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One queue with its settings and figures.

    Attributes:
        arrival_rate: Tasks created per second, over about a minute.
        completion_rate: Tasks ended per second, over about a minute.
        oldest_pending_age: How long the ready task that waits longest has been ready.
        complete: False when a shard could not be asked, so that open tasks may be undercounted.
        defaults: What its tasks get that do not say themselves.
        type_defaults: The same by task type, which goes before `defaults`.
        limits: What may run at a time and how fast.
        retention_days: For how many days ended tasks are kept.
        poison_limit: Attempts in a row that may end without any answer of a worker.
        max_open_tasks: Open tasks that the queue takes; None for no limit of its own.
        pause: Who keeps its tasks from workers, if somebody does.
        drain: Who keeps new tasks from it, if somebody does.
        resumed: Who ended both, until somebody stops it again.
        update_time: When its settings were last changed.
    """

    queue: str
    tenant: str = ""
    create_time: dt.datetime | None = None
    counts: QueueCounts = field(default_factory=QueueCounts)
    oldest_pending_age: dt.timedelta | None = None
    arrival_rate: float = 0.0
    completion_rate: float = 0.0
    complete: bool = True
    defaults: TaskDefaults = field(default_factory=TaskDefaults)
    type_defaults: Mapping[str, TaskDefaults] = field(default_factory=dict)
    limits: QueueLimits = field(default_factory=QueueLimits)
    retention_days: int = 0
    poison_limit: int = 0
    max_open_tasks: int | None = None
    pause: QueueHold | None = None
    drain: QueueHold | None = None
    resumed: QueueHold | None = None
    update_time: dt.datetime | None = None


class QueueSettings(TypedDict, total=False):
    """What may be set of a queue. What is not given stays; None takes a setting back.

    The limits are those of `QueueLimits`, each for itself. Defaults of tasks are given each for itself,
    under its name in `TaskDefaults`, or all as `defaults`. Everything else is as in `Queue`.
    """

    defaults: TaskDefaults | None
    type_defaults: Mapping[str, TaskDefaults] | None
    priority: int | None
    max_attempts: int | None
    retry: RetryPolicy | None
    schedule_to_start_timeout: Span | None
    start_to_close_timeout: Span | None
    schedule_to_close_timeout: Span | None
    heartbeat_timeout: Span | None
    max_running: int | None
    max_running_per_key: int | None
    rate: RateLimit | None
    rate_per_key: RateLimit | None
    retention_days: int | None
    poison_limit: int | None
    max_open_tasks: int | None


@dataclass(frozen=True, slots=True)
class QueueNews:
    """What a watch of queues yields: those that have changed, and the names of those deleted."""

    queues: tuple[Queue, ...]
    deleted: tuple[str, ...] = ()
