"""The settings of queues, as execution keeps them for shards that begin anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshq.execution.postgres.database import Connection, Database
from meshq.execution.postgres.sql import statement
from meshq.mesh.postgres.arrays import bigints, byteas, texts

_STORE: Final = statement("store_queue_configs")
_LOAD: Final = statement("load_queue_configs")

Row = tuple[str, str, int, bytes]
"""Tenant, queue, version, encoded settings."""


class QueueStore:
    """The table of queues' settings. All methods raise `MeshqError` when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(self, rows: Sequence[Row]) -> None:
        """Keep settings, each of another queue, unless later ones are kept."""
        ordered = sorted(rows)
        columns = (
            texts([row[0] for row in ordered]),
            texts([row[1] for row in ordered]),
            bigints([row[2] for row in ordered]),
            byteas([row[3] for row in ordered]),
        )

        async def work(connection: Connection) -> None:
            await connection.execute(_STORE, columns, prepare=True)

        await self._database.run(work)

    async def load(self) -> list[bytes]:
        """All settings, encoded."""

        async def work(connection: Connection) -> list[bytes]:
            cursor = await connection.execute(_LOAD, prepare=True, binary=True)
            return [row[0] for row in await cursor.fetchall()]

        return await self._database.run(work)
