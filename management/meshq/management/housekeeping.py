"""What one instance does now and then for all: partitions, retention, claims, deletions.

Deletions are told, and days prepared that were missing, when a look at the ledger shows them; days change
with the date and with the settings of queues, which are known here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import monotonic
from typing import Final

from meshq.contract.errors import MeshqError
from meshq.contract.limits import REQUEST_ID_TTL_SECONDS
from meshq.management.delete import Forgetter, tell_deletions
from meshq.management.ledger import Ledger
from meshq.management.lookout import Lookout, Outlook
from meshq.management.model.retention import leave_days
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_INTERVAL: Final = 30.0
_LONG_INTERVAL: Final = 600.0
_ROWS_AT_A_TIME: Final = 5_000


class Housekeeping:
    """See the module.

    Args:
        ledger: What is kept; it takes only what is done in office.
        days: Where days are prepared, by anybody: the ledger.
        lookout: Says whether this instance keeps house, and what there is to do.
        forgetter: Execution.
        now_ms: The clock.
        retentions: For how many days the queues keep their ended tasks.
    """

    def __init__(
        self,
        ledger: Ledger,
        days: Ledger,
        lookout: Lookout,
        forgetter: Forgetter,
        now_ms: Callable[[], int],
        *,
        retentions: Callable[[], Collection[int]],
    ) -> None:
        self._ledger = ledger
        self._days = days
        self._lookout = lookout
        self._forgetter = forgetter
        self._now_ms = now_ms
        self._retentions = retentions
        self._repeater = Repeater("housekeeping", self._run_due, _INTERVAL)
        self._tried: set[int] = set()
        self._prepared: set[int] = set()
        self._strayed = False
        self._deletions = False
        self._all_due = 0.0
        self._claims_due = 0.0
        self.stop = self._repeater.stop
        lookout.on_look(self._looked)

    async def start(self) -> None:
        """Make sure of the days on which tasks leave before anything ends, then go on in the background."""
        try:
            await self._prepare()
        except MeshqError as error:
            _log.info("days of finished tasks not prepared yet", reason=error.message)
        await self._repeater.start()

    async def run_once(self) -> None:
        """Do everything once."""
        self._all_due = self._claims_due = 0.0
        self._deletions = True
        await self._run_due()

    async def _run_due(self) -> None:
        if not self._lookout.term:
            self._all_due = self._claims_due = 0.0
            return
        try:
            await self._partitions()
            await self._expire_claims()
            if self._deletions:
                await tell_deletions(self._ledger, self._forgetter)
                self._deletions = False
        except MeshqError as error:
            _log.info("housekeeping postponed", reason=error.message)

    def _looked(self, outlook: Outlook) -> None:
        self._strayed = outlook.strayed
        self._deletions = outlook.deletions

    async def _partitions(self) -> None:
        everything = monotonic() >= self._all_due
        if everything or self._strayed or self._wanted() != self._prepared:
            await self._prepare()
        if everything:
            gone = await self._ledger.drop_days(self._now_ms())
            if gone:
                _log.info("retention ended", days=gone)
            await self._drop_strayed()
            self._all_due = monotonic() + _LONG_INTERVAL

    def _wanted(self) -> set[int]:
        return leave_days(self._now_ms(), self._retentions())

    async def _prepare(self) -> None:
        # A queue whose retention has just changed is ahead of this; its first tasks are moved then.
        days = self._wanted()
        wanted = days | await self._days.strayed_days()
        missing = wanted - self._tried
        if missing:
            await self._days.prepare_days(missing)
        # Moving locks; what was too much once is not tried each time.
        self._tried = wanted
        self._prepared = days

    async def _drop_strayed(self) -> None:
        # No other row is deleted for its age. These were too many to be moved, which is an exception.
        now_ms = self._now_ms()
        while await self._ledger.drop_strayed(now_ms, _ROWS_AT_A_TIME) == _ROWS_AT_A_TIME:
            pass

    async def _expire_claims(self) -> None:
        if monotonic() < self._claims_due:
            return
        before_ms = self._now_ms() - REQUEST_ID_TTL_SECONDS * 1_000
        any_ = False
        while (count := await self._ledger.expire_claims(before_ms, _ROWS_AT_A_TIME)) == _ROWS_AT_A_TIME:
            any_ = True
        # As long as there are some there will be more of them.
        self._claims_due = monotonic() + (0.0 if any_ or count else _LONG_INTERVAL)
