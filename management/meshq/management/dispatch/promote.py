"""The promoter: what is due far from now stays in the ledger, and is dispatched shortly before its time.

It sleeps until the next such task comes near. Its place is a point in time and lives in memory: whoever
takes the duty over begins at the present, and what was due before is the sweeper's. What is near when it is
accepted, or put off, never passes through here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.management.dispatch.outbox import Outbox
from meshq.management.ledger import Duty, Ledger
from meshq.management.model.task import DISPATCH_HORIZON_MS, NO_ID
from meshq.mesh.lifecycle import Repeater

_LONGEST_SLEEP: Final = 30.0
_BUSY_PAUSE: Final = 0.1
_MARGIN_MS: Final = 10_000
"""For clocks that differ and commits that take their time."""


class Promoter:
    """See the module."""

    def __init__(self, ledger: Ledger, duty: Duty, outbox: Outbox, now_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self._duty = duty
        self._outbox = outbox
        self._now_ms = now_ms
        self._place = (now_ms(), NO_ID)
        self._repeater = Repeater("promoter", self.run_once, _LONGEST_SLEEP)
        self.start = self._repeater.start
        self.stop = self._repeater.stop

    async def run_once(self) -> float | None:
        """Dispatch what comes near; returns the seconds until the next task does."""
        try:
            if not await self._duty.hold():
                self._place = (self._now_ms(), NO_ID)
                return None
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
            self._place = (found[-1].ready_ms, found[-1].task_id)
        if len(found) == MAX_FRAME_ITEMS:
            return 0.0
        # What is accepted from now on for a time before this is dispatched by whoever accepts it.
        self._place = max(self._place, (until_ms - _MARGIN_MS, NO_ID))
        return await self._until_next(until_ms)

    async def _until_next(self, until_ms: int) -> float:
        next_ms = await self._ledger.next_due(until_ms)
        if next_ms is None:
            return _LONGEST_SLEEP
        return min(_LONGEST_SLEEP, max(0.0, (next_ms - until_ms) / 1_000))
