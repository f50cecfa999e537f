"""Does what time asks for on each shard, and settles the leases that are over.

An acknowledged lease that ends is closed by recording LOST for its attempt, or the timeout that has passed.
Only if that insert wins may there be another attempt; if it loses, the recorded end is reported again. A
delivery that was not acknowledged goes back, unless its attempt has ended all the same: then its end is
reported. The shard hands a lease out again when nobody has settled it within `CLOSING_MS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import time
from typing import Final, NamedTuple, Protocol

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.execution.attempts.checkpoints import Checkpoints
from meshq.execution.attempts.recorder import Recorder
from meshq.execution.model import Ended, Lease, Over
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shard import Shard
from meshq.execution.ring.shards import Shards
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

CLOSING_MS: Final = 10_000
_SAFETY_SECONDS: Final = 2.0
_BREATH_SECONDS: Final = 0.05
_SOON_SECONDS: Final = 0.002

Key = tuple[bytes, int]


class Attempts(Protocol):
    """Where ends are kept."""

    async def get(self, keys: Sequence[Key]) -> dict[Key, Ended]:
        """The recorded ends among some attempts."""


class Reports(Protocol):
    """Who tells the ledger."""

    def add(self, ended: Ended) -> None:
        """Report an end."""


class Makers(NamedTuple):
    """How ends come about.

    Attributes:
        closed: The end of an attempt by the kind of what was over: kind, lease, worker, end in milliseconds.
        with_error_text: Completes an end that was read from the database.
    """

    closed: Callable[[str, Lease, str, int], Ended]
    with_error_text: Callable[[Ended], Ended]


class Expirer:
    """See the module.

    Args:
        shards: The shards.
        recorder: Records the ends of lost attempts.
        attempts: Knows which unacknowledged deliveries have ended.
        reports: Tells the ledger of those.
        makers: How ends come about.
        checkpoints: Are written before an end is recorded.
    """

    def __init__(
        self,
        shards: Shards,
        recorder: Recorder,
        attempts: Attempts,
        reports: Reports,
        *,
        makers: Makers,
        checkpoints: Checkpoints,
    ) -> None:
        self._shards = shards
        self._recorder = recorder
        self._attempts = attempts
        self._reports = reports
        self._makers = makers
        self._checkpoints = checkpoints
        self._next = 0.0
        self._repeater = Repeater("expiry", self.run_once, _SAFETY_SECONDS)
        self._timer: asyncio.TimerHandle | None = None
        shards.on_due = self._due

    async def start(self) -> None:
        """Begin to look."""
        await self._repeater.start()

    async def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        await self._repeater.stop()

    def wake(self) -> None:
        """Look at once, because something has just ended."""
        self._repeater.wake()

    async def run_once(self) -> float:
        """Look at all shards; returns the seconds until the next look."""
        dues = await asyncio.gather(*(self._expire(shard) for shard in self._shards.usable()))
        pause = min([_SAFETY_SECONDS, *(max(due, _BREATH_SECONDS) if due else 0.0 for due in dues)])
        self._next = asyncio.get_running_loop().time() + pause
        return pause

    async def _expire(self, shard: Shard) -> float:
        try:
            due, over = await shard.expire(CLOSING_MS)
            await self._close([item for item in over if not item.returning])
            returning = [item.lease for item in over if item.returning]
            if returning:
                await self._take_back(shard, returning)
        except ShardError:
            return _SAFETY_SECONDS
        except MeshqError as error:
            _log.warning("leases that are over wait for the database", reason=error.message)
            return _SAFETY_SECONDS
        return _SAFETY_SECONDS if due is None else due

    async def _close(self, closing: list[Over]) -> None:
        now_ms = int(time() * 1000)
        rows = [self._makers.closed(item.kind, item.lease, item.worker_id, now_ms) for item in closing]
        if self._checkpoints.concern(rows):
            await self._checkpoints.settle(rows)
        for at in range(0, len(rows), MAX_FRAME_ITEMS):
            self._recorder.submit(rows[at : at + MAX_FRAME_ITEMS], lambda _: None)

    async def _take_back(self, shard: Shard, leases: list[Lease]) -> None:
        """A worker may have finished a task whose delivery was never noted as acknowledged."""
        over = await self._attempts.get([lease[:2] for lease in leases])
        for ended in over.values():
            self._reports.add(self._makers.with_error_text(ended)._replace(shard=shard.name))
        await shard.take_back([lease for lease in leases if lease[:2] not in over])

    def _due(self, _shard: str, milliseconds: int) -> None:
        """A delayed task will be due sooner than the next look, perhaps: look then."""
        loop = asyncio.get_running_loop()
        at = loop.time() + milliseconds / 1000 + _SOON_SECONDS
        if at < self._next:
            self._next = at
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(at, self._repeater.wake)
