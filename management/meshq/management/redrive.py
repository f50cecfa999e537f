"""Making good for tasks that ended without success: each gets a new one with the same specification.

The old task is marked and the new one stored in one transaction, so that of two calls one makes the new task
and the other finds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

from meshq.contract.errors import MeshqError, PreconditionFailed, Reason
from meshq.management.admission import Admission, refused
from meshq.management.bulk import Done, created_until
from meshq.management.ledger import Inserted, Ledger, one_task
from meshq.management.model.claims import Verdict
from meshq.management.model.queues import QueueSettings
from meshq.management.model.states import State
from meshq.management.model.task import NO_ID, NewTask, TaskFilter, TaskId, TaskRow

REDRIVABLE: Final = frozenset({State.FAILED, State.CANCELLED, State.EXPIRED})
_PAGE: Final = 50
"""Specifications that are read together; so many of the largest are 50 MiB."""

Renew: TypeAlias = Callable[[TaskRow, QueueSettings, int], NewTask]
"""Makes the new task of an old one with its specification, which is not to start before a time."""


class Stored(Protocol):
    """Who hears of new tasks after their commit."""

    def stored(self, tasks: Sequence[NewTask], inserted: Inserted) -> None:
        """Tasks were stored."""


class Redriver:
    """See the module.

    Args:
        ledger: Where the tasks are.
        admission: Whether their queues take new ones.
        stored: Hears of the new tasks.
        renew: Makes them.
        now_ms: The clock.
    """

    def __init__(
        self, ledger: Ledger, admission: Admission, stored: Stored, renew: Renew, now_ms: Callable[[], int]
    ) -> None:
        self._ledger = ledger
        self._admission = admission
        self._stored = stored
        self._renew = renew
        self._now_ms = now_ms

    async def redrive(self, task_id: TaskId) -> TaskRow:
        """The new task that makes good for one, made now or before; with its specification.

        Raises:
            NotFound: There is no such task, or the new one was deleted.
            PreconditionFailed: It is open or succeeded, or its queue is draining.
            Overloaded: Its queue is full.
        """
        row = await one_task(self._ledger, task_id, full=True)
        if not row.redriven_to:
            if row.state not in REDRIVABLE:
                state = State(row.state).name
                raise PreconditionFailed(
                    f"The task is {state}; only FAILED, EXPIRED and CANCELLED ones are redriven.",
                    Reason.TASK_NOT_REDRIVABLE,
                )
            if verdict := self._refusal(row):
                raise refused(verdict, row.queue)
            await self._store([self._renew(row, self._settings(row), 0)])
            row = await one_task(self._ledger, task_id, full=False)
        return await one_task(self._ledger, row.redriven_to or NO_ID, full=True)

    async def redrive_selected(
        self, wanted: TaskFilter, *, rate: float, max_tasks: int, seconds: float
    ) -> Done:
        """Redrive the tasks that a filter selects and that were not redriven, the oldest first.

        Args:
            wanted: Which tasks; their states are redrivable ones.
            rate: New tasks that start per second, behind those of earlier calls; 0 for all at once.
            max_tasks: How many at most.
            seconds: For how long at most.

        Raises:
            PreconditionFailed: A queue is draining.
            Overloaded: A queue is full, and nothing could be redriven.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        spread = _Spread(rate, self._now_ms()) if rate else None
        wanted = created_until(wanted, self._now_ms())
        count, after = 0, NO_ID
        while left := min(_PAGE, max_tasks - count):
            ids = await self._ledger.pick_redrivable(wanted, after, left)
            if ids:
                fitting, full = self._fitting(await self._ledger.get_tasks(ids, full=True), ids)
                if full and not (fitting or count):
                    raise full
                if spread:
                    count += await self._store_spread(fitting, spread, wanted)
                else:
                    count += await self._store([self._renew(row, self._settings(row), 0) for row in fitting])
                if full:
                    return Done(count, complete=False)
                after = ids[-1]
            if len(ids) < left:
                break
            if clock() >= deadline:
                return Done(count, complete=False)
        return Done(count, complete=True)

    def _fitting(
        self, rows: dict[TaskId, TaskRow], ids: Sequence[TaskId]
    ) -> tuple[list[TaskRow], MeshqError | None]:
        """The first of some tasks until a queue is full, and what to say then."""
        fitting: list[TaskRow] = []
        for row in (rows[task_id] for task_id in ids if task_id in rows):
            verdict = self._refusal(row)
            if verdict == Verdict.FULL:
                return fitting, refused(verdict, row.queue)
            if verdict:
                raise refused(verdict, row.queue)
            fitting.append(row)
        return fitting, None

    def _refusal(self, row: TaskRow) -> Verdict | None:
        return self._admission.refusal(row.tenant, row.queue, self._settings(row))

    def _settings(self, row: TaskRow) -> QueueSettings:
        return self._admission.settings(row.tenant, row.queue)

    async def _store(self, tasks: Sequence[NewTask]) -> int:
        if not tasks:
            return 0
        inserted, stored = await self._ledger.redrive(tasks, self._now_ms())
        self._stored.stored(stored, inserted)
        return len(stored)

    async def _store_spread(self, rows: Sequence[TaskRow], spread: _Spread, wanted: TaskFilter) -> int:
        """Store new tasks for old ones; their starts are planned while no other call plans any."""
        if not rows:
            return 0

        def make(latest_ms: int | None) -> list[NewTask]:
            starts = spread.behind(latest_ms, len(rows))
            return [
                self._renew(row, self._settings(row), start) for row, start in zip(rows, starts, strict=True)
            ]

        inserted, stored = await self._ledger.redrive_behind(wanted, make, self._now_ms())
        self._stored.stored(stored, inserted)
        return len(stored)


class _Spread:
    """The starts of one call's new tasks: one after the other, behind those that other calls have planned."""

    def __init__(self, rate: float, begin_ms: int) -> None:
        self._gap_ms = 1_000 / rate
        self._next_ms = float(begin_ms)

    def behind(self, latest_ms: int | None, count: int) -> list[int]:
        """The next starts, given the latest one that anybody has planned."""
        planned_ms = 0.0 if latest_ms is None else latest_ms + self._gap_ms
        # What this call has planned itself may have begun and ended already.
        first_ms = max(planned_ms, self._next_ms)
        self._next_ms = first_ms + count * self._gap_ms
        return [int(first_ms + n * self._gap_ms) for n in range(count)]
