"""Which of several tasks holds a unique key, and what becomes of the others."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from meshq.management.model.claims import Answer, Verdict
from meshq.management.model.task import NewTask, TaskId, Unique


class Scope(enum.IntEnum):
    """The numbers of `meshq.v1.UniqueScope`."""

    UNTIL_STARTED = 1
    UNTIL_FINISHED = 2
    WINDOW = 3


class Policy(enum.IntEnum):
    """The numbers of `meshq.v1.UniquePolicy`."""

    RETURN_EXISTING = 1
    REJECT = 2
    REPLACE = 3


class KeyName(NamedTuple):
    """What names a unique key."""

    tenant: str
    queue: str
    key: str


class Holder(NamedTuple):
    """Who took a unique key last; see `Unique`."""

    task_id: TaskId
    scope: int
    until_ms: int | None


class Placing(NamedTuple):
    """What becomes of new tasks.

    Attributes:
        others: By the ids of tasks that are not stored: what their callers are answered.
        handed_over: Keys with their new holders.
        replaced: By the ids of tasks that have to go: why.
    """

    others: dict[TaskId, Answer]
    handed_over: dict[KeyName, Holder]
    replaced: dict[TaskId, str]


def place(
    tasks: Sequence[NewTask],
    holders: Mapping[KeyName, Holder],
    open_ids: Collection[TaskId],
    ended_ids: Collection[TaskId],
    now_ms: int,
) -> Placing:
    """Decide for tasks in the order of their making.

    Args:
        tasks: The new ones.
        holders: Who has each key that they want; where nobody had it, the first of them that wants it.
        open_ids: Which holders among earlier tasks are open.
        ended_ids: Which of those with the scope WINDOW have ended and are still kept.
        now_ms: The time.
    """
    placing = Placing({}, {}, {})
    open_now = set(open_ids)
    current = dict(holders)
    for task in tasks:
        unique = task.special.unique if task.special else None
        if unique is None:
            continue
        name = KeyName(task.tenant, task.queue, unique.key)
        holder = current[name]
        if holder.task_id != task.task_id and _holds(holder, open_now, ended_ids, now_ms):
            if unique.policy != Policy.REPLACE:
                placing.others[task.task_id] = Answer(holder.task_id, _verdict(unique))
                continue
            if holder.task_id in open_now:
                placing.replaced[holder.task_id] = f"replaced by {uuid.UUID(bytes=task.task_id)}"
        open_now.add(task.task_id)
        current[name] = Holder(task.task_id, unique.scope, unique.until_ms)
        if current[name] != holders[name]:
            placing.handed_over[name] = current[name]
    return placing


def in_window(holder: Holder, now_ms: int) -> bool:
    """Whether the holder keeps its key even when it has ended."""
    return holder.scope == Scope.WINDOW and holder.until_ms is not None and holder.until_ms > now_ms


def _holds(holder: Holder, open_now: Collection[TaskId], ended_ids: Collection[TaskId], now_ms: int) -> bool:
    # A task that is gone holds nothing: nobody could be told what stands for the new one.
    if holder.scope == Scope.WINDOW:
        return in_window(holder, now_ms) and (holder.task_id in open_now or holder.task_id in ended_ids)
    return holder.task_id in open_now


def _verdict(unique: Unique) -> Verdict:
    return Verdict.TAKEN if unique.policy == Policy.REJECT else Verdict.EXISTING
