"""Queues in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, LiteralString

from meshq.management.model.queues import UNSET, QueueSettings
from meshq.management.model.task import TaskRow
from meshq.management.postgres.database import Database, LedgerConnection
from meshq.management.postgres.sql import statement
from meshq.management.queues.store import (
    Codec,
    Decision,
    Held,
    QueueChange,
    QueueKey,
    QueueRow,
    concerns_dispatch,
)
from meshq.mesh.postgres.arrays import bigints, integers, smallints, texts, uuids

_CHANGES: Final = statement("queue_changes")
_SET: Final = statement("queue_set")
_DELETE: Final = statement("queue_delete")
_PURGE: Final = statement("queue_purge")
_REVIVE: Final = statement("queue_revive")
_OPEN: Final = statement("queue_open")
_PAGE: Final = statement("queue_figures").replace("<which>", "name > %(after)s::text")
_NAMED: Final = statement("queue_figures").replace("<which>", "name = ANY (%(names)s::text[])")
_HELD: Final = statement("queue_held")
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('meshq settings of queues'))"
_READ: Final = """
SELECT version, update_ms, settings FROM queues WHERE tenant = %(tenant)s::text AND name = %(name)s::text
"""
_by_id: Final = itemgetter(0)
_FORGET_MS: Final = 7 * 86_400_000
"""For how long word of deletions is left; every instance has read it long before."""


class PostgresQueues:
    """See `meshq.management.queues.store.QueueStore`.

    Args:
        database: Connected.
        codec: How settings are stored.
    """

    def __init__(self, database: Database, codec: Codec) -> None:
        self._database = database
        self._codec = codec

    async def changes(self, after: int, limit: int) -> list[QueueChange]:
        """See `QueueStore.changes`."""
        rows = await self._fetch(_CHANGES, {"after": after, "limit": limit})
        return [
            QueueChange(tenant, name, self._decoded(version, update_ms, settings), configured, deleted)
            for tenant, name, version, update_ms, configured, deleted, settings in rows
        ]

    async def change(self, key: QueueKey, decide: Decision, now_ms: int) -> bool:
        """See `QueueStore.change`."""
        named = {"tenant": key[0], "name": key[1], "now": now_ms}

        async def work(connection: LedgerConnection, again: bool) -> bool:
            async with connection.transaction():
                before = await self._locked(connection, named)
                if again and before is not None and before.update_ms == now_ms:
                    # An earlier try was committed unheard.
                    return True
                after = decide(before)
                if after is None:
                    return False
                stored = {"settings": self._codec.encode(after), "configured": concerns_dispatch(after)}
                await connection.execute(_SET, {**named, **stored})
            return True

        return await self._database.write(work)

    async def delete(self, key: QueueKey, now_ms: int) -> bool:
        """See `QueueStore.delete`."""
        named = {"tenant": key[0], "name": key[1], "now": now_ms, "forget": now_ms - _FORGET_MS}

        async def work(connection: LedgerConnection, _: bool) -> bool:
            async with connection.transaction():
                await connection.execute(_LOCK)
                row = await (await connection.execute(_DELETE, named)).fetchone()
                return row is not None and bool(row[0])

        return await self._database.write(work)

    async def revive(self, keys: Sequence[QueueKey], now_ms: int) -> None:
        """See `QueueStore.revive`."""
        tenants, names = zip(*keys, strict=True)
        named = {"tenants": texts(tenants), "names": texts(names), "now": now_ms}

        async def work(connection: LedgerConnection, _: bool) -> None:
            await connection.execute(_REVIVE, named)

        await self._database.write(work)

    async def purge(self, rows: Sequence[TaskRow], reason: str, now_ms: int) -> list[TaskRow]:
        """See `QueueStore.purge`."""
        # In the order of their ids, so that no two groups wait for each other.
        ordered = sorted(rows, key=_by_id)
        named = {
            "now": now_ms,
            "reason": reason,
            "ids": uuids([row.task_id for row in ordered]),
            "attempts": integers([row.attempt for row in ordered]),
            "states": smallints([row.state for row in ordered]),
            "ready": bigints([row.ready_ms for row in ordered]),
        }

        async def work(connection: LedgerConnection, _: bool) -> list[TaskRow]:
            cursor = await connection.execute(_PURGE, named, prepare=True, binary=True)
            return [TaskRow(*row) for row in await cursor.fetchall()]

        return await self._database.write(work)

    async def page(self, tenant: str, after: str, limit: int, now_ms: int) -> list[QueueRow]:
        """See `QueueStore.page`."""
        return await self._rows(_PAGE, {"tenant": tenant, "after": after, "limit": limit, "now": now_ms})

    async def named(self, tenant: str, names: Sequence[str], now_ms: int) -> list[QueueRow]:
        """See `QueueStore.named`."""
        wanted = {"tenant": tenant, "names": texts(names), "limit": len(names), "now": now_ms}
        return await self._rows(_NAMED, wanted)

    async def held(self, tenant: str, names: Sequence[str], later_ms: int) -> dict[str, Held]:
        """See `QueueStore.held`."""
        wanted = {"tenant": tenant, "names": texts(names), "later": later_ms}
        return {row[0]: Held(*row[1:]) for row in await self._fetch(_HELD, wanted)}

    async def _rows(self, query: LiteralString, parameters: Mapping[str, Any]) -> list[QueueRow]:
        return [
            QueueRow(tenant, name, create_ms, self._decoded(version, update_ms, stored), *figures)
            for tenant, name, create_ms, version, update_ms, stored, *figures in await self._fetch(
                query, parameters
            )
        ]

    async def open_counts(self, keys: Sequence[QueueKey]) -> dict[QueueKey, int]:
        """See `QueueStore.open_counts`."""
        tenants, names = zip(*keys, strict=True)
        rows = await self._fetch(_OPEN, {"tenants": texts(tenants), "names": texts(names)})
        return {(tenant, name): count for tenant, name, count in rows}

    async def _locked(self, connection: LedgerConnection, named: Mapping[str, Any]) -> QueueSettings | None:
        # In the order of this lock versions are taken and committed.
        await connection.execute(_LOCK)
        row = await (await connection.execute(_READ, named)).fetchone()
        return None if row is None else self._decoded(*row)

    def _decoded(self, version: int, update_ms: int, stored: bytes | None) -> QueueSettings:
        settings = UNSET if stored is None else self._codec.decode(stored)
        return settings._replace(version=version, update_ms=update_ms)

    async def _fetch(self, query: LiteralString, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        async def work(connection: LedgerConnection) -> list[tuple[Any, ...]]:
            cursor = await connection.execute(query, parameters, prepare=True, binary=True)
            return await cursor.fetchall()

        return await self._database.read(work)
