"""The pool of connections to the execution database, and its errors as those of meshq."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, TypeVar

import psycopg
from psycopg import errors
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from meshq.contract.errors import InternalError, MeshqError, Reason, Unavailable
from meshq.mesh.election import Incumbent
from meshq.mesh.postgres import arrays, connection
from meshq.mesh.postgres.migrate import migrate
from meshq.mesh.postgres.partitions import outrun
from meshq.mesh.postgres.terms import under_term
from meshq.mesh.telemetry import logger

_log = logger(__name__)

T = TypeVar("T")
Connection = connection.Connection

_FAILURES: Final = (psycopg.Error, PoolClosed, PoolTimeout, TooManyRequests, OSError)
_BROKEN: Final = (psycopg.OperationalError, psycopg.InterfaceError, errors.ReadOnlySqlTransaction)
_PAUSE: Final = 0.05
_RETRY_DELAY: Final = 1.0
# Plans that scan go wrong on partitions that are fresh and whose statistics say that they are empty. One plan
# serves all parameters: planning again for each call takes longer than most calls, for all the partitions.
_SETTINGS: Final = """
SELECT
    set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false),
    set_config('enable_mergejoin', 'off', false), set_config('jit', 'off', false),
    set_config('plan_cache_mode', 'force_generic_plan', false),
    set_config('synchronous_commit', 'on', false), set_config('timezone', 'UTC', false),
    set_config('statement_timeout', '15s', false), set_config('lock_timeout', '10s', false),
    set_config('idle_in_transaction_session_timeout', '10s', false)
"""


class Database:
    """See the module.

    Args:
        url: Where the database is; of several hosts the one that takes writes is used.
        size: The number of connections.
        patience: Seconds for which a statement is tried again while the connection breaks.

    Attributes:
        office: What is done is done under this office, if it is set; see `under`.
    """

    def __init__(self, url: str, *, size: int = 4, patience: float = 2.0) -> None:
        self._url = url
        self._patience = patience
        self.office: Incumbent | None = None
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            connection_class=Connection,
            kwargs=connection.OPTIONS,
            min_size=size,
            max_size=size,
            timeout=patience,
            reconnect_timeout=connection.RECONNECT_SECONDS,
            configure=_configure,
            name="execution",
            open=False,
        )

    async def start(self) -> None:
        """Migrate and connect; raises `MeshqError` when the database does not answer."""
        try:
            async with await self._connect() as found:
                applied = await migrate(found, "meshq.execution.postgres")
            await self._pool.open(wait=True, timeout=30)
        except _FAILURES as error:
            raise translated(error) from error
        if applied:
            _log.info("execution database migrated", steps=applied)

    async def stop(self) -> None:
        """Close all connections."""
        await self._pool.close()

    def under(self, office: Incumbent) -> Database:
        """The same connections, for what is done under an office: it is undone unless its term stands."""
        bound = copy.copy(self)
        bound.office = office
        return bound

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do something that may be repeated; raises `MeshqError`."""
        if self.office is not None:
            work = _bound(work, self.office.name, self.office.term)
        deadline = monotonic() + self._patience
        again = False
        while True:
            try:
                async with self._pool.connection() as found:
                    done = await _on_primary(found, work(found))
                    if again:
                        # What was found may be of the first try, of which no replica has heard.
                        await found.settle()
                    return done
            except _FAILURES as error:
                if not _worth_retrying(error) or monotonic() > deadline:
                    raise translated(error) from error
            again = True
            await asyncio.sleep(_PAUSE)

    async def _connect(self) -> Connection:
        return await Connection.connect(self._url, **connection.OPTIONS)


def _bound(
    work: Callable[[Connection], Awaitable[T]], name: str, term: int
) -> Callable[[Connection], Awaitable[T]]:
    async def bound(found: Connection) -> T:
        return await under_term(found, name, term, lambda: work(found))

    return bound


async def _on_primary(found: Connection, work: Awaitable[T]) -> T:
    try:
        return await work
    except errors.ReadOnlySqlTransaction:
        # The server is no longer the primary; the pool looks for the one that is.
        await found.close()
        raise


async def _configure(found: Connection) -> None:
    await found.look_after()
    await found.execute(_SETTINGS)
    arrays.register(found.adapters)


def _worth_retrying(error: Exception) -> bool:
    """A broken connection is: after a restart of the server each pooled connection fails once."""
    if isinstance(error, PoolTimeout | PoolClosed | TooManyRequests | errors.QueryCanceled):
        return False
    return isinstance(error, _BROKEN) or outrun(error)


def translated(error: Exception) -> MeshqError:
    """What a caller gets to hear."""
    if isinstance(error, (*_BROKEN, OSError)) or not isinstance(error, psycopg.Error):
        return Unavailable(
            "The database of attempts does not answer; retry.",
            Reason.ATTEMPTS_UNAVAILABLE,
            retry_delay=_RETRY_DELAY,
        )
    _log.error("the execution database refused a statement", error=str(error))
    return InternalError("The database of attempts refused a statement; the log has the reason.")
