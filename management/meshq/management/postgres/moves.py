"""How open tasks change and end, and how ended ones are deleted."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString

from meshq.contract.ids import ID_BYTES
from meshq.management.ledger import Ended
from meshq.management.model.chains import ChainKey
from meshq.management.model.reports import STARTABLE_NUMBERS, Finish, Retry, Start, Wish
from meshq.management.model.retention import leaving
from meshq.management.model.task import TaskId, TaskRow
from meshq.management.postgres.database import Database, LedgerConnection
from meshq.management.postgres.sql import statement
from meshq.mesh.postgres.arrays import bigints, integers, smallints, texts, uuids

_FINISH: Final = statement("finish") + statement("finished")
_FINISH_QUIETLY: Final = statement("finish") + statement("finished_quietly")
_RETRY: Final = statement("retry")
_START: Final = statement("start")
_CANCEL: Final = statement("cancel")
_DELETE: Final = statement("delete")


class Moves:
    """Changes tasks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def finish(self, ends: Sequence[Finish], now_ms: int) -> list[TaskRow]:
        """See `Ledger.finish`."""
        return await self._change(_FINISH, _columns_of(ends, now_ms))

    async def finish_quietly(self, ends: Sequence[Finish], now_ms: int) -> list[Ended]:
        """See `Ledger.finish_quietly`."""
        parameters = _columns_of(ends, now_ms)

        async def work(connection: LedgerConnection, _: bool) -> list[Ended]:
            named = {**parameters, "slot": connection.slot}
            cursor = await connection.execute(_FINISH_QUIETLY, named, prepare=True, binary=True)
            return [_ended(*row) for row in await cursor.fetchall()]

        return await self._database.write(work)

    async def retry(self, retries: Sequence[Retry], now_ms: int) -> list[TaskRow]:
        """See `Ledger.retry`."""
        columns = zip(*sorted(retries), strict=True)
        ids, attempts, next_attempts, states, ready, error_types, error_messages, spared, unanswered = columns
        return await self._change(
            _RETRY,
            {
                "now": now_ms,
                "ids": uuids(ids),
                "attempts": integers(attempts),
                "next_attempts": integers(next_attempts),
                "states": smallints(states),
                "ready": bigints(ready),
                "error_types": texts(error_types),
                "error_messages": texts(error_messages),
                "spared": smallints(spared),
                "unanswered": smallints(unanswered),
            },
        )

    async def start_attempts(self, starts: Sequence[Start], now_ms: int) -> list[TaskRow]:
        """See `Ledger.start_attempts`."""
        ids, attempts, start_times, workers = zip(*sorted(starts), strict=True)
        return await self._change(
            _START,
            {
                "now": now_ms,
                "ids": uuids(ids),
                "attempts": integers(attempts),
                "starts": bigints(start_times),
                "workers": texts(workers),
                "startable": STARTABLE_NUMBERS,
            },
        )

    async def cancel(self, wishes: Sequence[Wish], now_ms: int) -> list[tuple[TaskRow, int]]:
        """See `Ledger.cancel`."""
        parameters = wish_columns(wishes, now_ms)

        async def work(connection: LedgerConnection, _: bool) -> list[tuple[TaskRow, int]]:
            cursor = await connection.execute(_CANCEL, parameters, prepare=True, binary=True)
            return [(TaskRow(*row[1:]), row[0]) for row in await cursor.fetchall()]

        return await self._database.write(work)

    async def delete(self, task_id: TaskId, now_ms: int) -> bool:
        """See `Ledger.delete`."""
        bounds = leaving([task_id], now_ms)._asdict()
        parameters = {"id": uuid.UUID(bytes=task_id), "now": now_ms, **bounds}

        async def work(connection: LedgerConnection, _: bool) -> bool:
            cursor = await connection.execute(_DELETE, parameters)
            row = await cursor.fetchone()
            return row is not None and bool(row[0])

        return await self._database.write(work)

    async def _change(self, query: LiteralString, parameters: Mapping[str, Any]) -> list[TaskRow]:
        async def work(connection: LedgerConnection, _: bool) -> list[TaskRow]:
            named = {**parameters, "slot": connection.slot}
            cursor = await connection.execute(query, named, prepare=True, binary=True)
            return [TaskRow(*row) for row in await cursor.fetchall()]

        return await self._database.write(work)


def _ended(state: int, max_attempts: int, task_ids: bytes, chains: Sequence[Sequence[str]] | None) -> Ended:
    ids = [task_ids[start : start + ID_BYTES] for start in range(0, len(task_ids), ID_BYTES)]
    return Ended(state, ids, max_attempts, frozenset(ChainKey(*chain) for chain in chains or ()))


def _columns_of(ends: Sequence[Finish], now_ms: int) -> dict[str, Any]:
    # In the order of their ids, so that no two groups wait for each other.
    columns = zip(*sorted(ends), strict=True)
    ids, attempts, states, starts, end_times, workers, error_types, error_messages = columns
    return {
        "now": now_ms,
        "ids": uuids(ids),
        "attempts": integers(attempts),
        "states": smallints(states),
        "starts": bigints(starts),
        "ends": bigints(end_times),
        "workers": texts(workers),
        "error_types": texts(error_types),
        "error_messages": texts(error_messages),
    }


def wish_columns(wishes: Sequence[Wish], now_ms: int) -> dict[str, Any]:
    """What cancel.sql takes."""
    ids, reasons, endings, error_types, expected = zip(*sorted(wishes), strict=True)
    return {
        "now": now_ms,
        "ids": uuids(ids),
        "reasons": texts(reasons),
        "endings": smallints(endings),
        "error_types": texts(error_types),
        "expected": smallints(expected),
    }
