"""Databases with live data, brought up to date from their first version by the code that instances run."""

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from meshq.contract.ids import new_task_id
from meshq.execution.postgres import database as execution
from meshq.execution.postgres.attempts import AttemptStore
from meshq.execution.postgres.ring import RingTable
from meshq.management.model.claims import Claim
from meshq.management.model.reports import Finish
from meshq.management.model.states import State
from meshq.management.postgres import database as management
from meshq.management.postgres.ledger import PostgresLedger
from meshq.mesh.postgres import migrate as module
from meshq.mesh.postgres.migrate import migrate, migrations

NOW = int(time.time() * 1_000)
OPEN, RUNNING, RETRYING, ENDED = (new_task_id() for _ in range(4))
SPEC = b"\x00spec\xff"


@asynccontextmanager
async def connected(database: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        yield connection


async def first_version(
    connection: psycopg.AsyncConnection[Any], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database as the first step has left it."""
    first = migrations(package)[:1]
    with monkeypatch.context() as patched:
        patched.setattr(module, "migrations", lambda _package: first)
        assert await migrate(connection, package) == [first[0].name]


async def test_a_ledger_with_tasks(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(database) as connection:
        await first_version(connection, "meshq.management.postgres", monkeypatch)
        for task_id, state, attempt in ((OPEN, 3, 1), (RUNNING, 4, 2), (RETRYING, 5, 3)):
            await connection.execute(
                "INSERT INTO open_tasks (id, ready_ms, touched_ms, attempt, max_attempts, state, tenant, "
                "queue, type, routing_key, spec) "
                "VALUES (%s, %s, %s, %s, 5, %s, 'default', 'q', 't', 'r', %s)",
                [uuid.UUID(bytes=task_id.bytes), NOW, NOW, attempt, state, SPEC],
            )
        await connection.execute(
            "INSERT INTO finished_tasks (id, end_ms, ready_ms, attempt, max_attempts, state, tenant, queue, "
            "type, spec) VALUES (%s, %s, %s, 2, 3, 7, 'default', 'q', 't', %s)",
            [uuid.UUID(bytes=ENDED.bytes), NOW, NOW, SPEC],
        )
        await connection.execute("INSERT INTO queues VALUES ('default', 'q', 1)")
        await connection.execute("INSERT INTO claims VALUES ('c', %s, 1, %s)", [NOW, OPEN.bytes])
    pools = management.Database(database, writers=1, readers=1)
    await pools.start()
    ledger = PostgresLedger(pools)
    try:
        rows = await ledger.get_tasks([item.bytes for item in (OPEN, RUNNING, RETRYING, ENDED)], full=True)
        found = {task_id: (row.state, row.attempt, row.spec, row.end_ms) for task_id, row in rows.items()}
        assert found == {
            OPEN.bytes: (3, 1, SPEC, None),
            RUNNING.bytes: (4, 2, SPEC, None),
            RETRYING.bytes: (5, 3, SPEC, None),
            ENDED.bytes: (7, 2, SPEC, NOW),
        }
        assert (await ledger.claims(["c"]))["c"] == Claim("c", 1, OPEN.bytes)
        # What was open ends as anything else does.
        end = Finish(RUNNING.bytes, 2, State.SUCCEEDED, NOW, NOW, "w", "", "")
        assert [row.task_id for row in await ledger.finish([end], NOW)] == [RUNNING.bytes]
        async with connected(database) as connection:
            cursor = await connection.execute("SELECT count(*) FROM open_tasks")
            assert await cursor.fetchone() == (2,)
    finally:
        await pools.stop()


async def test_an_execution_database_with_attempts(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(database) as connection:
        await first_version(connection, "meshq.execution.postgres", monkeypatch)
        await connection.execute(
            "INSERT INTO attempts (task_id, attempt, outcome, lease_epoch, lease_number, start_ms, end_ms, "
            "tenant, worker_id, success, error) VALUES (%s, 1, 1, 5, 6, 1, 2, 'default', 'w', %s, '')",
            [uuid.UUID(bytes=ENDED.bytes), SPEC],
        )
        await connection.execute("INSERT INTO ring_versions (version) VALUES (1)")
        await connection.execute("INSERT INTO ring_shards VALUES (1, 'shard-1', 'h:1', 2)")
        await connection.execute("SELECT setval('shard_epochs', 5)")
    pools = execution.Database(database)
    await pools.start()
    try:
        key = (ENDED.bytes, 1)
        ended = (await AttemptStore(pools).get([key]))[key]
        assert (ended.outcome, ended.epoch, ended.number, ended.success) == (1, 5, 6, SPEC)
        table = RingTable(pools)
        (shard,) = (await table.load_ring()).shards
        assert (shard.name, shard.address, shard.weight, shard.draining) == ("shard-1", "h:1", 2, False)
        # Shards and leases are those of before.
        assert await table.next_epoch() == 6
        async with connected(database) as connection:
            cursor = await connection.execute("SELECT first_epoch FROM generations")
            assert await cursor.fetchone() == (1,)
    finally:
        await pools.stop()
