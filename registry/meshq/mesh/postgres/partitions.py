"""Partitions by range that come after their rows: what lies in the default partition moves along.

PostgreSQL refuses a partition for which the default one has rows. A range may be wanted only once
such rows are there, so they are moved while the default partition is locked. The table around it
stays open to readers and writers of other partitions.

Whoever waits for such a lock is in the way of everybody who comes later. A backup holds its locks for as
long as it takes, so nothing here waits for longer than a moment: it is tried again later instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection, errors, sql

from meshq.contract.errors import Unavailable

_RETRY_DELAY: Final = 30.0
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('meshq partitions of ' || %s))"
_NO_LONG_WAIT: Final = "SET LOCAL lock_timeout = '300ms'"
_EXISTS: Final = "SELECT to_regclass(%s) IS NOT NULL"
_PARTS: Final = """
SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = %s::regclass
"""
_STEPS: Final = (
    "LOCK TABLE {default} IN ACCESS EXCLUSIVE MODE",
    "CREATE TABLE {part} (LIKE {parent} INCLUDING ALL)",
    # Rows and not columns, so that both tables have to agree about their order.
    """
    WITH moved AS (DELETE FROM {default} WHERE {column} >= {first} AND {column} < {behind} RETURNING *)
    INSERT INTO {part} SELECT * FROM moved
    """,
    "ALTER TABLE {parent} ATTACH PARTITION {part} FOR VALUES FROM ({first}) TO ({behind})",
)


class Range(NamedTuple):
    """A partition.

    Attributes:
        name: The name of its table.
        first: The first value of the partition key in it.
        behind: The value behind its last one.
    """

    name: str
    first: Any
    behind: Any


async def partitions(connection: AsyncConnection[Any], parent: str) -> set[str]:
    """The names of all partitions of a table."""
    return {name for (name,) in await (await connection.execute(_PARTS, [parent])).fetchall()}


async def add_partition(connection: AsyncConnection[Any], parent: str, column: str, part: Range) -> bool:
    """Make a partition, with the rows of its range; whether it is new.

    Args:
        connection: In autocommit mode.
        parent: The table; its default partition is called `<parent>_default`.
        column: The partition key.
        part: The partition.

    Raises:
        Unavailable: Somebody has the table for longer, such as a backup; try again in a while.
    """
    names = {
        "parent": sql.Identifier(parent),
        "default": sql.Identifier(f"{parent}_default"),
        "part": sql.Identifier(part.name),
        "column": sql.Identifier(column),
        "first": sql.Literal(part.first),
        "behind": sql.Literal(part.behind),
    }
    async with _short_of_locks(connection, parent):
        row = await (await connection.execute(_EXISTS, [part.name])).fetchone()
        if row is None or row[0]:
            return False
        for step in _STEPS:
            await connection.execute(sql.SQL(step).format(**names))
    return True


async def drop_partition(connection: AsyncConnection[Any], parent: str, name: str) -> None:
    """Drop a partition with all that is in it, if it is still there; raises as `add_partition`."""
    async with _short_of_locks(connection, parent):
        await connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))


@asynccontextmanager
async def _short_of_locks(connection: AsyncConnection[Any], parent: str) -> AsyncIterator[None]:
    """A transaction that changes a table's partitions, alone and without waiting long for others."""
    try:
        async with connection.transaction():
            await connection.execute(_NO_LONG_WAIT)
            await connection.execute(_LOCK, [parent])
            yield
    except errors.LockNotAvailable:
        raise Unavailable(
            f"The partitions of {parent} are in use, for example by a backup; they are changed later.",
            retry_delay=_RETRY_DELAY,
        ) from None


def outrun(error: Exception) -> bool:
    """Whether a row was refused because its partition came into being while it was on its way.

    It was on its way into the default partition; tried again it finds its place. Of all checks only those
    of partitions have no name.
    """
    return isinstance(error, errors.CheckViolation) and error.diag.constraint_name is None
