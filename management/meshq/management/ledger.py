"""What the use cases want from the storage of the ledger."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from meshq.contract.errors import NotFound
from meshq.management.model.chains import ChainKey
from meshq.management.model.changes import Updated
from meshq.management.model.claims import Answer, Claim, Submission
from meshq.management.model.reports import Finish, Retry, Start, Wish
from meshq.management.model.retention import IdRange
from meshq.management.model.task import (
    Changed,
    NewTask,
    OpenAttempt,
    Sendable,
    TaskFilter,
    TaskId,
    TaskRow,
)


class RowsRefused(Exception):
    """The storage refused what was in the rows, and did nothing of the group."""


class Inserted(NamedTuple):
    """What became of a group of submissions.

    Attributes:
        won: The names of the claims that were made now; tasks without a claim are always stored.
        repeat: Whether an earlier try may have stored the group, so that tasks may have been dispatched.
        others: By the ids of tasks that were not stored since others hold their unique keys: their answers.
        waiting: The ids of tasks that wait for the ones before them in their chains.
        replaced: Tasks that have to go for new ones, with their states before.
    """

    won: frozenset[str]
    repeat: bool
    others: Mapping[TaskId, Answer] = MappingProxyType({})
    waiting: frozenset[TaskId] = frozenset()
    replaced: Sequence[tuple[TaskRow, int]] = ()


class Ended(NamedTuple):
    """Tasks that were moved to the same end.

    Attributes:
        state: The end.
        max_attempts: The attempts that they could have had, where their creation and the report say all there
            is to know of them; else 0.
        chains: Those that any of them were in.
    """

    state: int
    task_ids: Sequence[TaskId]
    max_attempts: int = 0
    chains: frozenset[ChainKey] = frozenset()


class Ledger(Protocol):
    """The storage. Every method raises `Unavailable` with LEDGER_UNAVAILABLE while it does not answer."""

    async def insert(self, submissions: Sequence[Submission], now_ms: int) -> Inserted:
        """Store submissions in one transaction: those with a claim only where it is won.

        Raises:
            RowsRefused: A row is bad.
        """

    async def insert_keyed(self, submissions: Sequence[Submission], now_ms: int) -> Inserted:
        """As `insert`, for submissions with tasks that have unique or ordering keys.

        Raises:
            RowsRefused: A row is bad.
        """

    async def insert_apart(self, submission: Submission, now_ms: int) -> tuple[Inserted, frozenset[TaskId]]:
        """Store one submission without the rows that are refused, whose ids are returned."""

    async def claims(self, names: Sequence[str]) -> dict[str, Claim]:
        """The claims of these names that exist."""

    async def finish(self, ends: Sequence[Finish], now_ms: int) -> list[TaskRow]:
        """Move rows to their ends where id and attempt match; returns those that were moved."""

    async def finish_quietly(self, ends: Sequence[Finish], now_ms: int) -> list[Ended]:
        """As `finish`, but returns less: most ends interest nobody, and rows take time to read."""

    async def retry(self, retries: Sequence[Retry], now_ms: int) -> list[TaskRow]:
        """Begin next attempts where id and attempt match; returns the changed rows."""

    async def start_attempts(self, starts: Sequence[Start], now_ms: int) -> list[TaskRow]:
        """Note that attempts run; returns the changed rows."""

    async def cancel(self, wishes: Sequence[Wish], now_ms: int) -> list[tuple[TaskRow, int]]:
        """Write CANCELLING; returns the rows with their states before.

        Tasks that are not open, or were to be cancelled already, are not among them.
        """

    async def delete(self, task_id: TaskId, now_ms: int) -> bool:
        """Delete a task that has ended; whether there was one."""

    async def delete_tasks(self, task_ids: Sequence[TaskId], now_ms: int) -> list[TaskId]:
        """Delete those of some tasks that have ended; returns which."""

    async def redrive(self, tasks: Sequence[NewTask], now_ms: int) -> tuple[Inserted, list[NewTask]]:
        """Store those of some new tasks that make good for ended ones which nothing makes good for.

        Returns:
            What became of them, and which were stored.
        """

    async def redrive_behind(
        self, wanted: TaskFilter, make: Callable[[int | None], Sequence[NewTask]], now_ms: int
    ) -> tuple[Inserted, list[NewTask]]:
        """As `redrive`, for tasks whose starts lie behind those that were planned before; one call at a time.

        Args:
            wanted: Whose planned starts count: those of open tasks which make good for others that the filter
                selects. Their states and times of creation are not asked for: the filter means the old tasks.
            make: Makes the tasks, given the latest planned start; None when there is none.
            now_ms: The time.
        """

    async def update(
        self, task_id: TaskId, attempt: int, now_ms: int, change: Callable[[TaskRow], Updated | None]
    ) -> TaskRow | None:
        """Change an open task if it is still at an attempt and `change` says to what.

        Returns:
            The task with its specification; None when it was not changed.
        """

    async def pass_over(
        self, task_id: TaskId, attempt: int, now_ms: int, change: Callable[[TaskRow], Updated | None]
    ) -> TaskRow | None:
        """As `update`, and the attempt's number is passed over without cost."""

    async def pick_redrivable(self, wanted: TaskFilter, after: TaskId, limit: int) -> list[TaskId]:
        """The ids behind an id of ended tasks that a filter selects and that were not redriven."""

    async def predecessors(self, task_ids: Sequence[TaskId]) -> dict[TaskId, TaskId]:
        """For those of some tasks that wait for others, the one right before each in its chain."""

    async def get_tasks(self, task_ids: Sequence[TaskId], *, full: bool) -> dict[TaskId, TaskRow]:
        """The tasks of these ids that exist."""

    async def specs(self, task_ids: Sequence[TaskId], max_bytes: int) -> tuple[dict[TaskId, bytes], int]:
        """The specifications of the first tasks until they have so many bytes; how many tasks those are."""

    async def list_tasks(self, wanted: TaskFilter, before: TaskId | None, limit: int) -> list[TaskRow]:
        """Tasks with ids below `before`, the newest first, without their specifications."""

    async def count_tasks(self, wanted: TaskFilter, limit: int) -> int:
        """How many tasks a filter selects, counted to a limit."""

    async def pick_tasks(self, wanted: TaskFilter, after: TaskId, limit: int, *, ended: bool) -> list[TaskId]:
        """The ids behind an id of open or of ended tasks that a filter selects, the oldest first."""

    async def changed_tasks(self, wanted: TaskFilter, since_ms: int, limit: int) -> list[Changed]:
        """Tasks that a filter selects and that have changed since a time, in the order of the changes."""

    async def find_open(self, ranges: Sequence[IdRange]) -> list[bool]:
        """For each range of ids whether a task in it is open; of whatever retention."""

    async def find_attempted(self, ranges: Sequence[IdRange]) -> list[bool]:
        """For each range of ids whether a task in it needs attempts that are older than its retention.

        That is one that is open and has had an attempt, or has ended later than its last one and is kept.
        """

    async def open_count(self) -> int:
        """How many tasks are open, by the counters."""

    async def untouched(
        self, after: TaskId, made_before_ms: int, due_before_ms: int, limit: int
    ) -> list[OpenAttempt]:
        """Open tasks behind an id that nobody has touched since a time, by id."""

    async def cancelling(self, after: TaskId, touched_before_ms: int, limit: int) -> list[OpenAttempt]:
        """Tasks behind an id that are to be cancelled, by id."""

    async def sendables(self, attempts: Sequence[tuple[TaskId, int]]) -> list[Sendable]:
        """What is needed to dispatch those attempts again that are still current; see PART_BYTES."""

    async def due(self, after: tuple[int, TaskId], until_ms: int, limit: int) -> list[Sendable]:
        """What waits for a time behind (time, id), by both; see PART_BYTES."""

    async def request_sweep(self, now_ms: int) -> None:
        """Leave word that everything is to be compared."""

    async def deletions(self, limit: int) -> list[TaskId]:
        """Deleted tasks that execution has not forgotten yet."""

    async def forget_deletions(self, task_ids: Sequence[TaskId]) -> None:
        """Execution has forgotten them."""

    async def expire_claims(self, before_ms: int, limit: int) -> int:
        """Remove claims older than a time; returns how many."""

    async def prepare_days(self, days: Collection[int]) -> list[str]:
        """Make sure of a partition for each day, counted since the epoch; returns those that are new."""

    async def strayed_days(self) -> set[int]:
        """Days on which tasks leave and that had no partition when these ended."""

    async def drop_days(self, before_ms: int) -> list[str]:
        """Drop the partitions of days that ended before a time; returns those that are gone."""

    async def drop_strayed(self, before_ms: int, limit: int) -> int:
        """Remove tasks that left before a time and have no partition for their day; returns how many."""


def task_missing(task_id: TaskId, sentence: str = "There is no task {}.") -> NotFound:
    """The error that names a task which is not, or no longer, in the ledger."""
    text = str(uuid.UUID(bytes=task_id))
    return NotFound(sentence.format(text), task_id=text)


async def one_task(ledger: Ledger, task_id: TaskId, *, full: bool) -> TaskRow:
    """A task that is expected to be there.

    Raises:
        NotFound: There is no such task.
    """
    row = (await ledger.get_tasks([task_id], full=full)).get(task_id)
    if row is None:
        raise task_missing(task_id)
    return row
