"""The versions of the ring, and the epochs of shards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Final

from meshq.execution.postgres.database import Connection, Database
from meshq.execution.postgres.sql import statement
from meshq.execution.ring.hashring import Ring, RingShard

_LOCK: Final = 0x6D65_7368_7202
_LOAD: Final = statement("load_ring")
_LOAD_SINCE: Final = statement("load_rings")

Edit = Callable[[Ring], Awaitable[Sequence[RingShard]]]


class RingTable:
    """See the module. All methods raise `MeshqError` when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Who waits for the lock has a connection. One may, so that there are more for whoever has the lock.
        self._turn = asyncio.Lock()

    async def load_ring(self) -> Ring:
        """The current version; version 0 without shards when there is none."""
        return await self._database.run(_load)

    async def load_rings(self, since: int) -> list[Ring]:
        """The versions from one on, in their order."""

        async def work(connection: Connection) -> list[Ring]:
            rows = await (await connection.execute(_LOAD_SINCE, [since])).fetchall()
            return [
                Ring(version, [RingShard(*row[1:]) for row in members if row[1] is not None])
                for version, members in groupby(rows, itemgetter(0))
            ]

        return await self._database.run(work)

    async def ensure_shards(self, shards: Sequence[RingShard]) -> Ring:
        """Make a new version when shards that were never there are missing, or some have changed.

        Instances that start together make one version, because they take turns. A shard that was removed does
        not come back.
        """

        async def work(connection: Connection) -> Ring:
            async with connection.transaction():
                ring = await _locked(connection)
                names = await (await connection.execute("SELECT DISTINCT name FROM ring_shards")).fetchall()
                known = {name for (name,) in names} - {shard.name for shard in ring.shards}
                wanted = _merged(ring, [shard for shard in shards if shard.name not in known])
                return await _changed(connection, ring, wanted)

        return await self._in_turn(work)

    async def change(self, edit: Edit) -> Ring:
        """Make a new version, while nobody else can.

        Args:
            edit: Gets the current version and returns the shards of the next one; the same shards make no
                version. It has a few seconds, and may be called again. What it raises is passed on.

        Returns:
            The version that is current then.
        """

        async def work(connection: Connection) -> Ring:
            async with connection.transaction():
                ring = await _locked(connection)
                return await _changed(connection, ring, tuple(await edit(ring)))

        return await self._in_turn(work)

    async def _in_turn(self, work: Callable[[Connection], Awaitable[Ring]]) -> Ring:
        async with self._turn:
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


async def _locked(connection: Connection) -> Ring:
    """The current version, which stays that until the transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    return await _load(connection)


async def _changed(connection: Connection, ring: Ring, wanted: tuple[RingShard, ...]) -> Ring:
    if wanted == ring.shards:
        return ring
    return await _store(connection, ring.version + 1, wanted)


async def _load(connection: Connection) -> Ring:
    rows = await (await connection.execute(_LOAD)).fetchall()
    return Ring(rows[0][0] if rows else 0, [RingShard(*row[1:]) for row in rows])


async def _store(connection: Connection, version: int, shards: Sequence[RingShard]) -> Ring:
    await connection.execute("INSERT INTO ring_versions (version) VALUES (%s)", [version])
    for shard in shards:
        await connection.execute(
            "INSERT INTO ring_shards (version, name, address, weight, draining, out)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [version, shard.name, shard.address, shard.weight, shard.draining, shard.out],
        )
    return Ring(version, shards)
