"""What a queue is set to: defaults for its tasks, limits, retention, and whether it is stopped.

Times are milliseconds. Zero and None stand for "not set".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from meshq.contract.limits import (
    DEFAULT_POISON_LIMIT,
    DEFAULT_RETENTION_DAYS,
    DEFAULT_RETRY_INITIAL_SECONDS,
    DEFAULT_RETRY_JITTER,
    DEFAULT_RETRY_MAX_SECONDS,
    DEFAULT_RETRY_MULTIPLIER,
)


class RetryPolicy(NamedTuple):
    """When and whether a failed attempt is made again; complete, see `meshq.v1.RetryPolicy`."""

    initial_ms: int = int(DEFAULT_RETRY_INITIAL_SECONDS * 1_000)
    multiplier: float = DEFAULT_RETRY_MULTIPLIER
    max_ms: int = int(DEFAULT_RETRY_MAX_SECONDS * 1_000)
    jitter: float = DEFAULT_RETRY_JITTER
    non_retryable: tuple[str, ...] = ()


class TaskDefaults(NamedTuple):
    """What tasks get that leave a field out."""

    priority: int | None = None
    max_attempts: int = 0
    retry: RetryPolicy | None = None
    schedule_to_start_ms: int = 0
    start_to_close_ms: int = 0
    schedule_to_close_ms: int = 0
    heartbeat_ms: int = 0


NO_DEFAULTS: Final = TaskDefaults()
"""Those of most queues."""


class Rate(NamedTuple):
    """A bucket of tokens, complete."""

    units: int
    period_ms: int
    burst: int


class Limits(NamedTuple):
    """What may run at a time and how fast."""

    max_running: int = 0
    max_running_per_key: int = 0
    rate: Rate | None = None
    rate_per_key: Rate | None = None


class Hold(NamedTuple):
    """Who stopped a queue or let it go on, why and when."""

    actor: str
    reason: str
    time_ms: int


class QueueSettings(NamedTuple):
    """All that is set of a queue.

    Attributes:
        version: Counts the changes, over all queues; 0 where nothing was ever set.
        type_defaults: By task type; goes before `defaults`, field by field.
        max_open_tasks: 0 for no limit.
        pause: Set while nothing is handed out.
        drain: Set while no new tasks are taken.
        resumed: Set from the end of both until the next of either.
    """

    version: int = 0
    update_ms: int = 0
    defaults: TaskDefaults = NO_DEFAULTS
    type_defaults: Mapping[str, TaskDefaults] = MappingProxyType({})
    limits: Limits = Limits()
    retention_days: int = DEFAULT_RETENTION_DAYS
    poison_limit: int = DEFAULT_POISON_LIMIT
    max_open_tasks: int = 0
    pause: Hold | None = None
    drain: Hold | None = None
    resumed: Hold | None = None


UNSET: Final = QueueSettings()
"""The settings of a queue that nobody has set anything of."""


def defaults_of(settings: QueueSettings, type_: str) -> TaskDefaults:
    """The defaults for tasks of a type, field by field: those of the type, else those of the queue.

    Returns:
        NO_DEFAULTS itself where there are none.
    """
    by_type = settings.type_defaults.get(type_)
    if by_type is None:
        return NO_DEFAULTS if settings.defaults == NO_DEFAULTS else settings.defaults
    merged = TaskDefaults._make(
        own if own != none else general
        for own, general, none in zip(by_type, settings.defaults, NO_DEFAULTS, strict=True)
    )
    return NO_DEFAULTS if merged == NO_DEFAULTS else merged
