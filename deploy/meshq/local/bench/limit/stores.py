"""The servers of a system, with databases and keyspaces in which nobody else works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from meshq.contract.limits import DEFAULT_RETENTION_DAYS
from meshq.execution.postgres.database import Database as ExecutionDatabase
from meshq.execution.postgres.partitions import PartitionKeeper
from meshq.execution.ring import scripts
from meshq.execution.ring.address import parse_server
from meshq.execution.ring.connection import Connection
from meshq.execution.ring.doorbell import Doorbell
from meshq.execution.ring.hashring import Ring, RingShard
from meshq.execution.ring.shard import Shard, run_script
from meshq.local.bench.limit.calls import INSTANCE, LEASE_MS, RING_VERSION, greeting
from meshq.local.bench.limit.rows import EPOCH
from meshq.local.errors import LocalError
from meshq.local.servers import Postgres
from meshq.local.system import System
from meshq.management.model.retention import leave_days
from meshq.management.postgres.database import Database as LedgerDatabase
from meshq.management.postgres.ledger import PostgresLedger

LANES: Final = 2
"""Statements of a kind that are under way at a time, as many as a management process has by default."""
_DATABASES: Final = ("limit_management", "limit_execution")
_KEYSPACE: Final = 1
"""Of the shards; the system is in 0."""


class ShardConnection(Connection):
    """A connection that sends what is encoded already."""

    def play(self, command: bytes) -> asyncio.Future[Any]:
        """Send a command; returns the reply to come."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        assert self._transport is not None
        self._waiting.append(answer)
        self._transport.write(command)
        return answer


@dataclass(frozen=True, slots=True)
class Stores:
    """Connected stores, empty at first."""

    ledger: LedgerDatabase
    attempts: ExecutionDatabase
    shards: dict[str, ShardConnection]
    ring: Ring

    async def left(self) -> int:
        """How many tasks have not ended, by the ledger's counters and by the shards."""
        open_tasks = await PostgresLedger(self.ledger).open_count()
        depths = [await _shard(name, connection).totals() for name, connection in self.shards.items()]
        return open_tasks + sum(depth.ready + depth.delayed + depth.leased for depth in depths)


@asynccontextmanager
async def open_stores(system: System) -> AsyncIterator[Stores]:
    """Make what is needed on the servers that the system has started, and remove it again."""
    server = next((plan.server for plan in system.plan.processes if isinstance(plan.server, Postgres)), None)
    if server is None or not system.shards:
        raise LocalError("The limit can only be measured on servers that are started here.")
    async with AsyncExitStack() as stack:
        urls = [await _database(stack, server, name) for name in _DATABASES]
        ledger = LedgerDatabase(urls[0], writers=2 * LANES, readers=1)
        await ledger.start()
        stack.push_async_callback(ledger.stop)
        attempts = ExecutionDatabase(urls[1], size=LANES)
        await attempts.start()
        stack.push_async_callback(attempts.stop)
        await _prepare(ledger, attempts)
        shards = {name: await _connect(stack, name, address) for name, address in system.shards.items()}
        ring = Ring(RING_VERSION, [RingShard(name, address) for name, address in system.shards.items()])
        yield Stores(ledger, attempts, shards, ring)


async def _database(stack: AsyncExitStack, server: Postgres, name: str) -> str:
    url = await asyncio.to_thread(server.create_database, name)
    stack.push_async_callback(asyncio.to_thread, server.drop_database, name)
    return url


async def _prepare(ledger: LedgerDatabase, attempts: ExecutionDatabase) -> None:
    """Make the partitions that the components make when they start."""
    await PostgresLedger(ledger).prepare_days(leave_days(now_ms(), [DEFAULT_RETENTION_DAYS]))
    keeper = PartitionKeeper(attempts, _nothing_open, now_ms)
    await keeper.start()


async def _nothing_open(ranges: Any) -> list[bool]:
    return [False] * len(ranges)


async def _connect(stack: AsyncExitStack, name: str, address: str) -> ShardConnection:
    server = parse_server(address)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(ShardConnection, server.host, server.port)
    stack.callback(connection.close)
    await connection.call("HELLO", 3)
    await connection.call("SELECT", _KEYSPACE)
    await connection.call("FLUSHDB")
    stack.push_async_callback(connection.call, "FLUSHDB")
    for script in scripts.ALL:
        await connection.call("SCRIPT", "LOAD", script.text)
    await run_script(
        connection, scripts.OPEN_EPOCH, EPOCH, RING_VERSION, "", "run", "replication", "generation"
    )
    shard = _shard(name, connection)
    await shard.recovered(0, [INSTANCE])
    await shard.greet([greeting()], LEASE_MS)
    return connection


def _shard(name: str, connection: Connection) -> Shard:
    shard = Shard(RingShard(name, ""), INSTANCE, Doorbell())
    shard.ring_version = RING_VERSION
    shard.attach(connection, EPOCH)
    return shard


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1_000)
