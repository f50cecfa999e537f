"""The settings of queues, as execution keeps them for shards that begin anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshq.execution.postgres.database import Connection, Database
from meshq.execution.postgres.sql import statement
from meshq.mesh.postgres.arrays import bigints, byteas, texts

_STORE: Final = statement("store_queue_configs")
_LOAD: Final = statement("load_queue_configs")
_HOMED: Final = statement("homed_queues")

Row = tuple[str, str, int, bytes, bool]
"""Tenant, queue, version, encoded settings, whether it has ever had limits as a whole."""


class QueueStore:
    """The table of queues' settings. All methods raise `MeshqError` when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(self, rows: Sequence[Row]) -> list[tuple[str, str]]:
        """Keep settings, each of another queue, unless later ones are kept.

        Returns:
            Those of the queues (tenant, queue) of which is known that they have had limits as a whole.
        """
        ordered = sorted(rows)
        columns = (
            texts([row[0] for row in ordered]),
            texts([row[1] for row in ordered]),
            bigints([row[2] for row in ordered]),
            byteas([row[3] for row in ordered]),
            [row[4] for row in ordered],
        )

        async def work(connection: Connection) -> list[tuple[str, str]]:
            await connection.execute(_STORE, columns, prepare=True)
            cursor = await connection.execute(_HOMED, columns[:2], prepare=True)
            return [(tenant, queue) for tenant, queue in await cursor.fetchall()]

        return await self._database.run(work)

    async def load(self) -> list[tuple[bytes, bool]]:
        """All settings, encoded, and whether their queues have ever had limits as a whole."""

        async def work(connection: Connection) -> list[tuple[bytes, bool]]:
            cursor = await connection.execute(_LOAD, prepare=True, binary=True)
            return [(config, homed) for config, homed in await cursor.fetchall()]

        return await self._database.run(work)
