"""What an update writes into a task that does not run yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meshq.management.model.states import State
from meshq.management.model.task import TaskRow

UPDATABLE = frozenset({State.WAITING, State.SCHEDULED, State.PENDING, State.RETRYING})
"""States in which no worker has the task, as far as the ledger knows."""


class Updated(NamedTuple):
    """The columns that change.

    Attributes:
        traits: None for a plain task.
        start_by_ms: A new one where the start changes, and with it the time that the task has.
        close_by_ms: Likewise.
    """

    spec: bytes
    traits: bytes | None
    priority: int
    labels: Sequence[str] | None
    state: int
    ready_ms: int
    start_by_ms: int | None
    close_by_ms: int | None


def state_after(row: TaskRow, ready_ms: int, now_ms: int) -> int:
    """The state of a task whose start is moved."""
    if row.state == State.WAITING:
        return State.WAITING
    if ready_ms <= now_ms:
        return State.PENDING
    return State.RETRYING if row.state == State.RETRYING else State.SCHEDULED
