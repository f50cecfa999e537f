"""Numbered migrations, forward only, while everything runs.

Each file `migrations/NNNN_<what>.sql` is applied once, in a transaction of its own with its number,
under a lock that lets one process migrate at a time.

Old and new code work side by side while a system is upgraded. So a step only adds what older code does
not miss and does not trip over, and says so in its first line. Code that finds such steps of newer code in
its database goes on. A step without that line shuts older code out, which refuses the database then: code
that does not know a table may not write to it.

A step does not wait long for its locks, since whoever waits for a strong one is in the way of everybody who
comes later. It is tried again instead.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import resources
from time import monotonic
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection, errors

from meshq.contract.errors import InternalError, Unavailable
from meshq.mesh.telemetry import logger

_log = logger(__name__)

LOCK: Final = 0x6D65_7368_7101
"""A number of our own among PostgreSQL's advisory locks, which count for each database. Who restores a
database holds it as well."""

_LOOK_SECONDS: Final = 0.1
_COMPLAIN_SECONDS: Final = 5.0
_PATIENCE_SECONDS: Final = 20.0
_PAUSE_SECONDS: Final = 1.0
_RETRY_DELAY: Final = 30.0
_EXPANDS: Final = "-- Older code goes on working."
_FILE: Final = re.compile(r"(\d{4})_\w+\.sql")
_NO_LONG_WAIT: Final = "SET LOCAL lock_timeout = '1s'"
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS migrations "
    "(number integer PRIMARY KEY, name text NOT NULL, applied_time timestamptz NOT NULL DEFAULT now())"
)
# Older code adds rows without it: what it applies it knows, and newer code knows as well.
_HAS_EXPANDS: Final = (
    "SELECT count(*) FROM pg_attribute WHERE attrelid = 'migrations'::regclass AND attname = 'expands'"
)
_ADD_EXPANDS: Final = "ALTER TABLE migrations ADD COLUMN IF NOT EXISTS expands boolean NOT NULL DEFAULT false"


class Migration(NamedTuple):
    """One step.

    Attributes:
        expands: Whether older code goes on working behind it.
    """

    number: int
    name: str
    sql: str
    expands: bool


def migrations(package: str) -> list[Migration]:
    """All steps of the package whose folder `migrations` has them, in order."""
    folder = resources.files(package) / "migrations"
    found = [(match, file) for file in folder.iterdir() if (match := _FILE.fullmatch(file.name))]
    return sorted(_read(int(match[1]), file.name, file.read_text(encoding="utf-8")) for match, file in found)


async def migrate(
    connection: AsyncConnection[Any], package: str, *, patience: float = _PATIENCE_SECONDS
) -> list[str]:
    """Bring the database up to date.

    Args:
        connection: In autocommit mode, allowed to create tables.
        package: The package whose folder `migrations` has the steps.
        patience: Seconds for which a step is tried while others have its tables.

    Returns:
        The names of the steps that were applied now.

    Raises:
        InternalError: The database was migrated by newer code, which shut this one out.
        Unavailable: Somebody has had a table for all that time.
    """
    await _take_turn(connection)
    try:
        return await _apply_missing(connection, migrations(package), monotonic() + patience)
    finally:
        await connection.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


async def _take_turn(connection: AsyncConnection[Any]) -> None:
    """Wait for the lock; not in the database, so that somebody hears of it."""
    complain_at = monotonic() + _COMPLAIN_SECONDS
    while True:
        row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK])).fetchone()
        if row is not None and row[0]:
            return
        if monotonic() > complain_at:
            complain_at = monotonic() + 12 * _COMPLAIN_SECONDS
            _log.info(
                "waiting for another process that migrates or restores the database",
                database=connection.info.dbname,
            )
        await asyncio.sleep(_LOOK_SECONDS)


async def _apply_missing(
    connection: AsyncConnection[Any], steps: list[Migration], deadline: float
) -> list[str]:
    await connection.execute(_TABLE)
    await _persistently(connection, _add_column, deadline)
    cursor = await connection.execute("SELECT number, expands FROM migrations")
    applied = dict(await cursor.fetchall())
    _check_newer(connection.info.dbname, applied, steps)
    missing = [step for step in steps if step.number not in applied]
    for step in missing:
        await _persistently(connection, lambda connection, step=step: _apply(connection, step), deadline)  # type: ignore[misc]
    return [step.name for step in missing]


async def _persistently(
    connection: AsyncConnection[Any], work: Callable[[AsyncConnection[Any]], Awaitable[None]], deadline: float
) -> None:
    """Do something in a transaction that does not wait long for locks; again and again until the deadline."""
    while True:
        try:
            async with connection.transaction():
                await connection.execute(_NO_LONG_WAIT)
                await work(connection)
        except errors.LockNotAvailable:
            if monotonic() > deadline:
                raise Unavailable(
                    f"Database {connection.info.dbname} cannot be migrated while others have its tables, for "
                    f"example a backup or a long transaction; pg_stat_activity names them.",
                    retry_delay=_RETRY_DELAY,
                ) from None
        else:
            return
        await asyncio.sleep(_PAUSE_SECONDS)


async def _add_column(connection: AsyncConnection[Any]) -> None:
    row = await (await connection.execute(_HAS_EXPANDS)).fetchone()
    if row is None or not row[0]:
        await connection.execute(_ADD_EXPANDS)


async def _apply(connection: AsyncConnection[Any], step: Migration) -> None:
    await connection.execute(step.sql.encode())
    await connection.execute(
        "INSERT INTO migrations (number, name, expands) VALUES (%s, %s, %s)",
        [step.number, step.name, step.expands],
    )


def _check_newer(database: str, applied: Mapping[int, bool], steps: Sequence[Migration]) -> None:
    """Look at what newer code has done."""
    newest = steps[-1].number
    newer = {number: expands for number, expands in applied.items() if number > newest}
    if not all(newer.values()):
        raise InternalError(
            f"Database {database} is at migration {max(newer)}, but this version of meshq knows only "
            f"{newest}: run the version that migrated it, or a newer one."
        )
    if newer:
        _log.info("a newer version has migrated the database", database=database, at=max(newer), known=newest)


def _read(number: int, name: str, text: str) -> Migration:
    return Migration(number, name, text, text.startswith(_EXPANDS))
