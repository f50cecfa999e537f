"""Which instances cannot use which shards; all times are those of the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshq.execution.postgres.database import Connection, Database
from meshq.execution.postgres.sql import statement

_REPORT: Final = statement("report_outage")
_LOAD: Final = statement("load_outages")


class OutageTable:
    """See the module. All methods raise `MeshqError` when the database does not answer.

    Args:
        database: The execution database.
        valid_for: Seconds for which a report holds unless it is made again.
    """

    def __init__(self, database: Database, valid_for: float) -> None:
        self._database = database
        self._valid_for = valid_for

    async def report(self, instance: str, shards: Sequence[str]) -> None:
        """Say that an instance cannot use shards, for the first time or still."""

        async def work(connection: Connection) -> None:
            for shard in shards:
                given = {"shard": shard, "instance": instance, "seconds": self._valid_for}
                await connection.execute(_REPORT, given)

        await self._database.run(work)

    async def end(self, instance: str, shards: Sequence[str]) -> None:
        """Say that an instance can use shards again."""

        async def work(connection: Connection) -> None:
            await connection.execute(
                "DELETE FROM shard_outages WHERE instance = %s AND shard = ANY(%s)", [instance, list(shards)]
            )

        await self._database.run(work)

    async def forget(self, shard: str) -> None:
        """A shard comes back empty: drop what was said of it, and what was to be completed there later."""

        async def work(connection: Connection) -> None:
            await connection.execute("DELETE FROM deferrals WHERE shard = %s", [shard])
            # With it goes what instances have said that are gone.
            await connection.execute(
                "DELETE FROM shard_outages WHERE shard = %s OR seen_time < now() - interval '1 hour'", [shard]
            )

        await self._database.run(work)

    async def load(self, shard: str) -> dict[str, float]:
        """For how many seconds instances have not been able to use a shard, of those that say so now."""

        async def work(connection: Connection) -> dict[str, float]:
            given = {"shard": shard, "seconds": self._valid_for}
            rows = await (await connection.execute(_LOAD, given)).fetchall()
            return {instance: float(seconds) for instance, seconds in rows}

        return await self._database.run(work)
