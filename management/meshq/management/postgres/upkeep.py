"""What the sweeper and the housekeeping read and write."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, LiteralString

from meshq.contract.errors import DeadlineExceeded
from meshq.contract.ids import lowest_id
from meshq.management.dispatch.deadlines import Overdue
from meshq.management.ledger import RowsRefused
from meshq.management.lookout import Outlook
from meshq.management.model.retention import DAY_MS
from meshq.management.model.task import PART_BYTES, OpenAttempt, Sendable, TaskId
from meshq.management.postgres.database import Database, LedgerConnection
from meshq.management.postgres.sql import statement
from meshq.mesh.postgres.arrays import integers, uuids
from meshq.mesh.postgres.partitions import Range, add_partition, drop_partition, partitions
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_OUTLOOK: Final = statement("outlook")
_SWEEP: Final = statement("sweep")
_CANCELLING: Final = statement("cancelling")
_DISPATCHABLE: Final = statement("dispatchable")
_DUE: Final = statement("due")
_OVERDUE: Final = statement("overdue")
_NEXT_DEADLINE: Final = statement("next_deadline")
_REQUEST: Final = "UPDATE sweep_requests SET requested_ms = greatest(requested_ms, %(now)s::bigint)"
_DELETIONS: Final = "SELECT uuid_send(id) FROM deletions LIMIT %(limit)s::bigint"
_FORGET: Final = "DELETE FROM deletions WHERE id = ANY (%(ids)s::uuid[])"
_EXPIRE: Final = """
DELETE FROM claims WHERE claim = ANY (ARRAY(
    SELECT claim FROM claims WHERE create_ms < %(before)s::bigint ORDER BY create_ms LIMIT %(limit)s::bigint
))
"""
_FINISHED: Final = "finished_tasks"
_DAY_PREFIX: Final = "finished_tasks_2"
_DROP_STRAYED: Final = """
DELETE FROM finished_tasks_default WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM finished_tasks_default WHERE leave_ms < %(before)s::bigint LIMIT %(limit)s::bigint
))
"""
_STRAYED: Final = f"SELECT DISTINCT leave_ms / {DAY_MS} FROM finished_tasks_default"  # noqa: S608


class Upkeep:
    """Reads what is to be compared, and removes what is old."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def outlook(self, office: str, due_after_ms: int) -> Outlook:
        """See `meshq.management.lookout.Looker`."""
        (row,) = await self._fetch(_OUTLOOK, {"office": office, "due_after": due_after_ms})
        return Outlook(*row)

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
        parameters = {"ids": uuids(ids), "attempts": integers(numbers), "bytes": PART_BYTES}
        return [Sendable(*row) for row in await self._fetch(_DISPATCHABLE, parameters)]

    async def due(self, after: tuple[int, TaskId], until_ms: int, limit: int) -> list[Sendable]:
        """See `Ledger.due`."""
        parameters = {
            "after_ms": after[0],
            "after_id": uuid.UUID(bytes=after[1]),
            "until": until_ms,
            "limit": limit,
            "bytes": PART_BYTES,
        }
        return [Sendable(*row) for row in await self._fetch(_DUE, parameters)]

    async def overdue(self, now_ms: int, limit: int) -> list[Overdue]:
        """See `meshq.management.dispatch.deadlines.DeadlineStore`."""
        rows = await self._fetch(_OVERDUE, {"now": now_ms, "limit": limit})
        return [Overdue(*row) for row in rows]

    async def next_deadline(self) -> int | None:
        """See `meshq.management.dispatch.deadlines.DeadlineStore`."""
        time: int | None = (await self._fetch(_NEXT_DEADLINE, {}))[0][0]
        return time

    async def request_sweep(self, now_ms: int) -> None:
        """See `Ledger.request_sweep`."""
        await self._execute(_REQUEST, {"now": now_ms})

    async def deletions(self, limit: int) -> list[TaskId]:
        """See `Ledger.deletions`."""
        return [task_id for (task_id,) in await self._fetch(_DELETIONS, {"limit": limit})]

    async def forget_deletions(self, task_ids: Sequence[TaskId]) -> None:
        """See `Ledger.forget_deletions`."""
        await self._execute(_FORGET, {"ids": uuids(task_ids)})

    async def expire_claims(self, before_ms: int, limit: int) -> int:
        """See `Ledger.expire_claims`."""
        return await self._execute(_EXPIRE, {"before": before_ms, "limit": limit})

    async def prepare_days(self, days: Collection[int]) -> list[str]:
        """See `Ledger.prepare_days`.

        What went into the default partition meanwhile moves into its day. Where that takes too long it
        stays, which is said, and costs only that those rows leave one by one, see `drop_strayed`.
        """
        missing = {_partition(day): day for day in days}
        for name in await self._days():
            missing.pop(name, None)
        return [name for name in sorted(missing) if await self._add_day(name, missing[name])]

    async def strayed_days(self) -> set[int]:
        """See `Ledger.strayed_days`."""
        return {day for (day,) in await self._fetch(_STRAYED, {})}

    async def drop_days(self, before_ms: int) -> list[str]:
        """See `Ledger.drop_days`."""
        # The last day to go is the one that had ended wholly before the time.
        oldest_kept = _partition(before_ms // DAY_MS)
        gone = sorted(name for name in await self._days() if name < oldest_kept)
        for name in gone:
            await self._drop_day(name)
        return gone

    async def drop_strayed(self, before_ms: int, limit: int) -> int:
        """See `Ledger.drop_strayed`."""
        return await self._execute(_DROP_STRAYED, {"before": before_ms, "limit": limit})

    async def _days(self) -> set[str]:
        async def work(connection: LedgerConnection) -> set[str]:
            return await partitions(connection, _FINISHED)

        return {name for name in await self._database.read(work) if name.startswith(_DAY_PREFIX)}

    async def _add_day(self, name: str, day: int) -> bool:
        part = Range(name, day * DAY_MS, (day + 1) * DAY_MS)

        async def work(connection: LedgerConnection, _: bool) -> bool:
            return await add_partition(connection, _FINISHED, "leave_ms", part)

        try:
            return await self._database.write(work)
        except (RowsRefused, DeadlineExceeded) as error:
            _log.warning("a day of finished tasks stays in the default partition", day=name, error=str(error))
            return False

    async def _drop_day(self, name: str) -> None:
        async def work(connection: LedgerConnection, _: bool) -> None:
            await drop_partition(connection, _FINISHED, name)

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
