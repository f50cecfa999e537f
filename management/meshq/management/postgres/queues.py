"""The settings of queues in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, LiteralString

from meshq.management.postgres.database import Database, LedgerConnection
from meshq.management.postgres.sql import statement
from meshq.management.queues.store import QueueChange

_CHANGES: Final = statement("queue_changes")


class PostgresQueues:
    """See `meshq.management.queues.store.QueueStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def changes(self, after: int, limit: int) -> list[QueueChange]:
        """See `QueueStore.changes`."""
        rows = await self._fetch(_CHANGES, {"after": after, "limit": limit})
        return [QueueChange(*row) for row in rows]

    async def _fetch(self, query: LiteralString, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        async def work(connection: LedgerConnection) -> list[tuple[Any, ...]]:
            cursor = await connection.execute(query, parameters, prepare=True, binary=True)
            return await cursor.fetchall()

        return await self._database.read(work)
