"""Tasks as callers see them, with what execution adds to the FULL view."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from meshq.internal.v1 import attempt_service_pb2
from meshq.management.conversion.contents import outcome_of
from meshq.management.conversion.tasks import add_outcome, public_task
from meshq.management.model.outcomes import Key, Sought
from meshq.management.model.states import State
from meshq.management.model.task import TaskRow
from meshq.management.watch.fresh import FreshContent
from meshq.v1 import task_pb2

_LOOKS: Final = 4
_PAUSE: Final = 0.1
_RECENT_MS: Final = 60_000
_RECORDED: Final = (State.SUCCEEDED, State.FAILED)


class Outcomes(Protocol):
    """Execution, which keeps results."""

    async def outcomes(self, wanted: Sequence[Sought]) -> dict[Key, attempt_service_pb2.RecordedOutcome]:
        """The recorded ends of attempts, as far as there are any."""


class Views:
    """Makes messages of rows.

    Args:
        outcomes: Is asked for results.
        fresh: Has those that came along with their reports.
        now_ms: The clock.
    """

    def __init__(self, outcomes: Outcomes, fresh: FreshContent, now_ms: Callable[[], int]) -> None:
        self._outcomes = outcomes
        self._fresh = fresh
        self._now_ms = now_ms

    def basic(self, row: TaskRow) -> task_pb2.Task:
        """Everything but input, headers and output."""
        return public_task(row._replace(spec=None), self._now_ms())

    async def full(self, rows: Sequence[TaskRow]) -> list[task_pb2.Task]:
        """Everything; rows need their specification.

        Raises:
            Unavailable: Execution does not answer, and one of the tasks has an outcome there.
        """
        tasks = [public_task(row, self._now_ms()) for row in rows]
        wanted = {
            index: _sought(row, tasks[index]) for index, row in enumerate(rows) if row.state in _RECORDED
        }
        found = await self._find(wanted, rows) if wanted else {}
        for index, item in wanted.items():
            add_outcome(tasks[index], found.get(item.key))
        return tasks

    async def one(self, row: TaskRow) -> task_pb2.Task:
        """The FULL view of one task."""
        return (await self.full([row]))[0]

    async def _find(
        self, wanted: dict[int, Sought], rows: Sequence[TaskRow]
    ) -> dict[Key, attempt_service_pb2.RecordedOutcome]:
        found = {
            item.key: outcome_of(item.key, content)
            for item in wanted.values()
            if (content := self._fresh.get(item.key))
        }
        rest = {index: item for index, item in wanted.items() if item.key not in found}
        return found | await self._ask(rest, rows) if rest else found

    async def _ask(
        self, wanted: dict[int, Sought], rows: Sequence[TaskRow]
    ) -> dict[Key, attempt_service_pb2.RecordedOutcome]:
        # An outcome is recorded before it is reported, but perhaps on a replica that lags: look again for
        # results of tasks that have just ended before calling them expired.
        found = await self._outcomes.outcomes(list(wanted.values()))
        for _ in range(_LOOKS - 1):
            missing = [
                item
                for index, item in wanted.items()
                if item.key not in found and self._just_ended(rows[index])
            ]
            if not missing:
                break
            await asyncio.sleep(_PAUSE)
            found |= await self._outcomes.outcomes(missing)
        return found

    def _just_ended(self, row: TaskRow) -> bool:
        return row.state == State.SUCCEEDED and self._now_ms() - (row.end_ms or 0) < _RECENT_MS


def _sought(row: TaskRow, task: task_pb2.Task) -> Sought:
    return Sought(row.task_id, row.attempt, row.tenant, row.queue, task.limit_key, row.end_ms or 0)
