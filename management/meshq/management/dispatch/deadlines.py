"""The deadlines that the ledger keeps; the others are the shards'.

They say how long a task may take in all, and how long one that waits for other tasks may wait for its start.
The instance in office looks at what is due next, and each instance at what is due soon of what it has
accepted itself, as the other one sees that only at its next look. A task that may be at a worker is not
simply ended: it is withdrawn like one that is to be cancelled, and ends as EXPIRED unless it has succeeded
meanwhile.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.management.lookout import LONGEST_INTERVAL, Lookout, Outlook
from meshq.management.model.reports import SCHEDULE_TO_CLOSE, SCHEDULE_TO_START, Wish
from meshq.management.model.states import State
from meshq.management.model.task import TaskId, TaskRow
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_LONGEST_SLEEP: Final = 600.0
_SOON_MS: Final = int(6_000 * LONGEST_INTERVAL)
"""What is due later is seen by looks at the ledger, also if the office changes hands meanwhile."""
_TOGETHER_MS: Final = 100
"""So much earlier times than one that is kept are not kept beside it; so there are never many."""
_RETRY_SECONDS: Final = 0.5
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
    """See the module.

    Args:
        store: The deadlines.
        lookout: Says when the first one is due, to the instance in office.
        wishes: Has tasks end.
        now_ms: The clock.
    """

    def __init__(
        self,
        store: DeadlineStore,
        lookout: Lookout,
        wishes: Wishes,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._lookout = lookout
        self._wishes = wishes
        self._now_ms = now_ms
        self._times: list[int] = []
        self._repeater = Repeater("deadlines", self.run_once, _LONGEST_SLEEP)
        self.start = self._repeater.start
        self.stop = self._repeater.stop
        lookout.on_look(self._looked)

    def accepted(self, *times: int | None) -> None:
        """Tasks run out of time then, those that were just accepted here among them."""
        soon_ms = self._now_ms() + _SOON_MS
        for time_ms in times:
            if time_ms is not None and time_ms <= soon_ms:
                self._expect(time_ms)

    async def run_once(self) -> float:
        """Have end what is overdue, if anything may be; returns the seconds until that is so again."""
        now_ms = self._now_ms()
        if self._times and self._times[0] <= now_ms:
            try:
                if await self._end_overdue(now_ms):
                    return 0.0
            except MeshqError as error:
                _log.info("deadlines not looked at", reason=error.message)
                return _RETRY_SECONDS
        if not self._times:
            return _LONGEST_SLEEP
        return min(_LONGEST_SLEEP, max(0.0, (self._times[0] - self._now_ms()) / 1_000))

    async def _end_overdue(self, now_ms: int) -> bool:
        """Have end what is overdue; whether there is more."""
        found = await self._store.overdue(now_ms, MAX_FRAME_ITEMS)
        await self._wishes.wish([_wish(item) for item in found])
        if len(found) == MAX_FRAME_ITEMS:
            return True
        next_ms = await self._store.next_deadline() if self._lookout.term else None
        self._times = [time_ms for time_ms in self._times if time_ms > now_ms]
        self.accepted(next_ms)
        return False

    def _looked(self, outlook: Outlook) -> None:
        self.accepted(outlook.deadline_ms)

    def _expect(self, time_ms: int) -> None:
        place = bisect_left(self._times, time_ms)
        if place < len(self._times) and self._times[place] - time_ms < _TOGETHER_MS:
            return
        self._times.insert(place, time_ms)
        if place == 0:
            self._repeater.wake()


def _wish(item: Overdue) -> Wish:
    if item.waiting:
        return Wish(item.task_id, _START_MESSAGE, State.EXPIRED, SCHEDULE_TO_START, State.WAITING)
    return Wish(item.task_id, _CLOSE_MESSAGE, State.EXPIRED, SCHEDULE_TO_CLOSE)
