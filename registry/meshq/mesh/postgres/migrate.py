"""Numbered migrations, forward only.

Each file `migrations/NNNN_<what>.sql` is applied once, in a transaction of its own with its number,
under a lock that lets one process migrate at a time. A database that is newer than this code is
refused: code that does not know a table may not write to it.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from meshq.contract.errors import InternalError

_LOCK: Final = 0x6D65_7368_7101
"""A number of our own among PostgreSQL's advisory locks, which count for each database."""

_FILE: Final = re.compile(r"(\d{4})_\w+\.sql")
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS migrations "
    "(number integer PRIMARY KEY, name text NOT NULL, applied_time timestamptz NOT NULL DEFAULT now())"
)


class Migration(NamedTuple):
    """One step."""

    number: int
    name: str
    sql: str


def migrations(package: str) -> list[Migration]:
    """All steps of the package whose folder `migrations` has them, in order."""
    folder = resources.files(package) / "migrations"
    found = [(match, file) for file in folder.iterdir() if (match := _FILE.fullmatch(file.name))]
    return sorted(
        Migration(int(match[1]), file.name, file.read_text(encoding="utf-8")) for match, file in found
    )


async def migrate(connection: AsyncConnection[Any], package: str) -> list[str]:
    """Bring the database up to date.

    Args:
        connection: In autocommit mode, allowed to create tables.
        package: The package whose folder `migrations` has the steps.

    Returns:
        The names of the steps that were applied now.

    Raises:
        InternalError: The database was migrated by newer code.
    """
    await connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
    try:
        return await _apply_missing(connection, migrations(package))
    finally:
        await connection.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


async def _apply_missing(connection: AsyncConnection[Any], steps: list[Migration]) -> list[str]:
    await connection.execute(_TABLE)
    cursor = await connection.execute("SELECT number FROM migrations")
    applied = {number for (number,) in await cursor.fetchall()}
    newest = steps[-1].number
    if applied and max(applied) > newest:
        raise InternalError(
            f"Database {connection.info.dbname} is at migration {max(applied)}, but this version of meshq "
            f"knows only {newest}: run the version that migrated it, or a newer one."
        )
    missing = [step for step in steps if step.number not in applied]
    for step in missing:
        async with connection.transaction():
            await connection.execute(step.sql.encode())
            await connection.execute(
                "INSERT INTO migrations (number, name) VALUES (%s, %s)", [step.number, step.name]
            )
    return [step.name for step in missing]
