"""The deadlines that the ledger keeps; the others are the shards'.

They say how long a task may take in all, and how long one that waits for other tasks may wait for its start.
One instance looks at what is due next. A task that may be at a worker is not simply ended: it is withdrawn
like one that is to be cancelled, and ends as EXPIRED unless it has succeeded meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.management.ledger import Duty
from meshq.management.model.reports import SCHEDULE_TO_CLOSE, SCHEDULE_TO_START, Wish
from meshq.management.model.states import State
from meshq.management.model.task import TaskId, TaskRow
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_LONGEST_SLEEP: Final = 0.5
"""New deadlines are seen after so long at the latest."""
_CLOSE_MESSAGE: Final = "the task took longer than its schedule_to_close_timeout"
_START_MESSAGE: Final = "the task was not started within its schedule_to_start_timeout"


class Overdue(NamedTuple):
    """A task that has run out of time.

    Attributes:
        due_ms: When it had to have ended, or started.
        waiting: Whether it had to have started, and waits for others.
    """

    task_id: TaskId
    due_ms: int
    waiting: bool


class DeadlineStore(Protocol):
    """The deadlines in the ledger."""

    async def overdue(self, now_ms: int, limit: int) -> list[Overdue]:
        """Tasks that have run out of time."""

    async def next_deadline(self) -> int | None:
        """When the next one does."""


class Wishes(Protocol):
    """Has tasks end."""

    async def wish(self, wishes: Sequence[Wish]) -> list[TaskRow]:
        """Ask for tasks to end."""


class DeadlineKeeper:
    """See the module."""

    def __init__(self, store: DeadlineStore, duty: Duty, wishes: Wishes, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._duty = duty
        self._wishes = wishes
        self._now_ms = now_ms
        self._repeater = Repeater("deadlines", self.run_once, _LONGEST_SLEEP)
        self.start = self._repeater.start
        self.stop = self._repeater.stop

    async def run_once(self) -> float | None:
        """Have what is overdue end; returns the seconds until the next task is."""
        try:
            if not await self._duty.hold():
                return None
            found = await self._store.overdue(self._now_ms(), MAX_FRAME_ITEMS)
            await self._wishes.wish([_wish(item) for item in found])
            if len(found) == MAX_FRAME_ITEMS:
                return 0.0
            next_ms = await self._store.next_deadline()
        except MeshqError as error:
            _log.info("deadlines not looked at", reason=error.message)
            return None
        if next_ms is None:
            return None
        return min(_LONGEST_SLEEP, max(0.0, (next_ms - self._now_ms()) / 1_000))


def _wish(item: Overdue) -> Wish:
    if item.waiting:
        return Wish(item.task_id, _START_MESSAGE, State.EXPIRED, SCHEDULE_TO_START, State.WAITING)
    return Wish(item.task_id, _CLOSE_MESSAGE, State.EXPIRED, SCHEDULE_TO_CLOSE)
