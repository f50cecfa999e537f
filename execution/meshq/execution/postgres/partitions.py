"""Keeps the day partitions of the attempts: made ahead of time, dropped whole when they are old."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Final

import psycopg
from psycopg import sql

from meshq.contract.ids import lowest_id
from meshq.execution.postgres.database import Connection, Database
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_INTERVAL: Final = 3_600.0
_DAYS_BACK: Final = 1
_DAYS_AHEAD: Final = 3
_LOCK: Final = 0x6D65_7368_7203
_NAME: Final = re.compile(r"attempts_(\d{8})")
_FORGET: Final = "DELETE FROM attempts_default WHERE end_ms < %s"
_EXISTING: Final = """
SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'attempts'::regclass
"""


class PartitionKeeper:
    """See the module.

    Args:
        database: The execution database.
        retention_days: How many days of attempts are kept; 0 keeps all.
        today: The current day.
    """

    def __init__(
        self,
        database: Database,
        retention_days: int,
        today: Callable[[], dt.date] = lambda: dt.datetime.now(dt.UTC).date(),
    ) -> None:
        self._database = database
        self._retention_days = retention_days
        self._today = today
        self._repeater = Repeater("partitions", self.run_once, _INTERVAL)

    async def start(self) -> None:
        """Make what is needed now, then go on."""
        await self.run_once()
        await self._repeater.start()

    async def stop(self) -> None:
        """Stop looking."""
        await self._repeater.stop()

    async def run_once(self) -> None:
        """Make and drop partitions once."""
        await self._database.run(self._keep)

    async def _keep(self, connection: Connection) -> None:
        await connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        try:
            existing = await _existing(connection)
            today = self._today()
            for offset in range(-_DAYS_BACK, _DAYS_AHEAD + 1):
                day = today + dt.timedelta(days=offset)
                if day not in existing:
                    await _create(connection, day)
            if self._retention_days:
                await self._drop_old(connection, existing, today)
        finally:
            await connection.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])

    async def _drop_old(self, connection: Connection, existing: set[dt.date], today: dt.date) -> None:
        oldest = today - dt.timedelta(days=self._retention_days)
        # The default partition has the ends of tasks that are older than the oldest other one.
        midnight = dt.datetime(oldest.year, oldest.month, oldest.day, tzinfo=dt.UTC)
        await connection.execute(_FORGET, (int(midnight.timestamp() * 1000),))
        for day in sorted(day for day in existing if day < oldest):
            await connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(_name(day))))
            _log.info("attempts dropped", day=day.isoformat())


async def _existing(connection: Connection) -> set[dt.date]:
    rows = await (await connection.execute(_EXISTING)).fetchall()
    matches = (_NAME.fullmatch(name) for (name,) in rows)
    return {dt.datetime.strptime(found[1], "%Y%m%d").date() for found in matches if found}  # noqa: DTZ007


async def _create(connection: Connection, day: dt.date) -> None:
    statement = sql.SQL("CREATE TABLE {} PARTITION OF attempts FOR VALUES FROM ({}) TO ({})").format(
        sql.Identifier(_name(day)), _bound(day), _bound(day + dt.timedelta(days=1))
    )
    try:
        await connection.execute(statement)
    except psycopg.errors.CheckViolation as error:
        # The default partition has rows of that day already; it goes on taking them.
        _log.warning("no partition for a day", day=day.isoformat(), reason=str(error).splitlines()[0])


def _bound(day: dt.date) -> sql.Literal:
    start = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
    return sql.Literal(str(lowest_id(int(start.timestamp() * 1000))))


def _name(day: dt.date) -> str:
    return f"attempts_{day:%Y%m%d}"
