"""What there is to do for the instance that does it for all."""

from __future__ import annotations

from typing import Final

from meshq.execution.postgres.database import Connection, Database
from meshq.execution.postgres.sql import statement
from meshq.execution.upkeep import Outlook

_OUTLOOK: Final = statement("outlook")


class Lookout:
    """Looks at the tables; raises `MeshqError` when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def outlook(self, office: str) -> Outlook:
        """What there is to do, and the term of the office."""

        async def work(connection: Connection) -> Outlook:
            row = await (await connection.execute(_OUTLOOK, [office], prepare=True)).fetchone()
            assert row is not None
            return Outlook(*row)

        return await self._database.run(work)
