"""What a caller gives: a task to create, what changes of one, and which tasks are meant."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypedDict

from meshq.client.models.states import TaskState, TaskView, UniquePolicy, UniqueScope
from meshq.client.values import JsonValue

Span: TypeAlias = dt.timedelta | float
"""A length of time: a timedelta, or seconds. What comes back from a server is always a timedelta."""


class Unset(enum.Enum):
    """The type of `UNSET`: None is a JSON value, so that absence needs another sign."""

    UNSET = "UNSET"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return self.value


UNSET = Unset.UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When and whether a failed attempt is made again; None stands for the server's default.

    The delay before attempt n + 1 is `initial_delay` times `multiplier` to the power of n - 1.

    Attributes:
        initial_delay: The delay after the first failed attempt, 0 to 1 day.
        multiplier: By how much each delay is longer than the one before, 1 to 100.
        max_delay: The longest delay, 0 to 30 days.
        jitter: The part of a delay by which chance makes it shorter or longer, 0 to 1.
        non_retryable_errors: Types of errors after which no attempt is made.
    """

    initial_delay: Span | None = None
    multiplier: float | None = None
    max_delay: Span | None = None
    jitter: float | None = None
    non_retryable_errors: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """A task to create. What is None comes from the defaults of its queue, and then of the server.

    Attributes:
        type: The task type, which selects the handler.
        payload: The input as a JSON value; at most one of payload and data is given.
        data: The input as bytes.
        content_type: The media type of `data`.
        queue: The queue; None for `default`.
        headers: Free metadata for the handler.
        max_attempts: Attempts that may be made in all; with 1 a task is never started twice.
        priority: 0 to 9; higher ones are served first.
        labels: What the task can be found by.
        start_time: Not before this time, which must have a time zone.
        start_delay: Not before so long from now; at most one of start_time and start_delay is given.
        retry: When and whether a failed attempt is made again.
        fairness_key: Who shares the queue: keys take turns, however many tasks each has.
        fairness_weight: How much its key gets compared with others, 0.01 to 100.
        limit_key: What the queue's limits per key count.
        rate_units: Tokens that a start takes from the queue's rate limits, 1 to 1,000.
        ordering_key: Tasks of a queue with the same key run one after the other, as they were created.
        unique_key: The business key of which the queue has at most one task.
        unique_scope: For how long the task holds its key; UNTIL_FINISHED by default.
        unique_window: With the scope WINDOW, for how long after the creation.
        unique_policy: What happens when another task holds the key; RETURN_EXISTING by default.
        schedule_to_start_timeout: How long the task may wait for its first start.
        start_to_close_timeout: How long one attempt may take.
        schedule_to_close_timeout: How long the task may take in all.
        heartbeat_timeout: How long a handler may be silent.
    """

    type: str
    payload: JsonValue | Unset = UNSET
    data: bytes | None = None
    content_type: str = ""
    queue: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    max_attempts: int | None = None
    priority: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    start_time: dt.datetime | None = None
    start_delay: Span | None = None
    retry: RetryPolicy | None = None
    fairness_key: str | None = None
    fairness_weight: float | None = None
    limit_key: str | None = None
    rate_units: int | None = None
    ordering_key: str | None = None
    unique_key: str | None = None
    unique_scope: UniqueScope | None = None
    unique_window: Span | None = None
    unique_policy: UniquePolicy | None = None
    schedule_to_start_timeout: Span | None = None
    start_to_close_timeout: Span | None = None
    schedule_to_close_timeout: Span | None = None
    heartbeat_timeout: Span | None = None


class TaskOptions(TypedDict, total=False):
    """What may be said about a new task beside its type and payload; as in `TaskSpec`."""

    queue: str | None
    data: bytes | None
    content_type: str
    headers: Mapping[str, str]
    max_attempts: int | None
    priority: int | None
    labels: Mapping[str, str]
    start_time: dt.datetime | None
    start_delay: Span | None
    retry: RetryPolicy | None
    fairness_key: str | None
    fairness_weight: float | None
    limit_key: str | None
    rate_units: int | None
    ordering_key: str | None
    unique_key: str | None
    unique_scope: UniqueScope | None
    unique_window: Span | None
    unique_policy: UniquePolicy | None
    schedule_to_start_timeout: Span | None
    start_to_close_timeout: Span | None
    schedule_to_close_timeout: Span | None
    heartbeat_timeout: Span | None


class TaskChanges(TypedDict, total=False):
    """What may change of a task that does not run yet; what is not given stays.

    Attributes:
        priority: The new priority.
        start_time: When it may start, instead of what was said before.
        start_delay: The same, counted from now; 0 for at once.
        payload: The new input as a JSON value.
        data: The new input as bytes.
        content_type: The media type of `data`.
        labels: All the new labels; those it had are gone.
    """

    priority: int
    start_time: dt.datetime
    start_delay: Span
    payload: JsonValue | Unset
    data: bytes
    content_type: str
    labels: Mapping[str, str]


class TaskFilter(TypedDict, total=False):
    """Which tasks are meant; all that is given must hold.

    Attributes:
        states: Only tasks in one of these states.
        type: Only tasks of this type.
        queue: Only tasks of this queue.
        labels: Only tasks with all of these labels.
        min_create_time: Only tasks created at or after this time, which must have a time zone.
        max_create_time: Only tasks created before this time.
    """

    states: Sequence[TaskState]
    type: str | None
    queue: str | None
    labels: Mapping[str, str]
    min_create_time: dt.datetime | None
    max_create_time: dt.datetime | None


class ListOptions(TaskFilter, total=False):
    """Which tasks to list, and how.

    Attributes:
        view: How much of each task; BASIC by default.
        page_size: Tasks in one page, 1 to 1,000.
    """

    view: TaskView | None
    page_size: int
