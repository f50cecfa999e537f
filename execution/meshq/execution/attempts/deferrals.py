"""Leases of tasks that somebody else will complete: they outlive their worker, and their shard.

The shard changes the lease first. The worker is not told before the row is written from which the lease is
made again on a shard that begins anew. Rows of attempts that have ended change nothing, and are swept away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from meshq.contract.errors import MeshqError
from meshq.execution.attempts.announcer import started
from meshq.execution.model import Deferral, Ended, Status
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shard import Held
from meshq.execution.ring.shards import Shards
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_PAGE: Final = 1_000
_FIRST: Final = (bytes(16), 0)

Key = tuple[bytes, int]


class Store(Protocol):
    """Where deferrals are kept."""

    async def store(self, deferrals: Sequence[Deferral]) -> None:
        """Keep deferrals, each of another attempt."""

    async def load(self, shard: str, after: Key, limit: int) -> list[Deferral]:
        """A page of the deferrals on a shard, behind one."""

    async def sweep(self, after: Key, limit: int) -> Key | None:
        """Forget what has ended among a page; returns the page's last, None when it is empty."""


class Starts(Protocol):
    """Who tells the ledger what has started."""

    def add(self, ended: Ended) -> None:
        """Report a start."""


class Deferrals:
    """See the module.

    Args:
        store: The database.
        shards: Where the leases are.
        starts: Gets the starts of what is deferred, which may be before the worker's lease was old enough.
    """

    def __init__(self, store: Store, shards: Shards, starts: Starts) -> None:
        self._store = store
        self._shards = shards
        self._starts = starts
        self._swept = _FIRST

    async def defer(self, deferrals: Sequence[Deferral]) -> list[Status]:
        """Leave tasks to whoever completes them; says for each what became of it."""
        statuses = [await self._defer_on_shard(deferral) for deferral in deferrals]
        accepted = {
            deferral.lease[:2]: deferral
            for deferral, status in zip(deferrals, statuses, strict=True)
            if status == Status.ACCEPTED
        }
        if not accepted:
            return statuses
        try:
            await self._store.store(list(accepted.values()))
        except MeshqError as error:
            _log.warning("tasks cannot be left to be finished later", reason=error.message)
            return [Status.TRY_LATER if status == Status.ACCEPTED else status for status in statuses]
        for deferral in accepted.values():
            self._starts.add(started(deferral.lease, deferral.worker_id))
        return statuses

    async def held_on(self, shard: str) -> list[Held]:
        """What is deferred on a shard, for one that has begun anew; raises `MeshqError`."""
        found: list[Held] = []
        after = _FIRST
        while page := await self._store.load(shard, after, _PAGE):
            found += [
                Held(item.lease, "", item.worker_id, item.lane, item.extras, item.timeout_ms) for item in page
            ]
            after = page[-1].lease[:2]
        return found

    async def run_once(self) -> None:
        """Forget what has ended among the next page."""
        self._swept = await self._store.sweep(self._swept, _PAGE) or _FIRST

    async def _defer_on_shard(self, deferral: Deferral) -> Status:
        shard = self._shards.get(deferral.lease.shard)
        if shard is None:
            return Status.LEASE_LOST
        try:
            deferred = await shard.defer(deferral.lease, deferral.timeout_ms)
        except ShardError:
            return Status.TRY_LATER
        return Status.ACCEPTED if deferred else Status.LEASE_LOST
