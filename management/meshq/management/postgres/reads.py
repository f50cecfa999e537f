"""What is read from the ledger for callers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, LiteralString

from meshq.contract.limits import RETENTION_DAYS
from meshq.management.model.retention import IdRange, leaving
from meshq.management.model.task import TaskId, TaskRow
from meshq.management.postgres.database import Database, LedgerConnection
from meshq.management.postgres.sql import statement
from meshq.mesh.postgres.arrays import integers, uuids

_GET: Final = statement("get")
_SPECS: Final = statement("specs")
_PREDECESSORS: Final = statement("predecessors")
_FIND_OPEN: Final = statement("find_open")
_FIND_ATTEMPTED: Final = statement("find_attempted")
_OPEN_COUNT: Final = """
SELECT coalesce(sum(created - succeeded - failed - cancelled - expired), 0)::bigint FROM queue_counters
"""
_ANY: Final = -1


class Reads:
    """Reads tasks and queues."""

    def __init__(self, database: Database, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._now_ms = now_ms

    async def get_tasks(self, task_ids: Sequence[TaskId], *, full: bool) -> dict[TaskId, TaskRow]:
        """See `Ledger.get_tasks`."""
        bounds = leaving(task_ids, self._now_ms())._asdict()
        rows = await self._fetch(_GET, {"ids": uuids(task_ids), "full": full, **bounds})
        return {row[0]: TaskRow(*row) for row in rows}

    async def specs(self, task_ids: Sequence[TaskId], max_bytes: int) -> tuple[dict[TaskId, bytes], int]:
        """See `Ledger.specs`."""
        bounds = leaving(task_ids, self._now_ms())._asdict()
        rows = await self._fetch(_SPECS, {"ids": uuids(task_ids), "bytes": max_bytes, **bounds})
        cut = sum(len(spec) for _, _, spec in rows) >= max_bytes
        found = {task_id: spec for _, task_id, spec in rows}
        return found, rows[-1][0] if cut else len(task_ids)

    async def predecessors(self, task_ids: Sequence[TaskId]) -> dict[TaskId, TaskId]:
        """See `Ledger.predecessors`."""
        return dict(await self._fetch(_PREDECESSORS, {"ids": uuids(task_ids)}))

    async def find_open(self, ranges: Sequence[IdRange]) -> list[bool]:
        """See `Ledger.find_open`."""
        firsts, ends, _ = zip(*ranges, strict=True)
        rows = await self._fetch(_FIND_OPEN, {"firsts": uuids(firsts), "ends": uuids(ends)})
        return [found for (found,) in rows]

    async def find_attempted(self, ranges: Sequence[IdRange]) -> list[bool]:
        """See `Ledger.find_attempted`."""
        firsts, ends, days = zip(*ranges, strict=True)
        retentions = [RETENTION_DAYS.index(item) if item else _ANY for item in days]
        parameters = {
            "firsts": uuids(firsts),
            "ends": uuids(ends),
            "retentions": integers(retentions),
            "now": self._now_ms(),
        }
        return [found for (found,) in await self._fetch(_FIND_ATTEMPTED, parameters)]

    async def open_count(self) -> int:
        """See `Ledger.open_count`."""
        return int((await self._fetch(_OPEN_COUNT, {}))[0][0])

    async def _fetch(self, query: LiteralString, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        async def work(connection: LedgerConnection) -> list[tuple[Any, ...]]:
            cursor = await connection.execute(query, parameters, prepare=True, binary=True)
            return await cursor.fetchall()

        return await self._database.read(work)
