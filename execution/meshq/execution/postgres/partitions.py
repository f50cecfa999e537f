"""Keeps the partitions of the attempts: made ahead of time, dropped whole when their tasks have left.

Attempts leave with their tasks. A partition goes when the retention of everything that ended on the
days of its creation is over, when its latest end is older than that too, and when management says that
no task of these days is open that has had an attempt. While management cannot be asked nothing goes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

from meshq.contract.errors import MeshqError, Unavailable
from meshq.contract.limits import DEFAULT_RETENTION_DAYS, MAX_FRAME_ITEMS, RETENTION_DAYS
from meshq.execution.postgres.database import Connection, Database
from meshq.execution.spans import DAY_MS, Span, read_span, span_of, spans_of
from meshq.mesh.postgres.partitions import Range, add_partition, drop_partition, partitions
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_DAYS_BACK: Final = 1
_DAYS_AHEAD: Final = 3
_STRAYED: Final = "SELECT DISTINCT id_day(task_id) FROM {}"
_HOLDS: Final = "SELECT EXISTS (SELECT FROM {})"
_HOLDS_YOUNG: Final = "SELECT EXISTS (SELECT FROM {} WHERE end_ms > {})"
_IDS_TELL: Final = """
SELECT (extract(epoch FROM applied_time) * 1000)::bigint FROM migrations WHERE name = '0003_retention.sql'
"""

Ids = tuple[bytes, bytes]
"""The first id of a range, and the one behind its last."""


class PartitionKeeper:
    """See the module.

    Args:
        database: The execution database.
        attempted: Asks management for each range of ids whether a task is open that has had an attempt.
        now_ms: The clock.
        dropping: The database for what only the instance in office does; the same unless given.
    """

    def __init__(
        self,
        database: Database,
        attempted: Callable[[Sequence[Ids]], Awaitable[list[bool]]],
        now_ms: Callable[[], int],
        *,
        dropping: Database | None = None,
    ) -> None:
        self._database = database
        self._dropping = dropping or database
        self._attempted = attempted
        self._now_ms = now_ms
        self._tried: set[Span] = set()

    async def start(self) -> None:
        """Make what is needed now, as far as it can be; from then on the instance in office does."""
        await self._ahead()

    async def stop(self) -> None:
        """Nothing runs."""

    async def run_once(self) -> None:
        """Make and drop partitions once."""
        await self._ahead()
        try:
            await self._drop()
        except MeshqError as error:
            _log.info("partitions of attempts not dropped yet", reason=error.message)

    async def _ahead(self) -> None:
        """Make partitions. What ends before they are there goes into the default one, and is moved later."""
        try:
            await self._prepare()
        except MeshqError as error:
            _log.info("partitions of attempts postponed", reason=error.message)

    async def _prepare(self) -> None:
        for retention in RETENTION_DAYS:
            await self._prepare_retention(retention)

    async def _prepare_retention(self, retention: int) -> None:
        async def work(connection: Connection) -> tuple[set[Span], set[Span]]:
            existing = await _existing(connection, retention)
            return existing, await self._wanted(connection, retention, existing)

        existing, wanted = await self._database.run(work)
        for span in sorted(wanted - existing - self._tried):
            # Moving locks; what was too much once is not tried each time.
            self._tried.add(span)
            try:
                await self._database.run(lambda connection, span=span: _add(connection, span))  # type: ignore[misc]
            except Unavailable:
                self._tried.discard(span)
                raise

    async def _wanted(self, connection: Connection, retention: int, existing: set[Span]) -> set[Span]:
        """The days ahead where the retention is in use, and those that were in use before it was known."""
        today = self._now_ms() // DAY_MS
        strayed = {
            span_of(retention, row[0])
            for row in await _fetch(connection, _STRAYED, f"{_table(retention)}_default")
        }
        recent = {span for span in existing if span.behind > today - _DAYS_BACK}
        used = retention == DEFAULT_RETENTION_DAYS or strayed or await _any_holds(connection, recent)
        return strayed | (spans_of(retention, today - _DAYS_BACK, today + _DAYS_AHEAD) if used else set())

    async def _drop(self) -> None:
        over = await self._database.run(self._over)
        for start in range(0, len(over), MAX_FRAME_ITEMS):
            asked = over[start : start + MAX_FRAME_ITEMS]
            open_tasks = await self._attempted([span.ids() for span in asked])
            for span in (span for span, held in zip(asked, open_tasks, strict=True) if not held):
                await self._dropping.run(lambda connection, span=span: _drop(connection, span))  # type: ignore[misc]
                _log.info("attempts dropped", partition=span.name)

    async def _over(self, connection: Connection) -> list[Span]:
        now_ms = self._now_ms()
        ids_tell_ms = int((await _fetch(connection, _IDS_TELL))[0][0])
        over = []
        for retention in RETENTION_DAYS:
            for span in sorted(await _existing(connection, retention)):
                young_ms = now_ms - span.kept_ms(ids_tell_ms)
                if span.over(now_ms, ids_tell_ms) and not await _holds_young(connection, span, young_ms):
                    over.append(span)
        return over


async def _existing(connection: Connection, retention: int) -> set[Span]:
    names = await partitions(connection, _table(retention))
    return {span for name in names if (span := read_span(name))}


async def _any_holds(connection: Connection, spans: set[Span]) -> bool:
    for span in sorted(spans, reverse=True):
        if (await _fetch(connection, _HOLDS, span.name))[0][0]:
            return True
    return False


async def _holds_young(connection: Connection, span: Span, since_ms: int) -> bool:
    statement = sql.SQL(_HOLDS_YOUNG).format(sql.Identifier(span.name), sql.Literal(since_ms))
    row = await (await connection.execute(statement)).fetchone()
    return bool(row and row[0])


async def _fetch(connection: Connection, query: Any, *tables: str) -> list[tuple[Any, ...]]:
    statement = sql.SQL(query).format(*map(sql.Identifier, tables))
    return await (await connection.execute(statement)).fetchall()


async def _add(connection: Connection, span: Span) -> None:
    first, behind = (sql_id.hex() for sql_id in span.ids())
    try:
        await add_partition(connection, _table(span.retention), "task_id", Range(span.name, first, behind))
    except psycopg.errors.QueryCanceled as error:
        _log.warning("attempts stay in the default partition", partition=span.name, reason=str(error))


async def _drop(connection: Connection, span: Span) -> None:
    await drop_partition(connection, _table(span.retention), span.name)


def _table(retention: int) -> str:
    return f"attempts_{retention}"
