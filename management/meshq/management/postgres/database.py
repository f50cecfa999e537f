"""Connections to PostgreSQL: one pool for the hot paths, one for reads.

Both turn off plans that can go wrong while statistics lag behind tables that fill and empty in
seconds; every hot statement has an index that fits. On the hot paths one plan serves all parameters,
since planning the end of a single task takes three times as long as recording it. Statements and idle
transactions have timeouts, so that a stopped process holds no locks for long.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, NamedTuple, TypeVar

import psycopg
from prometheus_client import Gauge
from psycopg import errors
from psycopg_pool import AsyncConnectionPool, PoolClosed, TooManyRequests

from meshq.contract.errors import MeshqError
from meshq.management.ledger import RowsRefused
from meshq.management.lookout import Office
from meshq.management.postgres.errors import refuses_rows, translated, worth_retrying
from meshq.mesh.postgres import arrays
from meshq.mesh.postgres.connection import OPTIONS, RECONNECT_SECONDS, Connection
from meshq.mesh.postgres.migrate import migrate
from meshq.mesh.postgres.terms import under_term
from meshq.mesh.telemetry import logger

_log = logger(__name__)
_DURABLE: Final = Gauge(
    "meshq_ledger_durable",
    "1 while what is accepted survives the loss of the primary, or there is one server.",
)

T = TypeVar("T")

_SLOT_LOCK: Final = 0x6D71_01
_SLOTS: Final = 4_096
_PAUSE: Final = 0.05
_FAILURES: Final = (psycopg.Error, PoolClosed, TooManyRequests)

_SETTINGS: Final = """
SELECT
    set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false),
    set_config('enable_mergejoin', 'off', false), set_config('jit', 'off', false),
    set_config('synchronous_commit', 'on', false), set_config('timezone', 'UTC', false),
    set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false),
    set_config('plan_cache_mode', %s, false),
    set_config('idle_in_transaction_session_timeout', '10s', false)
"""
_TAKE_SLOT: Final = """
SELECT n FROM generate_series(1, %s::integer) AS n WHERE pg_try_advisory_lock(%s::integer, n) LIMIT 1
"""
_NOW: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_DURABILITY: Final = """
SELECT
    current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on',
    current_setting('synchronous_standby_names'),
    (SELECT count(*) FROM pg_stat_replication)
"""


class LedgerConnection(Connection):
    """A connection.

    Attributes:
        slot: The row of the queue counters that this connection writes; 0 where it only reads.
    """

    slot = 0


class Durability(NamedTuple):
    """What a commit survives.

    Attributes:
        level: `local`, `replicated`, or why it is less than promised.
        sound: Whether an acknowledged task survives the loss of the primary, or there is but one server.
    """

    level: str
    sound: bool


class Database:
    """The pools.

    Args:
        url: Where the database is; several hosts may be named, the one that takes writes is used.
        writers: Connections for the hot paths.
        readers: Connections for reads.
        patience: Seconds for which a statement is tried again while the connection breaks.

    Attributes:
        office: What is written is written under this office, if it is set; see `under`.
        durability: What a commit survives, as far as it is known.
    """

    def __init__(self, url: str, *, writers: int, readers: int, patience: float = 2.0) -> None:
        self._url = url
        self._patience = patience
        self._writing = self._pool("ledger-write", writers, self._configure_writer)
        self._reading = self._pool("ledger-read", readers, self._configure_reader)
        self.office: Office | None = None
        self.durability: Durability | None = None

    def under(self, office: Office) -> Database:
        """The same connections, for what is written under an office: only while its term stands."""
        bound = copy.copy(self)
        bound.office = office
        return bound

    async def start(self) -> None:
        """Migrate and connect.

        Raises:
            InternalError: The database was migrated by newer code.
            MeshqError: The database does not answer.
        """
        try:
            async with await self.connect() as connection:
                applied = await migrate(connection, "meshq.management.postgres")
            await self._writing.open(wait=True, timeout=30)
            await self._reading.open(wait=True, timeout=30)
        except _FAILURES as error:
            raise translated(error) from error
        if applied:
            _log.info("ledger migrated", steps=applied)

    async def stop(self) -> None:
        """Close all connections."""
        await self._writing.close()
        await self._reading.close()

    async def connect(self) -> LedgerConnection:
        """A connection outside of the pools, with no timeouts; the caller closes it."""
        connection = await LedgerConnection.connect(self._url, **OPTIONS)
        arrays.register(connection.adapters)
        return connection

    async def write(self, work: Callable[[LedgerConnection, bool], Awaitable[T]]) -> T:
        """Do something on a hot connection.

        Args:
            work: Gets the connection, and whether an earlier try may have been committed unheard.

        Raises:
            RowsRefused: PostgreSQL refused what was in the rows.
            MeshqError: The database does not answer, or the term of the office is over.
        """
        if self.office is not None:
            work = _bound(work, self.office.name, self.office.term)
        return await self._run(self._writing, work)

    async def run(self, work: Callable[[LedgerConnection], Awaitable[T]]) -> T:
        """As `write`, for what may be done twice."""
        return await self.write(lambda connection, _: work(connection))

    async def now_ms(self) -> int:
        """The time of the server, in milliseconds since the epoch; raises `MeshqError`."""

        async def look(connection: LedgerConnection) -> int:
            row = await (await connection.execute(_NOW)).fetchone()
            assert row is not None
            return int(row[0])

        return await self.read(look)

    async def read(self, work: Callable[[LedgerConnection], Awaitable[T]]) -> T:
        """Do something on a reading connection.

        Raises:
            MeshqError: The database does not answer, or takes too long.
        """
        return await self._run(self._reading, lambda connection, _: work(connection))

    async def _run(
        self,
        pool: AsyncConnectionPool[LedgerConnection],
        work: Callable[[LedgerConnection, bool], Awaitable[T]],
    ) -> T:
        deadline = monotonic() + self._patience
        again = False
        while True:
            try:
                async with pool.connection() as connection:
                    done = await _on_primary(connection, work(connection, again))
                    if again:
                        # What was found may be of the first try, of which no replica has heard.
                        await connection.settle()
                heed_cancellation()
                return done  # noqa: TRY300
            except _FAILURES as error:
                if not (worth_retrying(error) and monotonic() < deadline):
                    raise _outcome(error) from error
            again = True
            await asyncio.sleep(_PAUSE)

    def _pool(
        self, name: str, size: int, configure: Callable[[LedgerConnection], Awaitable[None]]
    ) -> AsyncConnectionPool[LedgerConnection]:
        return AsyncConnectionPool(
            self._url,
            connection_class=LedgerConnection,
            kwargs=OPTIONS,
            min_size=size,
            max_size=size,
            timeout=self._patience,
            reconnect_timeout=RECONNECT_SECONDS,
            configure=configure,
            name=name,
            open=False,
        )

    async def _configure_writer(self, connection: LedgerConnection) -> None:
        await self._configure(
            connection, statement_timeout="15s", lock_timeout="10s", plans="force_generic_plan"
        )
        cursor = await connection.execute(_TAKE_SLOT, [_SLOTS, _SLOT_LOCK])
        row = await cursor.fetchone()
        connection.slot = row[0] if row else 0
        await self._look_at_durability(connection)

    async def _configure_reader(self, connection: LedgerConnection) -> None:
        await self._configure(connection, statement_timeout="10s", lock_timeout="2s", plans="auto")

    async def _configure(
        self, connection: LedgerConnection, *, statement_timeout: str, lock_timeout: str, plans: str
    ) -> None:
        await connection.look_after()
        await connection.execute(_SETTINGS, [statement_timeout, lock_timeout, plans])
        arrays.register(connection.adapters)

    async def _look_at_durability(self, connection: LedgerConnection) -> None:
        cursor = await connection.execute(_DURABILITY)
        row = await cursor.fetchone()
        assert row is not None
        found = durability(*row)
        if found == self.durability:
            return
        self.durability = found
        _DURABLE.set(found.sound)
        if found.sound:
            _log.info("ledger durability", level=found.level)
        else:
            _log.warning("ledger durability is less than promised", level=found.level)


def _bound(
    work: Callable[[LedgerConnection, bool], Awaitable[T]], name: str, term: int
) -> Callable[[LedgerConnection, bool], Awaitable[T]]:
    async def bound(connection: LedgerConnection, again: bool) -> T:
        return await under_term(connection, name, term, lambda: work(connection, again))

    return bound


async def _on_primary(connection: LedgerConnection, work: Awaitable[T]) -> T:
    try:
        return await work
    except errors.ReadOnlySqlTransaction:
        # The server is no longer the primary; the pool looks for the one that is.
        await connection.close()
        raise


def heed_cancellation() -> None:
    """End the task if it was cancelled while a statement ran.

    psycopg waits by `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that comes at the
    moment the wait is over; the task would go on for ever, and whoever stops it would wait for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def durability(flushes: bool, standbys: str, replicas: int) -> Durability:
    """The level that PostgreSQL's settings amount to."""
    if not flushes:
        return Durability("commits are not flushed to disk: fsync or full_page_writes is off", sound=False)
    if standbys:
        return Durability("replicated", sound=True)
    if replicas:
        return Durability("replicas are asynchronous: synchronous_standby_names is empty", sound=False)
    return Durability("local", sound=True)


def _outcome(error: Exception) -> RowsRefused | MeshqError:
    if isinstance(error, psycopg.Error) and refuses_rows(error):
        return RowsRefused(str(error))
    outcome = translated(error)
    if not outcome.retryable:
        _log.error("the ledger refused a statement", error=str(error))
    return outcome
