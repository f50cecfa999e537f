"""The rows that pass between the use cases, the storage and the wire.

Plain tuples, since hundreds of them make up a frame. A task's id is its 16 bytes everywhere inside; its
text form exists only in public messages. Times are milliseconds since the epoch.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from meshq.management.model.states import TERMINAL, State

TaskId: TypeAlias = bytes
"""The 16 bytes of a UUIDv7."""

NO_ID: Final = bytes(16)
"""Stands in the answer of a claim where a task was refused."""

DISPATCH_HORIZON_MS: Final = 5 * 60 * 1000
"""What is due later than this stays in the ledger for now."""


class NewTask(NamedTuple):
    """A validated task on its way into the ledger."""

    task_id: TaskId
    tenant: str
    queue: str
    type: str
    state: int
    max_attempts: int
    ready_ms: int
    spec: bytes


class Sendable(NamedTuple):
    """An attempt that is to be dispatched."""

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


class TaskRow(NamedTuple):
    """A task as the ledger has it; `spec` is None where it was not asked for."""

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
    spec: bytes | None = None

    @property
    def ended(self) -> bool:
        """Whether the state is terminal."""
        return self.state in TERMINAL


class OpenAttempt(NamedTuple):
    """What the sweeper compares."""

    task_id: TaskId
    attempt: int
    state: int
    tenant: str
    cancel_reason: str


class QueueFigures(NamedTuple):
    """A queue with its counters; rates per second."""

    tenant: str
    name: str
    create_ms: int
    created: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    arrival_rate: float
    completion_rate: float


class TaskFilter(NamedTuple):
    """Which tasks a list shows; empty values select everything."""

    tenant: str
    states: tuple[int, ...] = ()
    type: str = ""
    queue: str = ""
    min_create_ms: int | None = None
    max_create_ms: int | None = None


def sendable(task: NewTask, *, repeat: bool = False) -> Sendable:
    """The first attempt of a task that was just accepted."""
    task_id, tenant, queue, type_, _, _, ready_ms, spec = task
    return Sendable(task_id, 1, tenant, queue, type_, ready_ms, 0, "", repeat, spec)


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
