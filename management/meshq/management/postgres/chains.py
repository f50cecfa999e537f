"""Chains of ordering keys in the ledger, and what is left of keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshq.management.model.chains import ChainKey
from meshq.management.model.task import Sendable, TaskRow
from meshq.management.postgres.columns import chain_columns
from meshq.management.postgres.database import Database, LedgerConnection
from meshq.management.postgres.sql import statement

_LOCK: Final = statement("lock_chains")
_RELEASE: Final = statement("release")
_CHAINS: Final = statement("chains")
_DEAD_KEYS: Final = statement("dead_unique_keys")
_PAGE: Final = statement("chains_page")
_DEAD_CHAINS: Final = statement("dead_chains")


class ChainRows:
    """See `meshq.management.chains.ChainStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def release(self, keys: Sequence[ChainKey], now_ms: int) -> list[tuple[TaskRow, Sendable]]:
        """See `ChainStore.release`."""
        columns = chain_columns(keys)

        async def work(connection: LedgerConnection, again: bool) -> list[tuple[TaskRow, Sendable]]:
            async with connection.transaction():
                await connection.execute(_LOCK, columns, prepare=True)
                named = {**columns, "now": now_ms}
                cursor = await connection.execute(_RELEASE, named, prepare=True, binary=True)
                return [_released(row, repeat=again) for row in await cursor.fetchall()]

        return await self._database.write(work)

    async def chains(self, after: ChainKey, limit: int) -> list[tuple[ChainKey, bool]]:
        """See `ChainStore.chains`."""
        parameters = {**after._asdict(), "limit": limit}

        async def work(connection: LedgerConnection) -> list[tuple[object, ...]]:
            return await (await connection.execute(_CHAINS, parameters, prepare=True)).fetchall()

        return [(ChainKey(*row[:3]), bool(row[3])) for row in await self._database.read(work)]  # type: ignore[arg-type]

    async def forget_unique_keys(self, after: ChainKey, before_ms: int, limit: int) -> ChainKey | None:
        """See `meshq.management.forget.KeyStore`."""
        parameters = {**after._asdict(), "before": before_ms, "limit": limit}

        async def work(connection: LedgerConnection, _: bool) -> ChainKey | None:
            row = await (await connection.execute(_DEAD_KEYS, parameters, prepare=True)).fetchone()
            return ChainKey(*row) if row else None

        return await self._database.write(work)

    async def forget_chains(self, after: ChainKey, limit: int) -> ChainKey | None:
        """See `meshq.management.forget.KeyStore`."""
        parameters = {**after._asdict(), "limit": limit}

        async def work(connection: LedgerConnection, _: bool) -> ChainKey | None:
            async with connection.transaction():
                rows = await (await connection.execute(_PAGE, parameters, prepare=True)).fetchall()
                if not rows:
                    return None
                await connection.execute(_DEAD_CHAINS, chain_columns(rows), prepare=True)
                return ChainKey(*rows[-1])

        return await self._database.write(work)


def _released(found: tuple[object, ...], *, repeat: bool) -> tuple[TaskRow, Sendable]:
    spec, priority, fairness, start_by, announce, *columns = found
    row = TaskRow(*columns)  # type: ignore[arg-type]
    sendable = Sendable(
        row.task_id,
        row.attempt,
        row.tenant,
        row.queue,
        row.type,
        row.ready_ms,
        priority,  # type: ignore[arg-type]
        fairness,  # type: ignore[arg-type]
        repeat,
        spec,  # type: ignore[arg-type]
        row.traits,
        start_by,  # type: ignore[arg-type]
        bool(announce),
    )
    return row, sendable
