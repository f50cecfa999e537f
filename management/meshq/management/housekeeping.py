"""What one instance does now and then for all: partitions, retention, claims, deletions."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from meshq.contract.errors import MeshqError
from meshq.contract.limits import REQUEST_ID_TTL_SECONDS
from meshq.management.delete import Forgetter, tell_deletions
from meshq.management.ledger import Duty, Ledger
from meshq.management.model.retention import leave_days
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_INTERVAL: Final = 30.0
_CLAIMS_AT_A_TIME: Final = 5_000


class Housekeeping:
    """See the module.

    Args:
        ledger: What is kept.
        duty: Whether this instance keeps house.
        forgetter: Execution.
        now_ms: The clock.
        retentions: For how many days the queues keep their ended tasks.
    """

    def __init__(
        self,
        ledger: Ledger,
        duty: Duty,
        forgetter: Forgetter,
        now_ms: Callable[[], int],
        *,
        retentions: Callable[[], Collection[int]],
    ) -> None:
        self._ledger = ledger
        self._duty = duty
        self._forgetter = forgetter
        self._now_ms = now_ms
        self._retentions = retentions
        self._repeater = Repeater("housekeeping", self.run_once, _INTERVAL)
        self._tried: set[int] = set()
        self.stop = self._repeater.stop

    async def start(self) -> None:
        """Make sure of the days on which tasks leave before anything ends, then go on in the background."""
        try:
            await self._prepare()
        except MeshqError as error:
            _log.info("days of finished tasks not prepared yet", reason=error.message)
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
        await self._prepare()
        gone = await self._ledger.drop_days(self._now_ms())
        if gone:
            _log.info("retention ended", days=gone)

    async def _prepare(self) -> None:
        # A queue whose retention has just changed is ahead of this; its first tasks are moved then.
        wanted = leave_days(self._now_ms(), self._retentions()) | await self._ledger.strayed_days()
        missing = wanted - self._tried
        if missing:
            await self._ledger.prepare_days(missing)
        # Moving locks; what was too much once is not tried each time.
        self._tried = wanted

    async def _expire_claims(self) -> None:
        before_ms = self._now_ms() - REQUEST_ID_TTL_SECONDS * 1_000
        while await self._ledger.expire_claims(before_ms, _CLAIMS_AT_A_TIME) == _CLAIMS_AT_A_TIME:
            pass
