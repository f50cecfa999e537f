"""Reading and writing the ends of attempts."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final

from meshq.execution.model import Ended
from meshq.execution.postgres.database import Connection, Database
from meshq.execution.postgres.sql import statement
from meshq.mesh.postgres.arrays import bigints, byteas, integers, smallints, texts, uuids

_INSERT: Final = statement("insert_attempts")
_GET: Final = statement("get_attempts")
_GET_WITHIN: Final = statement("get_attempts_within")
_ENDED: Final = statement("ended_attempts")
_LIST: Final = statement("list_attempts")
_DELETE: Final = statement("delete_attempts")

Key = tuple[bytes, int]


class AttemptStore:
    """The table of attempts. All methods raise `MeshqError` when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, rows: Sequence[Ended]) -> int:
        """Record ends; returns how many were new. Each attempt may occur once."""
        ordered = sorted(rows, key=lambda row: row[:2])
        columns = (
            uuids([row.task_id for row in ordered]),
            integers([row.attempt for row in ordered]),
            smallints([row.outcome for row in ordered]),
            bigints([row.epoch for row in ordered]),
            bigints([row.number for row in ordered]),
            bigints([row.start_ms for row in ordered]),
            bigints([row.end_ms for row in ordered]),
            texts([row.tenant for row in ordered]),
            texts([row.worker_id for row in ordered]),
            byteas([row.success or b"" for row in ordered]),
            byteas([row.error or b"" for row in ordered]),
            bigints([-1 if row.retry_ms is None else row.retry_ms for row in ordered]),
            smallints([row.non_retryable for row in ordered]),
        )

        async def work(connection: Connection) -> int:
            return (await connection.execute(_INSERT, columns, prepare=True)).rowcount

        return await self._database.run(work)

    async def get(self, keys: Sequence[Key]) -> dict[Key, Ended]:
        """The recorded ends among some attempts."""
        rows = await self._select(_GET, _columns(keys))
        return {(row[1].bytes, row[2]): _ended(row[1:]) for row in rows}

    async def get_within(self, keys: Sequence[Key], max_bytes: int) -> tuple[dict[Key, Ended], int]:
        """As `get`, of the first keys until their results have so many bytes; and how many those are."""
        rows = await self._select(_GET_WITHIN, (*_columns(keys), max_bytes))
        ends = [_ended(row[1:]) for row in rows]
        cut = sum(len(end.success or b"") + len(end.error or b"") for end in ends) >= max_bytes
        return {(end.task_id, end.attempt): end for end in ends}, rows[-1][0] if cut else len(keys)

    async def ended(self, keys: Sequence[Key]) -> set[Key]:
        """Which of some attempts have ended."""
        return {keys[row[0] - 1] for row in await self._select(_ENDED, _columns(keys))}

    async def list(self, task_id: bytes) -> list[Ended]:
        """All ended attempts of a task, oldest first, without results."""
        return [_ended(row) for row in await self._select(_LIST, (uuid.UUID(bytes=task_id),))]

    async def delete(self, task_ids: Sequence[bytes]) -> None:
        """Forget the attempts of tasks."""

        async def work(connection: Connection) -> None:
            await connection.execute(_DELETE, (uuids(task_ids),), prepare=True)

        await self._database.run(work)

    async def _select(self, query: Any, parameters: Sequence[object]) -> Sequence[tuple[Any, ...]]:
        async def work(connection: Connection) -> Sequence[tuple[Any, ...]]:
            cursor = await connection.execute(query, parameters, prepare=True, binary=True)
            return await cursor.fetchall()

        return await self._database.run(work)


def _columns(keys: Sequence[Key]) -> tuple[object, object]:
    return uuids([key[0] for key in keys]), integers([key[1] for key in keys])


def _ended(row: Sequence[Any]) -> Ended:
    task_id, attempt, tenant, outcome, epoch, number, worker_id, start_ms, end_ms, success, error = row[:11]
    return Ended(
        task_id.bytes, attempt, tenant, outcome, epoch, number, worker_id, start_ms, end_ms,
        success or None, error or None, "", "", "", *row[11:],
    )  # fmt: skip
