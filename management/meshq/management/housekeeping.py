"""What one instance does now and then for all: partitions, retention, claims, deletions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from meshq.contract.errors import MeshqError
from meshq.contract.limits import REQUEST_ID_TTL_SECONDS
from meshq.management.delete import Forgetter, tell_deletions
from meshq.management.ledger import Duty, Ledger
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_INTERVAL: Final = 30.0
_DAYS_AHEAD: Final = 11
_DAY_MS: Final = 86_400_000
_CLAIMS_AT_A_TIME: Final = 5_000


class Housekeeping:
    """See the module.

    Args:
        ledger: What is kept.
        duty: Whether this instance keeps house.
        forgetter: Execution.
        now_ms: The clock.
        retention_days: For how long ended tasks are kept.
    """

    def __init__(
        self,
        ledger: Ledger,
        duty: Duty,
        forgetter: Forgetter,
        now_ms: Callable[[], int],
        *,
        retention_days: int,
    ) -> None:
        self._ledger = ledger
        self._duty = duty
        self._forgetter = forgetter
        self._now_ms = now_ms
        self._retention_days = retention_days
        self._repeater = Repeater("housekeeping", self.run_once, _INTERVAL)
        self._done_day = 0
        self.stop = self._repeater.stop

    async def start(self) -> None:
        """Make sure of today's partition before anything ends, then go on in the background."""
        await self._ledger.prepare_days(self._now_ms(), _DAYS_AHEAD + 1)
        await self._repeater.start()

    async def run_once(self) -> None:
        """Do what is due."""
        try:
            if await self._duty.hold():
                await self._partitions()
                await self._expire_claims()
                await tell_deletions(self._ledger, self._forgetter)
        except MeshqError as error:
            _log.info("housekeeping postponed", reason=error.message)

    async def _partitions(self) -> None:
        today = self._now_ms() // _DAY_MS
        if today == self._done_day:
            return
        await self._ledger.prepare_days(self._now_ms(), _DAYS_AHEAD + 1)
        gone = await self._ledger.drop_days(self._now_ms())
        if gone:
            _log.info("retention ended", days=gone)
        self._done_day = today

    async def _expire_claims(self) -> None:
        before_ms = self._now_ms() - REQUEST_ID_TTL_SECONDS * 1_000
        while await self._ledger.expire_claims(before_ms, _CLAIMS_AT_A_TIME) == _CLAIMS_AT_A_TIME:
            pass
