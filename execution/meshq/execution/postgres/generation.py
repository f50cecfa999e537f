"""The generation of the database: another one after each time that it came back from a copy."""

from __future__ import annotations

from typing import Final

from meshq.execution.postgres.database import Connection, Database
from meshq.execution.postgres.sql import statement
from meshq.execution.ring.generations import Generation

_LOAD: Final = statement("load_generation")


class GenerationTable:
    """The one row of the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_generation(self) -> Generation:
        """The generation as it is now; raises `MeshqError` when the database does not answer."""

        async def work(connection: Connection) -> Generation:
            row = await (await connection.execute(_LOAD)).fetchone()
            assert row is not None
            return Generation(*row)

        return await self._database.run(work)
