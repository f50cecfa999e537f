"""A ledger with replicas: what is acknowledged is on them, and a warning where it is not."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from faults.standby import NAME, Standby, base_backup

from meshq.contract.ids import new_task_id
from meshq.local.ports import free_port
from meshq.local.servers import Postgres
from meshq.management.model.claims import Submission
from meshq.management.model.states import State
from meshq.management.model.task import NewTask
from meshq.management.postgres.database import Database
from meshq.management.postgres.ledger import PostgresLedger

pytestmark = pytest.mark.slow

NOW = 1_800_000_000_000
WITHIN = 60.0
WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"

needs_base_backup = pytest.mark.skipif(base_backup() is None, reason="no pg_basebackup beside PostgreSQL")


class Operator:
    """Somebody with a connection of his own, which does not wait for replicas."""

    def __init__(self, connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        self._connection = connection

    async def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query that returns rows."""
        return await (await self._connection.execute(query.encode())).fetchall()

    async def until(self, query: str, done: Callable[[], bool] = lambda: False) -> list[tuple[Any, ...]]:
        """The rows of a query as soon as there are some, or when something else is done."""
        async with asyncio.timeout(WITHIN):
            while not (rows := await self.ask(query)) and not done():  # noqa: ASYNC110 - it asks a server
                await asyncio.sleep(0.02)
        return rows

    async def set_standbys(self, names: str) -> None:
        """Have commits wait for these."""
        await self._connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'".encode())
        await self._connection.execute("SELECT pg_reload_conf()")
        await self.until(f"SELECT 1 WHERE current_setting('synchronous_standby_names') = '{names}'")


@asynccontextmanager
async def operating(url: str) -> AsyncIterator[Operator]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("SET synchronous_commit = local")
        operator = Operator(connection)
        yield operator
        await operator.set_standbys("")


@pytest.fixture
def primary(server_folder: Path) -> Iterator[Postgres]:
    """A PostgreSQL that flushes its commits, and runs."""
    primary = Postgres(server_folder / "primary", free_port())
    primary.start()
    primary.wait_ready()
    yield primary
    primary.stop()


@pytest.fixture
def standby(primary: Postgres, server_folder: Path) -> Iterator[Standby]:
    """Its standby; the test starts it."""
    standby = Standby(server_folder / "standby", free_port(), primary)
    yield standby
    standby.stop()


async def test_what_was_committed_unheard_is_acknowledged_only_when_the_replicas_have_it(
    database: str,
) -> None:
    plain = Database(database, writers=1, readers=1)
    await plain.start()
    await plain.stop()
    pools = Database(database, writers=1, readers=1, patience=WITHIN)
    async with operating(database) as operator:
        await operator.set_standbys("nobody")
        await pools.start()
        try:
            task = NewTask(new_task_id().bytes, "default", "q", "t", State.PENDING, 3, NOW, b"spec")
            ledger = PostgresLedger(pools)
            storing = asyncio.create_task(ledger.insert([Submission([task], None, 0)], NOW))
            ((pid,),) = await operator.until(WAITING)
            # The row can be seen from now on, although no replica has it.
            await operator.ask(f"SELECT pg_terminate_backend({pid})")
            again = await operator.until(f"{WAITING} AND pid <> {pid}", storing.done)
            assert again
            assert not storing.done()
            assert await operator.ask("SELECT count(*) FROM open_tasks") == [(1,)]
            await operator.set_standbys("")
            await asyncio.wait_for(storing, WITHIN)
        finally:
            await operator.set_standbys("")
            await pools.stop()


@needs_base_backup
async def test_asynchronous_replicas_get_a_warning_and_synchronous_ones_none(
    primary: Postgres, standby: Standby
) -> None:
    url = primary.create_database("ledger")
    standby.start()
    standby.wait_ready()
    async with operating(url) as operator:
        await operator.until("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'")
        assert await durability_of(url) == (
            "replicas are asynchronous: synchronous_standby_names is empty",
            False,
        )
        await operator.set_standbys(NAME)
        await operator.until("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
        assert await durability_of(url) == ("replicated", True)


async def durability_of(url: str) -> tuple[str, bool]:
    pools = Database(url, writers=1, readers=1)
    await pools.start()
    await pools.stop()
    assert pools.durability is not None
    return pools.durability.level, pools.durability.sound
