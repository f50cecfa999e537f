"""Which instance keeps house."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

import psycopg

from meshq.management.postgres.database import Database, LedgerConnection, heed_cancellation


class HouseDuty:
    """See `Duty`: a lock of the database, held by a connection that is kept open for it.

    When the connection breaks the lock is free, and whoever asks next has it. The two may overlap for
    one step of work, which is harmless: everything that is done under the duty may be done twice.
    """

    _LOCK: Final = 0x6D65_7368_7102
    _TRUSTED_SECONDS: Final = 10.0
    """For how long the lock is believed to be held before the connection is tried again."""
    _ASK_SECONDS: Final = 5.0

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: LedgerConnection | None = None
        self._held = False
        self._trusted_until = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def hold(self) -> bool:
        """See `Duty.hold`."""
        async with self._one_at_a_time:
            if not (self._held and monotonic() < self._trusted_until):
                try:
                    async with asyncio.timeout(self._ASK_SECONDS):
                        await self._ask()
                except TimeoutError:
                    await self.stop()
            return self._held

    async def _ask(self) -> None:
        try:
            if self._connection is None:
                self._connection = await self._database.connect()
            query = "SELECT true" if self._held else f"SELECT pg_try_advisory_lock({self._LOCK})"
            cursor = await self._connection.execute(query)
            row = await cursor.fetchone()
            self._held = bool(row and row[0])
            self._trusted_until = monotonic() + self._TRUSTED_SECONDS
        except psycopg.Error:
            await self.stop()
        heed_cancellation()

    async def start(self) -> None:
        """Nothing to begin: the connection is made when the duty is first asked for."""

    async def stop(self) -> None:
        """Give up the duty."""
        connection, self._connection = self._connection, None
        self._held = False
        if connection is not None:
            await connection.close()
