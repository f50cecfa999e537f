"""The statements and script calls of a frame, taken from the code that makes them in the system."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, cast

from meshq.contract.limits import MAX_FRAME_BYTES
from meshq.execution.postgres.attempts import AttemptStore
from meshq.execution.postgres.database import Database as ExecutionDatabase
from meshq.execution.ring import keys
from meshq.execution.ring.connection import Connection
from meshq.execution.ring.doorbell import Doorbell
from meshq.execution.ring.hashring import RingShard
from meshq.execution.ring.shard import Owner, Shard
from meshq.local.bench.limit.rows import EPOCH, TENANT, WORKER, Frame, Part
from meshq.management.postgres.database import Database as LedgerDatabase
from meshq.management.postgres.inserts import Inserts
from meshq.management.postgres.moves import Moves

INSTANCE: Final = "bench-execution"
SESSION: Final = f"{INSTANCE}/1"
LEASE_MS: Final = 600_000
RING_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with its encoded parameters."""

    query: Any
    parameters: Any
    binary: bool

    async def play(self, connection: Any) -> Any:
        """Execute it as the component does; returns the cursor."""
        parameters = self.parameters
        if isinstance(parameters, Mapping):
            # The counters' row is that of the connection.
            parameters = {**parameters, "slot": connection.slot}
        return await connection.execute(self.query, parameters, prepare=True, binary=self.binary)


@dataclass(frozen=True, slots=True)
class PartCalls:
    """What one shard is sent for a frame, as bytes, and which leases it must make."""

    enqueue: bytes
    lease: bytes
    received: bytes
    apply: bytes
    leased: list[bytes]


@dataclass(frozen=True, slots=True)
class FrameCalls:
    """What all stores are sent for a frame."""

    tasks: int
    create: Statement
    record: Statement
    finish: Statement
    parts: Mapping[str, PartCalls]


class _Statements:
    """Stands for a pool of connections, and for one of them that says nothing."""

    slot = 0
    rowcount = 0

    def __init__(self) -> None:
        self.taken: list[Statement] = []

    async def write(self, work: Callable[[Any, bool], Awaitable[Any]]) -> Any:
        return await work(self, False)

    async def run(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        return await work(self)

    async def execute(self, query: Any, parameters: Any, *, prepare: bool, binary: bool = False) -> Self:
        if not prepare:
            raise ValueError("a statement of the hot path must be prepared")
        self.taken.append(Statement(query, parameters, binary))
        return self

    async def fetchall(self) -> list[Any]:
        return []


class _Commands(asyncio.Transport):
    """Stands for a server: keeps what it is sent and answers always the same.

    Attributes:
        connection: To it.
        reply: The answer, as it comes over the wire.
    """

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[bytes] = []
        self.reply = b""
        self.connection = Connection()
        self.connection.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.taken.append(bytes(data))
        asyncio.get_running_loop().call_soon(self.connection.data_received, self.reply)


async def calls_of(frame: Frame) -> FrameCalls:
    """Let the components' code make the statements and the calls of a frame."""
    statements = _Statements()
    ledger, attempts = cast(LedgerDatabase, statements), cast(ExecutionDatabase, statements)
    await Inserts(ledger).insert([frame.submission], frame.now_ms)
    await AttemptStore(attempts).insert(frame.ended)
    await Moves(ledger).finish_quietly(frame.finishes, frame.now_ms)
    create, record, finish = statements.taken
    parts = {name: await _part_calls(name, part) for name, part in frame.parts.items()}
    return FrameCalls(len(frame.ended), create, record, finish, parts)


async def _part_calls(name: str, part: Part) -> PartCalls:
    commands = _Commands()
    shard = Shard(RingShard(name, ""), INSTANCE, Doorbell())
    shard.ring_version = RING_VERSION
    shard.attach(commands.connection, EPOCH)
    count = len(part.items)
    commands.reply = b"*3\r\n:-1\r\n*0\r\n*0\r\n"
    await shard.enqueue(part.items)
    commands.reply = b"*3\r\n:0\r\n$0\r\n\r\n:-1\r\n"
    await shard.lease(
        [Owner(SESSION, WORKER, count)],
        [keys.class_of(part.items[0].lane)],
        wanted=count,
        wanted_bytes=MAX_FRAME_BYTES,
        lease_ms=LEASE_MS,
        session_ms=LEASE_MS,
    )
    commands.reply = b"*0\r\n"
    await shard.received([(lease, SESSION) for lease in part.leases])
    commands.reply = b":-1\r\n"
    await shard.apply(part.directives)
    enqueue, lease, received, apply = commands.taken
    return PartCalls(enqueue, lease, received, apply, [lease.task_id for lease in part.leases])


def greeting() -> tuple[str, str, bytes]:
    """The session that holds the leases, as a shard is told of it."""
    return SESSION, f"{TENANT}/{WORKER}", b"bench"
