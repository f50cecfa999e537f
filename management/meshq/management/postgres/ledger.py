"""The ledger in PostgreSQL, put together."""

from __future__ import annotations

from meshq.management.postgres.database import Database
from meshq.management.postgres.inserts import Inserts
from meshq.management.postgres.moves import Moves
from meshq.management.postgres.reads import Reads
from meshq.management.postgres.upkeep import Upkeep


class PostgresLedger(Inserts, Moves, Reads, Upkeep):
    """See `meshq.management.ledger.Ledger`."""

    def __init__(self, database: Database) -> None:
        Inserts.__init__(self, database)
