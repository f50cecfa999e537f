"""Reading and writing checkpoints."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

from meshq.execution.model import Checkpoint
from meshq.execution.postgres.database import Connection, Database
from meshq.execution.postgres.sql import statement
from meshq.mesh.postgres.arrays import bigints, byteas, integers, uuids

_STORE: Final = statement("store_checkpoints")
_LOAD: Final = statement("load_checkpoints")
_OLD: Final = statement("old_checkpoints")
_DELETE: Final = statement("delete_checkpoints")


class CheckpointStore:
    """The table of checkpoints. All methods raise `MeshqError` when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Keep checkpoints, at most one of each task, unless there are some of later attempts."""
        rows = sorted(checkpoints, key=lambda row: row.task_id)
        columns = (
            uuids([row.task_id for row in rows]),
            integers([row.attempt for row in rows]),
            bigints([row.time_ms for row in rows]),
            byteas([row.content for row in rows]),
        )

        async def work(connection: Connection) -> None:
            await connection.execute(_STORE, columns, prepare=True)

        await self._database.run(work)

    async def load(self, task_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """The checkpoints of those of some tasks that have one."""

        async def work(connection: Connection) -> dict[bytes, bytes]:
            cursor = await connection.execute(_LOAD, (uuids(task_ids),), prepare=True, binary=True)
            return {row[0].bytes: row[1] for row in await cursor.fetchall()}

        return await self._database.run(work)

    async def old(self, after: bytes, before_ms: int, limit: int) -> list[bytes]:
        """A page of tasks, behind one, whose checkpoints have not changed since a time."""

        async def work(connection: Connection) -> list[bytes]:
            arguments = (uuid.UUID(bytes=after), before_ms, limit)
            cursor = await connection.execute(_OLD, arguments, prepare=True, binary=True)
            return [row[0].bytes for row in await cursor.fetchall()]

        return await self._database.run(work)

    async def delete(self, task_ids: Sequence[bytes]) -> None:
        """Forget the checkpoints of tasks."""

        async def work(connection: Connection) -> None:
            await connection.execute(_DELETE, (uuids(task_ids),), prepare=True)

        await self._database.run(work)
