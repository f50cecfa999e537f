"""The sweeper: compares the open tasks with the shards, for ever.

Whatever goes wrong between the ledger and a shard ends here: a frame that was lost, a buffer that was
full, a shard that was wiped. A pass goes over all open tasks that nobody has touched for a while, in
the order of their ids and at a bounded rate; what all shards lack is dispatched again, as a repeat. A
task that is to be cancelled is withdrawn again instead. When a shard has been recovered the next pass
begins at once and at full speed, over what was there when it began: what has come since has met the
recovered shard.

One instance sweeps at a time. The others leave word in the database when they are asked to compare. While
nothing is open a pass is one look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from prometheus_client import Counter

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.management.cancel import Canceller
from meshq.management.dispatch.outbox import Outbox
from meshq.management.ledger import Ledger
from meshq.management.lookout import Lookout
from meshq.management.model.placement import Compared
from meshq.management.model.task import DISPATCH_HORIZON_MS, NO_ID, OpenAttempt, TaskId, is_cut
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_BUSY_PAUSE: Final = 0.1
_COMPARED: Final = Counter("meshq_sweep_compared", "Open attempts compared with the shards.", ["state"])


class Comparer(Protocol):
    """Asks the shards."""

    async def compare(self, attempts: Sequence[OpenAttempt]) -> list[Compared]:
        """What they know of each attempt."""


class Sweeper:
    """See the module.

    Args:
        ledger: What is open.
        lookout: Says whether this instance sweeps, and whether there is anything to sweep.
        comparer: What is on the shards.
        outbox: Takes what is missing.
        canceller: Withdraws what is to be cancelled.
        now_ms: The clock.
        age: Seconds for which a task was not touched before it is compared, and between passes.
        rate: Tasks compared per second at most, but after a recovery.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        lookout: Lookout,
        comparer: Comparer,
        outbox: Outbox,
        canceller: Canceller,
        now_ms: Callable[[], int],
        age: float,
        rate: float,
    ) -> None:
        self._ledger = ledger
        self._lookout = lookout
        self._comparer = comparer
        self._outbox = outbox
        self._canceller = canceller
        self._now_ms = now_ms
        self._age = age
        self._rate = rate
        self._cursor = NO_ID
        self._hurried_ms = 0
        self._asked = False
        self._heard_ms = now_ms()
        self._repeater = Repeater("sweeper", self.run_once, age)
        self.start = self._repeater.start
        self.stop = self._repeater.stop

    def compare_all(self) -> None:
        """Compare everything that is open, now."""
        self._asked = True
        self._repeater.wake()

    async def run_once(self) -> float | None:
        """Do one page of a pass; returns the seconds until the next page, None for those between passes."""
        try:
            if self._lookout.term:
                return await self._page()
            await self._pass_on()
        except MeshqError as error:
            _log.info("sweep postponed", reason=error.message)
        return None

    async def _pass_on(self) -> None:
        self._cursor = NO_ID
        self._heard_ms = self._now_ms()
        if self._asked:
            self._asked = False
            await self._ledger.request_sweep(self._now_ms())

    async def _page(self) -> float | None:
        if self._asked:
            self._begin_hurried()
        if self._cursor == NO_ID and not await self._begin():
            return None
        if self._outbox.half_full:
            return _BUSY_PAUSE
        now_ms = self._now_ms()
        made_before_ms = self._hurried_ms or now_ms - int(self._age * 1_000)
        page = await self._ledger.untouched(
            self._cursor, made_before_ms, now_ms + DISPATCH_HORIZON_MS, MAX_FRAME_ITEMS
        )
        if page:
            await self._compare(page)
            self._cursor = page[-1].task_id
        if len(page) < MAX_FRAME_ITEMS:
            self._cursor = NO_ID
            self._hurried_ms = 0
            return None
        return 0.0 if self._hurried_ms else len(page) / self._rate

    def _begin_hurried(self) -> None:
        self._asked = False
        self._hurried_ms = self._now_ms()
        self._cursor = NO_ID

    async def _begin(self) -> bool:
        """Begin a pass, unless there is nothing to go over."""
        outlook = await self._lookout.look()
        if outlook is None:
            return False
        if outlook.sweep_ms > self._heard_ms:
            self._heard_ms = outlook.sweep_ms
            self._hurried_ms = self._now_ms()
        if outlook.cancelling:
            await self._canceller.withdraw_again(self._now_ms() - int(self._age * 1_000))
        if not outlook.open:
            self._hurried_ms = 0
        return outlook.open

    async def _compare(self, page: Sequence[OpenAttempt]) -> None:
        states = await self._comparer.compare(page)
        for state in Compared:
            if count := states.count(state):
                _COMPARED.labels(state.name).inc(count)
        missing = [
            (item.task_id, item.attempt)
            for item, state in zip(page, states, strict=True)
            if state == Compared.MISSING
        ]
        if missing:
            _log.info("dispatching again what no shard has", tasks=len(missing))
            await self._dispatch(missing)

    async def _dispatch(self, missing: Sequence[tuple[TaskId, int]]) -> None:
        """In parts, since large tasks take much room; what the outbox has none for is found again."""
        while missing and not self._outbox.half_full:
            found = await self._ledger.sendables(missing)
            self._outbox.offer(found)
            if not is_cut(found):
                return
            last = found[-1]
            missing = missing[missing.index((last.task_id, last.attempt)) + 1 :]
