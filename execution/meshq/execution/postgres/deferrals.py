"""Reading and writing the leases of tasks that somebody else will complete."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

from meshq.execution.model import Deferral, Lease
from meshq.execution.postgres.database import Connection, Database
from meshq.execution.postgres.sql import statement
from meshq.mesh.postgres.arrays import bigints, byteas, integers, texts, uuids

_STORE: Final = statement("store_deferrals")
_LOAD: Final = statement("load_deferrals")
_SWEEP: Final = statement("sweep_deferrals")
_AMONG: Final = statement("deferred_leases")

Key = tuple[bytes, int]


class DeferralStore:
    """The table of deferrals. All methods raise `MeshqError` when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(self, deferrals: Sequence[Deferral]) -> None:
        """Keep deferrals, each of another attempt."""
        rows = sorted(deferrals, key=lambda row: row.lease[:2])
        columns = (
            uuids([row.lease.task_id for row in rows]),
            integers([row.lease.attempt for row in rows]),
            bigints([row.lease.epoch for row in rows]),
            bigints([row.lease.number for row in rows]),
            bigints([row.lease.leased_ms for row in rows]),
            bigints([row.timeout_ms for row in rows]),
            texts([row.lease.shard for row in rows]),
            texts([row.worker_id for row in rows]),
            texts([row.lane for row in rows]),
            byteas([row.extras for row in rows]),
        )

        async def work(connection: Connection) -> None:
            await connection.execute(_STORE, columns, prepare=True)

        await self._database.run(work)

    async def load(self, shard: str, after: Key, limit: int) -> list[Deferral]:
        """A page of the deferrals on a shard, behind one."""

        async def work(connection: Connection) -> list[Deferral]:
            arguments = (shard, uuid.UUID(bytes=after[0]), after[1], limit)
            cursor = await connection.execute(_LOAD, arguments, prepare=True, binary=True)
            found = []
            for row in await cursor.fetchall():
                task_id, attempt, epoch, number, leased_ms, timeout_ms, worker_id, lane, extras = row
                tenant = lane.partition("/")[0]
                lease = Lease(task_id.bytes, attempt, epoch, number, shard, tenant, leased_ms)
                found.append(Deferral(lease, worker_id, lane, extras, timeout_ms))
            return found

        return await self._database.run(work)

    async def among(self, leases: Sequence[Lease]) -> set[tuple[bytes, int, int, int]]:
        """Those of the leases that are deferred: task, attempt, epoch and number of each."""
        columns = (
            uuids([lease.task_id for lease in leases]),
            integers([lease.attempt for lease in leases]),
            bigints([lease.epoch for lease in leases]),
            bigints([lease.number for lease in leases]),
        )

        async def work(connection: Connection) -> set[tuple[bytes, int, int, int]]:
            cursor = await connection.execute(_AMONG, columns, binary=True)
            return {(task_id.bytes, *rest) for task_id, *rest in await cursor.fetchall()}

        return await self._database.run(work)

    async def sweep(self, after: Key, limit: int) -> Key | None:
        """Forget what has ended among a page, behind one; returns the page's last, None when it is empty."""

        async def work(connection: Connection) -> Key | None:
            arguments = (uuid.UUID(bytes=after[0]), after[1], limit)
            row = await (await connection.execute(_SWEEP, arguments, prepare=True, binary=True)).fetchone()
            return (row[0].bytes, row[1]) if row else None

        return await self._database.run(work)
