"""The rows that pass between the use cases, the storage and the wire.

Plain tuples, since hundreds of them make up a frame. A task's id is its 16 bytes everywhere inside; its
text form exists only in public messages. Times are milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from meshq.contract.limits import DEFAULT_RETENTION_DAYS
from meshq.management.model.chains import ChainKey
from meshq.management.model.states import TERMINAL, State

TaskId: TypeAlias = bytes
"""The 16 bytes of a UUIDv7."""

NO_ID: Final = bytes(16)
"""Stands in the answer of a claim where a task was refused."""

PART_BYTES: Final = 16 << 20
"""Bytes of specifications that are read at a time to be dispatched; the last one may go beyond."""
DISPATCH_HORIZON_MS: Final = 5 * 60 * 1000
"""What is due later than this stays in the ledger for now."""


class Unique(NamedTuple):
    """A unique key that a new task wants to hold.

    Attributes:
        scope: The number of `meshq.v1.UniqueScope`, resolved.
        policy: The number of `meshq.v1.UniquePolicy`, resolved.
        until_ms: With the scope WINDOW: until when.
    """

    key: str
    scope: int
    policy: int
    until_ms: int | None = None


class Special(NamedTuple):
    """What a task has beyond a plain one, resolved; each is a column.

    Attributes:
        traits: An encoded `meshq.v1.Task` with the fields of the specification from 11 on.
        announce_start: Whether the ledger has to know of a start before the worker does.
        start_by_ms: When the first attempt must have started; None for no limit.
        close_by_ms: When the task must have ended; None for no limit.
        labels: Each as `key=value`.
        redriven_from: The task that this one makes good for.
    """

    traits: bytes = b""
    priority: int = 0
    fairness_key: str = ""
    announce_start: bool = False
    start_by_ms: int | None = None
    close_by_ms: int | None = None
    ordering_key: str | None = None
    unique: Unique | None = None
    labels: Sequence[str] | None = None
    redriven_from: TaskId | None = None


class NewTask(NamedTuple):
    """A validated task on its way into the ledger; `special` is None for a plain one."""

    task_id: TaskId
    tenant: str
    queue: str
    type: str
    state: int
    max_attempts: int
    ready_ms: int
    spec: bytes
    retention_days: int = DEFAULT_RETENTION_DAYS
    special: Special | None = None


class Sendable(NamedTuple):
    """An attempt that is to be dispatched.

    Attributes:
        repeat: Whether it may have been dispatched before.
        traits: As the ledger has them; execution is told what concerns it.
        start_by_ms: When the first attempt must have started; None for no limit.
        announce_start: Whether the ledger has to know of a start before the worker does.
        started: Whether the ledger knows of the start, and no other attempt may be made.
    """

    task_id: TaskId
    attempt: int
    tenant: str
    queue: str
    type: str
    ready_ms: int
    priority: int
    fairness_key: str
    repeat: bool
    spec: bytes
    traits: bytes | None = None
    start_by_ms: int | None = None
    announce_start: bool = False
    started: bool = False


class TaskRow(NamedTuple):
    """A task as the ledger has it.

    Attributes:
        spared: Attempts that cost nothing.
        unanswered: Attempts in a row that ended without an answer.
        ending: The terminal state that CANCELLING leads to; None for CANCELLED.
        labels: Each as `key=value`.
        traits: None for a plain task.
        spec: None where it was not asked for.
    """

    task_id: TaskId
    tenant: str
    queue: str
    type: str
    state: int
    attempt: int
    max_attempts: int
    ready_ms: int
    start_ms: int | None
    end_ms: int | None
    worker_id: str | None
    error_type: str | None
    error_message: str | None
    cancel_reason: str | None
    cancel_ms: int | None
    spared: int = 0
    unanswered: int = 0
    ending: int | None = None
    ordering_key: str | None = None
    unique_key: str | None = None
    labels: list[str] | None = None
    redriven_from: TaskId | None = None
    redriven_to: TaskId | None = None
    traits: bytes | None = None
    spec: bytes | None = None

    @property
    def chain(self) -> ChainKey | None:
        """The chain that the task is in."""
        return ChainKey(self.tenant, self.queue, self.ordering_key) if self.ordering_key else None

    @property
    def ended(self) -> bool:
        """Whether the state is terminal."""
        return self.state in TERMINAL


_NOT_BEGUN: Final = (None,) * 7
"""From start_ms to cancel_ms."""


class OpenAttempt(NamedTuple):
    """What the sweeper compares."""

    task_id: TaskId
    attempt: int
    state: int
    tenant: str
    cancel_reason: str


class TaskFilter(NamedTuple):
    """Which tasks are meant; empty values select everything.

    Attributes:
        labels: Each as `key=value`; all of them are wanted.
    """

    tenant: str
    states: tuple[int, ...] = ()
    type: str = ""
    queue: str = ""
    min_create_ms: int | None = None
    max_create_ms: int | None = None
    labels: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether it selects everything."""
        return self == TaskFilter(self.tenant)


class Changed(NamedTuple):
    """A task with the time of its latest change."""

    time_ms: int
    row: TaskRow


def is_cut(part: Sequence[Sendable]) -> bool:
    """Whether a part of what is to be dispatched ends because of its size."""
    return sum(len(item.spec) for item in part) >= PART_BYTES


def sendable(task: NewTask, *, repeat: bool = False) -> Sendable:
    """The first attempt of a task that was just accepted."""
    task_id, tenant, queue, type_, _, max_attempts, ready_ms, spec, _, special = task
    if special is None:
        once = max_attempts == 1
        return Sendable(task_id, 1, tenant, queue, type_, ready_ms, 0, "", repeat, spec, None, None, once)
    return Sendable(
        task_id,
        1,
        tenant,
        queue,
        type_,
        ready_ms,
        special.priority,
        special.fairness_key,
        repeat,
        spec,
        special.traits,
        special.start_by_ms,
        special.announce_start,
    )


def created_row(task: NewTask) -> TaskRow:
    """A task that was just accepted, as the ledger has it."""
    task_id, tenant, queue, type_, state, max_attempts, ready_ms, _, _, special = task
    row = TaskRow(task_id, tenant, queue, type_, state, 1, max_attempts, ready_ms, *_NOT_BEGUN)
    if special is None:
        return row
    return row._replace(
        ordering_key=special.ordering_key,
        unique_key=special.unique.key if special.unique else None,
        labels=list(special.labels or ()) or None,
        redriven_from=special.redriven_from,
        traits=special.traits or None,
    )


def shown_state(state: int, ready_ms: int, now_ms: int) -> int:
    """The state that a reader sees: what waited for its time is PENDING once that has come.

    Nobody writes that move to the ledger; it would be a write for each task to say what the clock says.
    """
    if state in (State.SCHEDULED, State.RETRYING) and ready_ms <= now_ms:
        return State.PENDING
    return state


def never_dispatched(state: int, ready_ms: int, now_ms: int) -> bool:
    """Whether no shard can know the task: it waits for others, or its first time is far away.

    The margin of a minute covers clocks that differ.
    """
    far = ready_ms > now_ms + DISPATCH_HORIZON_MS + 60_000
    return state == State.WAITING or (state == State.SCHEDULED and far)
