"""The ledger in PostgreSQL, put together."""

from __future__ import annotations

from collections.abc import Callable
from time import time

from meshq.management.postgres.chains import ChainRows
from meshq.management.postgres.changes import Changes
from meshq.management.postgres.database import Database
from meshq.management.postgres.inserts import Inserts
from meshq.management.postgres.keyed import Keyed
from meshq.management.postgres.moves import Moves
from meshq.management.postgres.reads import Reads
from meshq.management.postgres.selections import Selections
from meshq.management.postgres.upkeep import Upkeep


def _now_ms() -> int:
    return int(time() * 1_000)


class PostgresLedger(Inserts, Keyed, Changes, Moves, ChainRows, Reads, Selections, Upkeep):
    """See `meshq.management.ledger.Ledger`.

    Args:
        database: Connected.
        now_ms: The clock: what has left its retention by it is not shown.
    """

    def __init__(self, database: Database, now_ms: Callable[[], int] = _now_ms) -> None:
        Inserts.__init__(self, database)
        Reads.__init__(self, database, now_ms)
