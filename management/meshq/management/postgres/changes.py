"""What callers change beside cancelling: updates, deletions, and new tasks for ended ones."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

from meshq.management.ledger import Inserted
from meshq.management.model.changes import Updated
from meshq.management.model.claims import Submission
from meshq.management.model.retention import leaving
from meshq.management.model.task import NewTask, TaskFilter, TaskId, TaskRow
from meshq.management.postgres.database import Database, LedgerConnection
from meshq.management.postgres.keyed import Insertion
from meshq.management.postgres.selections import latest_redriven
from meshq.management.postgres.sql import statement
from meshq.mesh.postgres.arrays import uuids

_DELETE: Final = statement("delete_many")
_MARK: Final = statement("mark_redriven")
_LOCK: Final = statement("update_lock")
_UPDATE: Final = statement("update")
_TURN: Final = "SELECT pg_advisory_xact_lock(hashtext('meshq redrives'), hashtext(%s))"


class Changes:
    """Changes tasks as callers wish."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def delete_tasks(self, task_ids: Sequence[TaskId], now_ms: int) -> list[TaskId]:
        """See `Ledger.delete_tasks`."""
        parameters = {"ids": uuids(sorted(task_ids)), "now": now_ms, **leaving(task_ids, now_ms)._asdict()}

        async def work(connection: LedgerConnection, _: bool) -> list[TaskId]:
            cursor = await connection.execute(_DELETE, parameters, binary=True)
            return [task_id for (task_id,) in await cursor.fetchall()]

        return await self._database.write(work)

    async def redrive(self, tasks: Sequence[NewTask], now_ms: int) -> tuple[Inserted, list[NewTask]]:
        """See `Ledger.redrive`."""

        async def work(connection: LedgerConnection, again: bool) -> tuple[Inserted, list[NewTask]]:
            async with connection.transaction():
                return await _redrive(connection, tasks, now_ms, again=again)

        return await self._database.write(work)

    async def redrive_behind(
        self, wanted: TaskFilter, make: Callable[[int | None], Sequence[NewTask]], now_ms: int
    ) -> tuple[Inserted, list[NewTask]]:
        """See `Ledger.redrive_behind`."""
        made: list[NewTask] = []

        async def work(connection: LedgerConnection, again: bool) -> tuple[Inserted, list[NewTask]]:
            async with connection.transaction():
                await connection.execute(_TURN, [wanted.tenant])
                if not made:
                    # Once: a second try has to find the tasks of the first one.
                    made.extend(make(await latest_redriven(connection, wanted, now_ms)))
                return await _redrive(connection, made, now_ms, again=again)

        return await self._database.write(work)

    async def update(
        self, task_id: TaskId, attempt: int, now_ms: int, change: Callable[[TaskRow], Updated | None]
    ) -> TaskRow | None:
        """See `Ledger.update`."""
        return await self._update(task_id, attempt, now_ms, change, 0)

    async def pass_over(
        self, task_id: TaskId, attempt: int, now_ms: int, change: Callable[[TaskRow], Updated | None]
    ) -> TaskRow | None:
        """See `Ledger.pass_over`."""
        return await self._update(task_id, attempt, now_ms, change, 1)

    async def _update(
        self,
        task_id: TaskId,
        attempt: int,
        now_ms: int,
        change: Callable[[TaskRow], Updated | None],
        passed: int,
    ) -> TaskRow | None:
        named = {"id": uuid.UUID(bytes=task_id), "attempt": attempt}

        async def work(connection: LedgerConnection, _: bool) -> TaskRow | None:
            async with connection.transaction():
                cursor = await connection.execute(_LOCK, named, binary=True)
                found = await cursor.fetchone()
                changed = change(TaskRow(*found)) if found else None
                if changed is None:
                    return None
                parameters = {**named, "now": now_ms, "passed": passed, **_columns(changed)}
                cursor = await connection.execute(_UPDATE, parameters, binary=True)
                row = await cursor.fetchone()
                assert row is not None
                return TaskRow(*row)

        return await self._database.write(work)


async def _redrive(
    connection: LedgerConnection, tasks: Sequence[NewTask], now_ms: int, *, again: bool
) -> tuple[Inserted, list[NewTask]]:
    by_old = {_old(task): task for task in tasks}
    parameters = {
        "olds": uuids(list(by_old)),
        "news": uuids([task.task_id for task in by_old.values()]),
        **leaving(by_old, now_ms)._asdict(),
    }
    cursor = await connection.execute(_MARK, parameters, binary=True)
    won = {task_id for (task_id,) in await cursor.fetchall()}
    stored = [task for task in tasks if task.task_id in won]
    insertion = Insertion(connection, now_ms, again=again)
    return await insertion.run([Submission(stored, None, 0)]), stored


def _old(task: NewTask) -> TaskId:
    assert task.special is not None
    assert task.special.redriven_from is not None
    return task.special.redriven_from


def _columns(changed: Updated) -> dict[str, Any]:
    return {
        "spec": changed.spec,
        "traits": changed.traits,
        "priority": changed.priority,
        "labels": list(changed.labels) if changed.labels else None,
        "state": changed.state,
        "ready": changed.ready_ms,
        "start_by": changed.start_by_ms,
        "close_by": changed.close_by_ms,
    }
