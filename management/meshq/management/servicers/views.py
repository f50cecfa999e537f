"""Tasks as callers see them, with what execution adds to the FULL view."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from meshq.contract.errors import InvalidRequest
from meshq.contract.limits import MAX_FRAME_BYTES
from meshq.internal.v1 import attempt_service_pb2
from meshq.management.conversion.contents import complete
from meshq.management.conversion.tasks import add_outcome, public_task
from meshq.management.model.outcomes import Key, Sought
from meshq.management.model.states import State
from meshq.management.model.task import TaskId, TaskRow
from meshq.management.watch.fresh import FreshContent
from meshq.v1 import task_pb2

_LOOKS: Final = 4
_PAUSE: Final = 0.1
_RECENT_MS: Final = 60_000
VIEW_BASIC: Final = int(task_pb2.TASK_VIEW_BASIC)
VIEW_RESULT: Final = int(task_pb2.TASK_VIEW_RESULT)
VIEW_FULL: Final = int(task_pb2.TASK_VIEW_FULL)
_VIEWS: Final = frozenset(map(int, task_pb2.TaskView.values()))
_RECORDED: Final = (State.SUCCEEDED, State.FAILED)


Found: TypeAlias = dict[Key, attempt_service_pb2.RecordedOutcome]
"""Recorded ends."""


class Specs(Protocol):
    """The ledger, which keeps what callers wrote."""

    async def specs(self, task_ids: Sequence[TaskId], max_bytes: int) -> tuple[dict[TaskId, bytes], int]:
        """See `meshq.management.ledger.Ledger.specs`."""


class Outcomes(Protocol):
    """Execution, which keeps results."""

    async def outcomes(self, wanted: Sequence[Sought]) -> tuple[Found, int]:
        """The recorded ends of the first attempts, at least of one; how many attempts those are."""


class Views:
    """Makes messages of rows.

    Args:
        specs: Is asked for what callers wrote.
        outcomes: Is asked for results.
        fresh: Has those that came along with their reports.
        now_ms: The clock.
    """

    def __init__(
        self, specs: Specs, outcomes: Outcomes, fresh: FreshContent, now_ms: Callable[[], int]
    ) -> None:
        self._specs = specs
        self._outcomes = outcomes
        self._fresh = fresh
        self._now_ms = now_ms

    def basic(self, row: TaskRow) -> task_pb2.Task:
        """Everything but input, headers and output."""
        return public_task(row._replace(spec=None), self._now_ms())

    async def page(self, rows: Sequence[TaskRow], view: int) -> list[task_pb2.Task]:
        """Messages of rows; with outputs only of as many as fit into an answer, but at least of one."""
        if view == VIEW_BASIC:
            return [self.basic(row) for row in rows]
        tasks: list[task_pb2.Task] = []
        size = 0
        while len(tasks) < len(rows):
            for task in await self.first(rows[len(tasks) :], inputs=view == VIEW_FULL):
                size += task.ByteSize()
                if tasks and size > MAX_FRAME_BYTES:
                    return tasks
                tasks.append(task)
        return tasks

    async def first(self, rows: Sequence[TaskRow], *, inputs: bool) -> list[task_pb2.Task]:
        """Everything about the first of some tasks, at least about one; some frames' worth at most.

        Args:
            rows: The tasks.
            inputs: Whether that includes input and headers.

        Raises:
            Unavailable: Execution does not answer, and one of the tasks has an outcome there.
        """
        if not inputs:
            return await self._full(rows)
        found, count = await self._specs.specs([row.task_id for row in rows], MAX_FRAME_BYTES)
        # What was deleted since is shown as it was.
        return await self._full([row._replace(spec=found.get(row.task_id)) for row in rows[:count]])

    async def one(self, row: TaskRow) -> task_pb2.Task:
        """Everything about a task, with its input where the row has its specification.

        Raises:
            Unavailable: Execution does not answer, and has the outcome.
        """
        return (await self._full([row]))[0]

    async def _full(self, rows: Sequence[TaskRow]) -> list[task_pb2.Task]:
        """Views of the first rows, as far as their outcomes fit into a frame."""
        now_ms = self._now_ms()
        tasks = [public_task(row, now_ms) for row in rows]
        wanted: dict[int, Sought] = {}
        for index, row in enumerate(rows):
            if row.state not in _RECORDED:
                continue
            if content := self._fresh.get((row.task_id, row.attempt)):
                complete(tasks[index], content)
            else:
                wanted[index] = _sought(row, tasks[index])
        if not wanted:
            return tasks
        found, end = await self._ask(wanted, rows)
        for index, item in wanted.items():
            add_outcome(tasks[index], found.get(item.key))
        return tasks[:end]

    async def _ask(self, wanted: Mapping[int, Sought], rows: Sequence[TaskRow]) -> tuple[Found, int]:
        """Outcomes that execution has recorded, and up to which row they were looked for."""
        # An outcome is recorded before it is reported, but perhaps on a replica that lags: look again for
        # results of tasks that have just ended before calling them expired.
        found, end = await self._look(wanted, len(rows))
        for _ in range(_LOOKS - 1):
            missing = {
                index: item
                for index, item in wanted.items()
                if index < end and item.key not in found and self._just_ended(rows[index])
            }
            if not missing:
                break
            await asyncio.sleep(_PAUSE)
            more, end = await self._look(missing, end)
            found |= more
        return found, end

    async def _look(self, wanted: Mapping[int, Sought], end: int) -> tuple[Found, int]:
        found, count = await self._outcomes.outcomes(list(wanted.values()))
        return found, end if count == len(wanted) else list(wanted)[count]

    def _just_ended(self, row: TaskRow) -> bool:
        return row.state == State.SUCCEEDED and self._now_ms() - (row.end_ms or 0) < _RECENT_MS


def read_view(view: int, *, default: int) -> int:
    """The view of a call.

    Raises:
        InvalidRequest: It is none.
    """
    if view not in _VIEWS:
        raise InvalidRequest.field("view", f"must be a view of a task, not {view}")
    return default if view == task_pb2.TASK_VIEW_UNSPECIFIED else view


def _sought(row: TaskRow, task: task_pb2.Task) -> Sought:
    return Sought(row.task_id, row.attempt, row.tenant, row.queue, task.limit_key, row.end_ms or 0)
