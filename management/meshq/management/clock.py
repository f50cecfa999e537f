"""The time by which the ledger decides: that of its database, carried on by monotonic time.

All instances agree on it, however their own clocks are set, and it does not jump with them. A task that was
accepted by an instance whose clock is an hour ahead would otherwise wait for an hour.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic, time
from typing import Final

from meshq.contract.errors import MeshqError
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_LOOK_SECONDS: Final = 60.0
_WORTH_A_WORD_MS: Final = 1_000


class LedgerClock:
    """Milliseconds since the epoch, when called.

    Args:
        ask: Reads the database's clock, in milliseconds.
        steady: Monotonic seconds.
        own: The process's own time of day in seconds, until the database's is known.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[int]],
        *,
        steady: Callable[[], float] = monotonic,
        own: Callable[[], float] = time,
    ) -> None:
        self._ask = ask
        self._steady = steady
        self._ahead_ms = (own() - steady()) * 1_000
        self._repeater = Repeater("ledger clock", self.run_once, _LOOK_SECONDS)
        self.stop = self._repeater.stop

    def __call__(self) -> int:
        """The time."""
        return int(self._steady() * 1_000 + self._ahead_ms)

    async def start(self) -> None:
        """Take over the database's time, and again from time to time."""
        await self.run_once()
        await self._repeater.start()

    async def run_once(self) -> None:
        """Look at the database's clock. While it does not answer, time goes on."""
        begun = self._steady()
        try:
            found_ms = await self._ask()
        except MeshqError as error:
            _log.info("the ledger's clock was not read", reason=error.message)
            return
        # The answer is as old as half of the call, about.
        ahead_ms = found_ms - (begun + self._steady()) * 500
        if abs(ahead_ms - self._ahead_ms) > _WORTH_A_WORD_MS:
            _log.warning("time goes by the ledger's clock", ahead_ms=round(ahead_ms - self._ahead_ms))
        self._ahead_ms = ahead_ms
