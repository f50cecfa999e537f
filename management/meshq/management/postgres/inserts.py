"""The insert path of the ledger: one for unary calls, batches and bulk streams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import psycopg

from meshq.management.ledger import Inserted
from meshq.management.model.claims import Answer, Claim, Submission, corrected_answers
from meshq.management.model.task import NO_ID, TaskId
from meshq.management.postgres.columns import Row, claim_columns, special_columns, task_columns
from meshq.management.postgres.database import Database, LedgerConnection
from meshq.management.postgres.errors import refuses_rows
from meshq.management.postgres.sql import statement
from meshq.mesh.postgres.arrays import texts, uuids

_CREATE: Final = statement("claim") + statement("create") + statement("created")
_CREATE_SPECIAL: Final = statement("claim") + statement("create_special") + statement("created")
_KNOWN: Final = """
SELECT uuid_send(id) FROM open_tasks WHERE id = ANY (%(ids)s::uuid[])
UNION ALL
SELECT uuid_send(id) FROM finished_tasks WHERE id = ANY (%(ids)s::uuid[])
"""
_CLAIMS: Final = "SELECT claim, fingerprint, task_ids FROM claims WHERE claim = ANY (%s::text[])"
_CORRECT_CLAIM: Final = "UPDATE claims SET task_ids = %s WHERE claim = %s"


class Inserts:
    """Stores new tasks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._named: set[tuple[str, str]] = set()

    def forget_queues(self, keys: Sequence[tuple[str, str]]) -> None:
        """Name these queues again with their next tasks; they were deleted."""
        self._named.difference_update(keys)

    async def insert(self, submissions: Sequence[Submission], now_ms: int) -> Inserted:
        """See `Ledger.insert`."""
        rows = [(task, item.claim.name if item.claim else "") for item in submissions for task in item.tasks]
        claims = [item.claim for item in submissions if item.claim]

        async def work(connection: LedgerConnection, again: bool) -> Inserted:
            fresh = await without_known(connection, rows) if again else rows
            won = await self._store(connection, fresh, claims, now_ms)
            return Inserted(won, repeat=again)

        return await self._database.write(work)

    async def insert_apart(self, submission: Submission, now_ms: int) -> tuple[Inserted, frozenset[TaskId]]:
        """See `Ledger.insert_apart`.

        The rows are halved, each half under a savepoint, until the bad ones are alone. The claim and the
        good rows are one transaction, and the claim names the good rows only, so that a repeated request
        gets the same answers.
        """
        claim = submission.claim

        async def work(connection: LedgerConnection, again: bool) -> tuple[Inserted, frozenset[TaskId]]:
            async with connection.transaction():
                won = await self._store(connection, [], [claim] if claim else [], now_ms)
                if claim and not won:
                    return Inserted(won, repeat=again), frozenset()
                rows = [(task, "") for task in submission.tasks]
                fresh = await without_known(connection, rows) if again else rows
                refused = frozenset(await self._halved(connection, fresh, now_ms))
                if claim:
                    none = dict.fromkeys(refused, Answer(NO_ID))
                    await connection.execute(_CORRECT_CLAIM, [corrected_answers(claim, none), claim.name])
            return Inserted(won, repeat=again), refused

        return await self._database.write(work)

    async def claims(self, names: Sequence[str]) -> dict[str, Claim]:
        """See `Ledger.claims`."""

        async def work(connection: LedgerConnection, _: bool) -> dict[str, Claim]:
            cursor = await connection.execute(_CLAIMS, [texts(names)], prepare=True, binary=True)
            found = {row[0]: Claim(*row) for row in await cursor.fetchall()}
            if found:
                await connection.settle()
            return found

        return await self._database.write(work)

    async def _store(
        self, connection: LedgerConnection, rows: Sequence[Row], claims: Sequence[Claim], now_ms: int
    ) -> frozenset[str]:
        queues = {(row[0][1], row[0][2]) for row in rows} - self._named
        columns = {
            "now": now_ms,
            "slot": connection.slot,
            **claim_columns(claims),
            **task_columns(rows),
            **new_queues(queues),
        }
        query = _CREATE
        if any(task.special for task, _ in rows):
            query = _CREATE_SPECIAL
            columns |= special_columns(rows, {})
        cursor = await connection.execute(query, columns, prepare=True, binary=True)
        won = frozenset(name for (name,) in await cursor.fetchall())
        self._remember(queues, rows, won)
        return won

    def _remember(self, queues: set[tuple[str, str]], rows: Sequence[Row], won: frozenset[str]) -> None:
        # A queue is named with its first task, and again when it was deleted.
        if queues and all(not claim or claim in won for _, claim in rows):
            self._named |= queues

    async def _halved(self, connection: LedgerConnection, rows: Sequence[Row], now_ms: int) -> list[TaskId]:
        if not rows:
            return []
        try:
            async with connection.transaction():
                await self._store(connection, rows, [], now_ms)
        except psycopg.Error as error:
            if not refuses_rows(error):
                raise
            if len(rows) == 1:
                return [rows[0][0].task_id]
            middle = len(rows) // 2
            first = await self._halved(connection, rows[:middle], now_ms)
            return first + await self._halved(connection, rows[middle:], now_ms)
        return []


def new_queues(queues: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The columns of queues that may have to be named, sorted, as they are locked in that order."""
    ordered = sorted(queues)
    return {
        "new_tenants": texts([tenant for tenant, _ in ordered]),
        "new_queues": texts([name for _, name in ordered]),
    }


async def without_known(connection: LedgerConnection, rows: Sequence[Row]) -> list[Row]:
    """Leave out what an earlier try has stored: it was perhaps committed, and may even have ended since."""
    cursor = await connection.execute(_KNOWN, {"ids": uuids([task.task_id for task, _ in rows])}, binary=True)
    known = {task_id for (task_id,) in await cursor.fetchall()}
    return [row for row in rows if row[0].task_id not in known]
