"""Following all tasks that a filter selects, from one event to the next and over broken watches.

Changes come over the bus: of this instance at once, of the others over their streams. Where a stream may
have lost some, what has changed since is read from the ledger. Every event has a time before which nothing
is missing; a new watch that names it reads what has changed since and goes on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple

from meshq.contract.errors import Aborted, Reason
from meshq.contract.limits import MAX_RESUME_SECONDS, MAX_RESUMED_TASKS, STREAM_KEEPALIVE_SECONDS
from meshq.management.ledger import Ledger
from meshq.management.model.filters import selects
from meshq.management.model.states import newer
from meshq.management.model.task import TaskFilter, TaskId, TaskRow
from meshq.management.watch.bus import Bus, Change, Event, Follower, Gap

_MARGIN_MS: Final = 3_000
"""How long a change may be under way from its writing to the bus, and by how much clocks may differ."""
_MAX_BACK_MS: Final = int(MAX_RESUME_SECONDS * 1_000)
_MAX_READ: Final = MAX_RESUMED_TASKS
_REMEMBERED: Final = 20_000


class Step(NamedTuple):
    """An event.

    Attributes:
        row: The task after its change; None where nothing happened for a while.
        time_ms: Everything that was committed before this time has been shown.
    """

    row: TaskRow | None
    time_ms: int


class Feed:
    """Serves watches by filter.

    Args:
        ledger: Where missed changes are read.
        bus: Where changes come from.
        heard_ms: Until when the changes of all other instances have arrived here.
        now_ms: The clock.
        keepalive: Seconds after which a silent watch says that it lives.
    """

    def __init__(
        self,
        ledger: Ledger,
        bus: Bus,
        heard_ms: Callable[[], int],
        now_ms: Callable[[], int],
        *,
        keepalive: float = STREAM_KEEPALIVE_SECONDS,
    ) -> None:
        self._ledger = ledger
        self._bus = bus
        self._heard_ms = heard_ms
        self._now_ms = now_ms
        self.keepalive = keepalive

    async def follow(self, wanted: TaskFilter, since_ms: int | None) -> AsyncIterator[Step]:
        """The changes of the tasks that a filter selects, without an end; the first step is silent.

        Args:
            wanted: Which tasks.
            since_ms: The time of the last step of an earlier watch; None to begin now.

        Raises:
            Aborted: The caller is too slow, or too much has happened since.
            Unavailable: The instance stops.
        """
        watch = _Watch(self._ledger, wanted, self._now_ms, since_ms)
        follower = Follower(lambda row: selects(wanted, row, self._now_ms()), self._horizon_ms)
        with self._bus.follow(follower) as subscription:
            for row in await watch.resumed() if since_ms is not None else ():
                yield Step(row, watch.time_ms)
            yield Step(None, watch.time_ms)
            while True:
                event = await subscription.next(self.keepalive)
                rows = await watch.rows_of(event)
                watch.reached(self._horizon_ms() if event is None else _horizon_of(event))
                for row in rows:
                    yield Step(row, watch.time_ms)
                if event is None:
                    yield Step(None, watch.time_ms)

    def _horizon_ms(self) -> int:
        return min(self._now_ms(), self._heard_ms()) - _MARGIN_MS


class _Watch:
    """What one watch has shown.

    Attributes:
        time_ms: Everything that was committed before this time has been shown.
    """

    def __init__(
        self, ledger: Ledger, wanted: TaskFilter, now_ms: Callable[[], int], since_ms: int | None
    ) -> None:
        self._ledger = ledger
        self._wanted = wanted
        self._now_ms = now_ms
        # What is under way to the ledger now belongs to this watch, and has a time of before it.
        self.time_ms = now_ms() - _MARGIN_MS if since_ms is None else since_ms
        self._shown: OrderedDict[TaskId, tuple[int, int]] = OrderedDict()

    def reached(self, time_ms: int) -> None:
        """Everything before a time has arrived."""
        self.time_ms = max(self.time_ms, time_ms)

    async def resumed(self) -> list[TaskRow]:
        """What has changed since an earlier watch.

        Raises:
            Aborted: That is too much, or too long ago.
        """
        return await self._changed()

    async def rows_of(self, event: Event | None) -> list[TaskRow]:
        """The changes that an event tells and that were not shown yet."""
        if isinstance(event, Gap):
            return await self._changed()
        if isinstance(event, Change) and self._is_new(event.row):
            return [event.row]
        return []

    async def _changed(self) -> list[TaskRow]:
        if self.time_ms < self._now_ms() - _MAX_BACK_MS:
            raise _lost("more than ten minutes ago")
        found = await self._ledger.changed_tasks(self._wanted, self.time_ms, _MAX_READ + 1)
        if len(found) > _MAX_READ:
            raise _lost(f"and since then more than {_MAX_READ} tasks have changed")
        return [item.row for item in found if self._is_new(item.row)]

    def _is_new(self, row: TaskRow) -> bool:
        before = self._shown.get(row.task_id)
        if before is not None and not newer(row.attempt, row.state, *before):
            return False
        self._shown[row.task_id] = row.attempt, row.state
        self._shown.move_to_end(row.task_id)
        if len(self._shown) > _REMEMBERED:
            self._shown.popitem(last=False)
        return True


def _horizon_of(event: Event) -> int:
    return event.horizon_ms if isinstance(event, Change) else 0


def _lost(why: str) -> Aborted:
    return Aborted(f"The watch was broken off {why}; list the tasks and watch anew.", Reason.RESUME_LOST)
