"""The promoter: what is due far from now stays in the ledger, and is dispatched shortly before its time.

It sleeps until a look at the ledger shows that such a task comes near. Its place is a point in time and
lives in memory: whoever takes the office over begins at the present, and what was due before is the
sweeper's. What is near when it is accepted, or put off, never passes through here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.management.dispatch.outbox import Outbox
from meshq.management.ledger import Ledger
from meshq.management.lookout import Lookout, Outlook
from meshq.management.model.task import DISPATCH_HORIZON_MS, NO_ID, TaskId, is_cut
from meshq.mesh.lifecycle import Repeater

_LONGEST_SLEEP: Final = 600.0
_BUSY_PAUSE: Final = 0.1
_MARGIN_MS: Final = 10_000
"""For clocks that differ and commits that take their time."""


class Promoter:
    """See the module.

    Args:
        ledger: What waits for its time.
        lookout: Says whether this instance promotes, and when the next task is due.
        outbox: Gets what comes near.
        now_ms: The clock.
    """

    def __init__(self, ledger: Ledger, lookout: Lookout, outbox: Outbox, now_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self._lookout = lookout
        self._outbox = outbox
        self._now_ms = now_ms
        self._place = (now_ms(), NO_ID)
        self._term = 0
        self._repeater = Repeater("promoter", self.run_once, _LONGEST_SLEEP)
        self.start = self._repeater.start
        self.stop = self._repeater.stop
        lookout.due_after_ms = self._place[0]
        lookout.on_look(self._looked)

    async def run_once(self) -> float | None:
        """Dispatch what comes near; returns the seconds until the next task does, None when that is far."""
        try:
            if not (term := self._lookout.term):
                return None
            if self._term != term:
                self._term = term
                self._go_to((self._now_ms(), NO_ID))
            return await self._promote()
        except MeshqError:
            return None

    async def _promote(self) -> float | None:
        if self._outbox.half_full:
            return _BUSY_PAUSE
        until_ms = self._now_ms() + DISPATCH_HORIZON_MS
        found = await self._ledger.due(self._place, until_ms, MAX_FRAME_ITEMS)
        if found:
            self._outbox.offer(found)
            self._go_to((found[-1].ready_ms, found[-1].task_id))
        if len(found) == MAX_FRAME_ITEMS or is_cut(found):
            return 0.0
        # What is accepted from now on for a time before this is dispatched by whoever accepts it.
        self._go_to(max(self._place, (until_ms - _MARGIN_MS, NO_ID)))
        return None

    def _go_to(self, place: tuple[int, TaskId]) -> None:
        self._place = place
        self._lookout.due_after_ms = place[0]

    def _looked(self, outlook: Outlook) -> None:
        if outlook.due_ms is not None and outlook.due_ms <= self._now_ms() + DISPATCH_HORIZON_MS:
            self._repeater.wake()
