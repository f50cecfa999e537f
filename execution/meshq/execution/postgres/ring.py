"""The versions of the ring and the epochs of shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from meshq.execution.postgres.database import Connection, Database
from meshq.execution.postgres.sql import statement
from meshq.execution.ring.hashring import Ring, RingShard

_LOCK: Final = 0x6D65_7368_7202
_LOAD: Final = statement("load_ring")


class RingTable:
    """See the module. All methods raise `MeshqError` when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_ring(self) -> Ring:
        """The current version; version 0 without shards when there is none."""
        return await self._database.run(_load)

    async def ensure_shards(self, shards: Sequence[RingShard]) -> Ring:
        """Make a new version when some of the shards are missing or have another address or weight.

        Instances that start together make one version, because they take turns.
        """

        async def work(connection: Connection) -> Ring:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
                ring = await _load(connection)
                wanted = _merged(ring, shards)
                return ring if wanted == ring.shards else await _store(connection, ring.version + 1, wanted)

        return await self._database.run(work)

    async def next_epoch(self) -> int:
        """A number that no shard's epoch ever had."""

        async def work(connection: Connection) -> int:
            row = await (await connection.execute("SELECT nextval('shard_epochs')")).fetchone()
            assert row is not None
            return int(row[0])

        return await self._database.run(work)


def _merged(ring: Ring, shards: Sequence[RingShard]) -> tuple[RingShard, ...]:
    members = {shard.name: shard for shard in ring.shards}
    for shard in shards:
        known = members.get(shard.name, shard)
        members[shard.name] = replace(known, address=shard.address, weight=shard.weight)
    return tuple(members[name] for name in sorted(members))


async def _load(connection: Connection) -> Ring:
    rows = await (await connection.execute(_LOAD)).fetchall()
    return Ring(rows[0][0] if rows else 0, [RingShard(*row[1:]) for row in rows])


async def _store(connection: Connection, version: int, shards: Sequence[RingShard]) -> Ring:
    await connection.execute("INSERT INTO ring_versions (version) VALUES (%s)", [version])
    for shard in shards:
        await connection.execute(
            "INSERT INTO ring_shards (version, name, address, weight, draining) VALUES (%s, %s, %s, %s, %s)",
            [version, shard.name, shard.address, shard.weight, shard.draining],
        )
    return Ring(version, shards)
