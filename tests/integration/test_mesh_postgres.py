"""What components share of PostgreSQL: partitions that come and go while others hold the table."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from meshq.contract.errors import Unavailable
from meshq.execution.postgres.database import Database
from meshq.execution.postgres.partitions import PartitionKeeper
from meshq.mesh.postgres.partitions import Range, add_partition, drop_partition, partitions

Connection = psycopg.AsyncConnection[tuple[object, ...]]


@asynccontextmanager
async def connected(database: str) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        yield connection


@asynccontextmanager
async def dumped(database: str, *tables: str) -> AsyncIterator[None]:
    """What a backup does to tables for as long as it takes."""
    async with connected(database) as connection, connection.transaction():
        for table in tables:
            await connection.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE")
        yield


async def test_partitions_do_not_wait_for_a_backup_and_keep_nobody_waiting(database: str) -> None:
    async with connected(database) as connection, connected(database) as writer:
        await connection.execute("CREATE TABLE t (n int) PARTITION BY RANGE (n)")
        await connection.execute("CREATE TABLE t_default PARTITION OF t DEFAULT")
        await connection.execute("CREATE TABLE t_old PARTITION OF t FOR VALUES FROM (0) TO (10)")
        await writer.execute("SET lock_timeout = '10s'")
        async with dumped(database, "t"):
            for _ in range(3):
                with pytest.raises(Unavailable, match="partitions of t are in use"):
                    await add_partition(connection, "t", "n", Range("t_new", 10, 20))
                with pytest.raises(Unavailable, match="partitions of t are in use"):
                    await drop_partition(connection, "t", "t_old")
                begin = time.monotonic()
                await writer.execute("INSERT INTO t VALUES (5), (15)")
                assert time.monotonic() - begin < 5
        assert await add_partition(connection, "t", "n", Range("t_new", 10, 20))
        await drop_partition(connection, "t", "t_old")
        assert await partitions(connection, "t") == {"t_default", "t_new"}
        cursor = await connection.execute("SELECT count(*) FROM t_new")
        assert await cursor.fetchone() == (3,)


async def test_an_instance_starts_while_a_backup_is_made(database: str) -> None:
    pools = Database(database)
    await pools.start()

    async def nothing_open(ranges: object) -> list[bool]:
        raise AssertionError(ranges)

    keeper = PartitionKeeper(pools, nothing_open, lambda: int(time.time() * 1_000))
    try:
        async with dumped(database, "attempts"):
            await keeper.start()
        async with connected(database) as connection:
            assert await partitions(connection, "attempts_7") == {"attempts_7_default"}
            await keeper.run_once()
            assert len(await partitions(connection, "attempts_7")) > 3
    finally:
        await keeper.stop()
        await pools.stop()
