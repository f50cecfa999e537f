"""What the sweeper and the housekeeping read and write."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, LiteralString

from psycopg import sql

from meshq.contract.ids import lowest_id
from meshq.management.ledger import RowsRefused
from meshq.management.model.task import OpenAttempt, Sendable, TaskId
from meshq.management.postgres.database import Database, LedgerConnection
from meshq.management.postgres.sql import statement
from meshq.mesh.postgres.arrays import integers, uuids
from meshq.mesh.telemetry import logger

_log = logger(__name__)

DAY_MS: Final = 86_400_000

_SWEEP: Final = statement("sweep")
_CANCELLING: Final = statement("cancelling")
_DISPATCHABLE: Final = statement("dispatchable")
_DUE: Final = statement("due")
_NEXT_DUE: Final = (
    "SELECT min(ready_ms) FROM open_tasks WHERE state IN (2, 5) AND ready_ms > %(after)s::bigint"
)
_REQUEST: Final = "UPDATE sweep_requests SET requested_ms = greatest(requested_ms, %(now)s::bigint)"
_REQUESTED: Final = "SELECT requested_ms FROM sweep_requests"
_DELETIONS: Final = "SELECT uuid_send(id) FROM deletions LIMIT %(limit)s::bigint"
_LOCK_DAYS: Final = "SELECT pg_advisory_xact_lock(hashtext('meshq days of finished tasks'))"
_FORGET: Final = "DELETE FROM deletions WHERE id = ANY (%(ids)s::uuid[])"
_EXPIRE: Final = """
DELETE FROM claims WHERE claim IN (
    SELECT claim FROM claims WHERE create_ms < %(before)s::bigint ORDER BY create_ms LIMIT %(limit)s::bigint
)
"""
_DAYS: Final = """
SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'finished_tasks'::regclass AND c.relname LIKE 'finished\\_tasks\\_2%%'
"""


class Upkeep:
    """Reads what is to be compared, and removes what is old."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def untouched(
        self, after: TaskId, made_before_ms: int, due_before_ms: int, limit: int
    ) -> list[OpenAttempt]:
        """See `Ledger.untouched`."""
        parameters = {
            "after": uuid.UUID(bytes=after),
            "before": lowest_id(made_before_ms),
            "touched": made_before_ms,
            "due": due_before_ms,
            "limit": limit,
        }
        return [OpenAttempt(*row) for row in await self._fetch(_SWEEP, parameters)]

    async def cancelling(self, after: TaskId, touched_before_ms: int, limit: int) -> list[OpenAttempt]:
        """See `Ledger.cancelling`."""
        parameters = {"after": uuid.UUID(bytes=after), "touched": touched_before_ms, "limit": limit}
        return [OpenAttempt(*row) for row in await self._fetch(_CANCELLING, parameters)]

    async def sendables(self, attempts: Sequence[tuple[TaskId, int]]) -> list[Sendable]:
        """See `Ledger.sendables`."""
        ids, numbers = zip(*attempts, strict=True)
        rows = await self._fetch(_DISPATCHABLE, {"ids": uuids(ids), "attempts": integers(numbers)})
        return [Sendable(*row) for row in rows]

    async def due(self, after: tuple[int, TaskId], until_ms: int, limit: int) -> list[Sendable]:
        """See `Ledger.due`."""
        parameters = {
            "after_ms": after[0],
            "after_id": uuid.UUID(bytes=after[1]),
            "until": until_ms,
            "limit": limit,
        }
        return [Sendable(*row) for row in await self._fetch(_DUE, parameters)]

    async def next_due(self, after_ms: int) -> int | None:
        """See `Ledger.next_due`."""
        time: int | None = (await self._fetch(_NEXT_DUE, {"after": after_ms}))[0][0]
        return time

    async def request_sweep(self, now_ms: int) -> None:
        """See `Ledger.request_sweep`."""
        await self._execute(_REQUEST, {"now": now_ms})

    async def sweep_requested(self) -> int:
        """See `Ledger.sweep_requested`."""
        return int((await self._fetch(_REQUESTED, {}))[0][0])

    async def deletions(self, limit: int) -> list[TaskId]:
        """See `Ledger.deletions`."""
        return [task_id for (task_id,) in await self._fetch(_DELETIONS, {"limit": limit})]

    async def forget_deletions(self, task_ids: Sequence[TaskId]) -> None:
        """See `Ledger.forget_deletions`."""
        await self._execute(_FORGET, {"ids": uuids(task_ids)})

    async def expire_claims(self, before_ms: int, limit: int) -> int:
        """See `Ledger.expire_claims`."""
        return await self._execute(_EXPIRE, {"before": before_ms, "limit": limit})

    async def prepare_days(self, first_ms: int, days: int) -> list[str]:
        """See `Ledger.prepare_days`.

        A day whose tasks went into the default partition meanwhile stays there: it is said once a run, and
        costs only that the day is not dropped whole.
        """
        first_day = first_ms // DAY_MS
        wanted = {_partition(day): day * DAY_MS for day in range(first_day, first_day + days)}
        missing = wanted.keys() - await self._days()
        return [name for name in sorted(missing) if await self._create_day(name, wanted[name])]

    async def drop_days(self, before_ms: int) -> list[str]:
        """See `Ledger.drop_days`."""
        # The last day to go is the one that had ended wholly before the time.
        oldest_kept = _partition(before_ms // DAY_MS)
        gone = sorted(name for name in await self._days() if name < oldest_kept)
        for name in gone:
            await self._execute_ddl(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
        return gone

    async def _days(self) -> set[str]:
        return {name for (name,) in await self._fetch(_DAYS, {})}

    async def _create_day(self, name: str, start_ms: int) -> bool:
        command = sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} PARTITION OF finished_tasks FOR VALUES FROM ({}) TO ({})"
        ).format(sql.Identifier(name), sql.Literal(start_ms), sql.Literal(start_ms + DAY_MS))
        try:
            await self._execute_ddl(command)
        except RowsRefused as error:
            _log.warning("a day of finished tasks stays in the default partition", day=name, error=str(error))
            return False
        return True

    async def _execute_ddl(self, command: sql.Composed) -> None:
        async def work(connection: LedgerConnection, _: bool) -> None:
            # IF NOT EXISTS looks before it locks: two instances that start together would both create.
            async with connection.transaction():
                await connection.execute(_LOCK_DAYS)
                await connection.execute(command)

        await self._database.write(work)

    async def _execute(self, query: LiteralString, parameters: Mapping[str, Any]) -> int:
        async def work(connection: LedgerConnection, _: bool) -> int:
            return (await connection.execute(query, parameters)).rowcount

        return await self._database.write(work)

    async def _fetch(self, query: LiteralString, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        async def work(connection: LedgerConnection) -> list[tuple[Any, ...]]:
            cursor = await connection.execute(query, parameters, prepare=True, binary=True)
            return await cursor.fetchall()

        return await self._database.read(work)


def _partition(day: int) -> str:
    return f"finished_tasks_{datetime.fromtimestamp(day * 86_400, UTC):%Y%m%d}"
