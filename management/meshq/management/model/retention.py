"""For how long ended tasks are kept, and between which times a task can leave.

A task leaves the days of its retention after its end. Tasks that were created before ids told the
retention have the default one, whatever their ids seem to say; hence the bounds take it in.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Final, NamedTuple

from meshq.contract.ids import id_retention_days, id_time_ms
from meshq.contract.limits import DEFAULT_RETENTION_DAYS
from meshq.management.model.task import TaskId

DAY_MS: Final = 86_400_000
CLOCK_MARGIN_MS: Final = 3_600_000
"""By how much a task's end may seem to lie before its making, where clocks differ."""

_DAYS_AHEAD: Final = 2


class IdRange(NamedTuple):
    """Tasks by their ids: from the first one to before another one.

    Attributes:
        retention_days: Only those that are kept for so many days, as their ids say; 0 for all.
    """

    first: TaskId
    behind: TaskId
    retention_days: int = 0


class Leaving(NamedTuple):
    """When tasks leave: at or after `first`, and before `behind`, in milliseconds."""

    first: int
    behind: int


def leave_days(now_ms: int, retentions: Iterable[int]) -> set[int]:
    """On which days tasks leave that end from today on, for as long as nobody looks again.

    Args:
        now_ms: The time.
        retentions: The days of retention that are in use.

    Returns:
        Days since the epoch.
    """
    today = now_ms // DAY_MS
    return {today + days + ahead for days in retentions for ahead in range(_DAYS_AHEAD + 1)}


def leaving(task_ids: Iterable[TaskId], now_ms: int) -> Leaving:
    """When tasks of some ids leave that have ended and have not left yet."""
    soonest, longest = [], 0
    for task_id in map(_uuid, task_ids):
        days = id_retention_days(task_id)
        soonest.append(id_time_ms(task_id) + min(days, DEFAULT_RETENTION_DAYS) * DAY_MS)
        longest = max(longest, days, DEFAULT_RETENTION_DAYS)
    return Leaving(max(now_ms, min(soonest) - CLOCK_MARGIN_MS), now_ms + longest * DAY_MS + CLOCK_MARGIN_MS)


def _uuid(task_id: TaskId) -> uuid.UUID:
    return uuid.UUID(bytes=task_id)
