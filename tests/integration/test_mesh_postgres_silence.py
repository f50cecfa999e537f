"""A database that says nothing any more: who waits for it is not kept for long."""

import asyncio
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import psycopg
import pytest
from faults.link import SILENT, Link

from meshq.contract.errors import Unavailable
from meshq.execution.postgres.database import Database
from meshq.mesh.postgres import connection
from meshq.mesh.postgres.connection import OPTIONS, Connection

pytestmark = pytest.mark.slow

SOON = 30.0


@pytest.fixture
async def link(database: str) -> AsyncIterator[Link]:
    """A network to the database that can be broken."""
    async with Link("postgres", urlsplit(database).netloc.rpartition("@")[2]) as link:
        yield link


def led(database: str, link: Link) -> str:
    return database.replace(link.target, link.address)


async def one(found: Connection) -> object:
    return await (await found.execute("SELECT 1")).fetchone()


async def test_a_statement_that_is_not_answered_ends_its_connection(database: str, link: Link) -> None:
    found = await Connection.connect(led(database, link), **OPTIONS)
    await found.look_after()
    found.patience = 0.5
    assert await one(found) == (1,)
    link.impose(SILENT)
    begin = time.monotonic()
    with pytest.raises(psycopg.OperationalError):
        await asyncio.wait_for(one(found), SOON)
    assert time.monotonic() - begin >= 0.5
    assert found.broken


async def test_a_pool_goes_on_when_the_database_is_back(
    database: str, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 1.0)
    pools = Database(led(database, link), size=2)
    await pools.start()
    try:
        link.impose(SILENT)
        for _ in range(4):
            with pytest.raises(Unavailable):
                await asyncio.wait_for(pools.run(one), SOON)
        link.heal()
        async with asyncio.timeout(SOON):
            while True:
                try:
                    assert await pools.run(one) == (1,)
                    break
                except Unavailable:
                    continue
    finally:
        await pools.stop()


async def test_the_server_looks_after_its_clients_as_well(database: str) -> None:
    async with await Connection.connect(database, **OPTIONS) as found:
        await found.look_after()
        for name, value in {"idle": "5", "interval": "2", "count": "3"}.items():
            row = await (await found.execute(f"SHOW tcp_keepalives_{name}".encode())).fetchone()
            assert row == (value,)


async def test_what_waits_for_replicas_is_given_more_time(database: str) -> None:
    async with await Connection.connect(database, **OPTIONS) as found:
        await found.look_after()
        assert found.patience == connection.ANSWER_SECONDS
        try:
            await found.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            await found.execute("SELECT pg_reload_conf()")
            async with asyncio.timeout(SOON):
                while found.patience == connection.ANSWER_SECONDS:
                    await found.look_after()
            assert found.patience == connection.REPLICATED_ANSWER_SECONDS
        finally:
            await found.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await found.execute("SELECT pg_reload_conf()")


async def test_a_server_that_is_no_longer_the_primary_is_left(database: str) -> None:
    pools = Database(database, size=1)
    await pools.start()
    try:
        await pools.run(lambda found: found.execute("SET default_transaction_read_only = on"))
        await pools.run(lambda found: found.execute("CREATE TABLE made (n int)"))
    finally:
        await pools.stop()
