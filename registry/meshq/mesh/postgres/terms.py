"""Terms of office: who holds an office of a component, as its database says.

Each time somebody takes an office its row gets the next term. What is written under the office is committed
only while the term is still the row's, so that a former holder who does not know it yet writes nothing more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

from psycopg import AsyncConnection

from meshq.contract.errors import Aborted

T = TypeVar("T")

_TAKE: Final = """
INSERT INTO offices AS o (name, term, holder, take_time, held_until)
VALUES (%(name)s, 1, %(holder)s, clock_timestamp(), clock_timestamp() + %(hold)s * interval '1 second')
ON CONFLICT (name) DO UPDATE SET
    term = o.term + 1, holder = excluded.holder,
    take_time = excluded.take_time, held_until = excluded.held_until
WHERE o.held_until <= clock_timestamp() OR o.holder = excluded.holder
RETURNING o.term
"""
_FREE: Final = """
SELECT FROM offices WHERE name = %(name)s AND held_until > clock_timestamp() AND holder <> %(holder)s
"""
_HOLD: Final = """
UPDATE offices SET held_until = clock_timestamp() + %(hold)s * interval '1 second'
WHERE name = %(name)s AND term = %(term)s
"""
_STANDS: Final = "SELECT FROM offices WHERE name = %(name)s AND term = %(term)s FOR SHARE"


class Run(Protocol):
    """Does something with a connection to the database, again if need be; raises `MeshqError`."""

    async def __call__(self, work: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
        """Return what the work returns."""


class OfficeRow:
    """The row of one office, in the table `offices`; see `meshq.mesh.election.Office`.

    Args:
        run: The database.
        name: The office.
        holder: Who this process is.
    """

    def __init__(self, run: Run, name: str, holder: str) -> None:
        self._run = run
        self._named = {"name": name, "holder": holder}

    async def free(self) -> bool:
        """See `Office.free`."""

        async def work(connection: AsyncConnection[Any]) -> bool:
            return (await connection.execute(_FREE, self._named)).rowcount == 0

        return await self._run(work)

    async def take(self, hold: float) -> int | None:
        """See `Office.take`."""

        async def work(connection: AsyncConnection[Any]) -> int | None:
            row = await (await connection.execute(_TAKE, {**self._named, "hold": hold})).fetchone()
            return int(row[0]) if row else None

        return await self._run(work)

    async def hold(self, term: int, seconds: float) -> bool:
        """See `Office.hold`."""

        async def work(connection: AsyncConnection[Any]) -> bool:
            parameters = {**self._named, "term": term, "hold": seconds}
            return (await connection.execute(_HOLD, parameters)).rowcount == 1

        return await self._run(work)


async def under_term(
    connection: AsyncConnection[Any], name: str, term: int, work: Callable[[], Awaitable[T]]
) -> T:
    """Do something in one transaction, which is committed only while a term stands.

    The term is looked at last, so that nobody who takes the office waits for long.

    Raises:
        Aborted: The office is another's. Nothing was changed.
    """
    async with connection.transaction():
        done = await work()
        cursor = await connection.execute(_STANDS, {"name": name, "term": term})
        if cursor.rowcount != 1:
            raise Aborted(f"Term {term} of the office {name} is over.")
    return done
