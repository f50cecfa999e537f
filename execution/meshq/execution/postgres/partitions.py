"""Keeps the partitions of the attempts: made ahead of time, dropped whole when their tasks have left.

Attempts leave with their tasks. A partition goes when the retention of everything that ended on the
days of its creation is over, when its latest end is older than that too, and when management says that
no task of these days needs older ones: none is open that has had an attempt, and none that was cancelled
or has expired since is kept. While management cannot be asked nothing goes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
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
_ROWS_AT_A_TIME: Final = 5_000
_STRAYED: Final = "SELECT id_day(task_id), max(end_ms) FROM {} GROUP BY 1"
_HOLDS: Final = "SELECT EXISTS (SELECT FROM {})"
_HOLDS_YOUNG: Final = "SELECT EXISTS (SELECT FROM {} WHERE end_ms > {})"
_DROP_STRAYED: Final = """
DELETE FROM {default} WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {default}
    WHERE task_id >= {first} AND task_id < {behind} AND end_ms <= {young}
    LIMIT {limit}
))
"""
_IDS_TELL: Final = """
SELECT (extract(epoch FROM applied_time) * 1000)::bigint FROM migrations WHERE name = '0003_retention.sql'
"""


class PartitionKeeper:
    """See the module.

    Args:
        database: The execution database.
        attempted: Asks management for each partition whether a task needs attempts older than its retention.
        now_ms: The clock.
        dropping: The database for what only the instance in office does; the same unless given.
    """

    def __init__(
        self,
        database: Database,
        attempted: Callable[[Sequence[Span]], Awaitable[list[bool]]],
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
        strayed = set(await _strayed(connection, retention))
        recent = {span for span in existing if span.behind > today - _DAYS_BACK}
        used = retention == DEFAULT_RETENTION_DAYS or strayed or await _any_holds(connection, recent)
        return strayed | (spans_of(retention, today - _DAYS_BACK, today + _DAYS_AHEAD) if used else set())

    async def _drop(self) -> None:
        over = await self._database.run(self._over)
        spans = list(over)
        for start in range(0, len(spans), MAX_FRAME_ITEMS):
            asked = spans[start : start + MAX_FRAME_ITEMS]
            needed = await self._attempted(asked)
            for span in (span for span, held in zip(asked, needed, strict=True) if not held):
                await self._drop_span(span, over[span])
                _log.info("attempts dropped", partition=span.name)

    async def _drop_span(self, span: Span, young_ms: int) -> None:
        await self._dropping.run(lambda connection: _drop(connection, span))
        # No other row is deleted for its age. These were too many to be moved, which is an exception.
        step = partial(_drop_strayed, span=span, young_ms=young_ms)
        while await self._dropping.run(step) == _ROWS_AT_A_TIME:
            pass

    async def _over(self, connection: Connection) -> dict[Span, int]:
        """What may go, each with the time behind which ends are too young to go."""
        now_ms = self._now_ms()
        ids_tell_ms = int((await _fetch(connection, _IDS_TELL))[0][0])
        over = {}
        for retention in RETENTION_DAYS:
            existing = await _existing(connection, retention)
            strayed = await _strayed(connection, retention)
            for span in sorted(existing | strayed.keys()):
                young_ms = now_ms - span.kept_ms(ids_tell_ms)
                if not span.over(now_ms, ids_tell_ms) or strayed.get(span, 0) > young_ms:
                    continue
                if span not in existing or not await _holds_young(connection, span, young_ms):
                    over[span] = young_ms
        return over


async def _existing(connection: Connection, retention: int) -> set[Span]:
    names = await partitions(connection, _table(retention))
    return {span for name in names if (span := read_span(name))}


async def _strayed(connection: Connection, retention: int) -> dict[Span, int]:
    """Of what has no partition yet: where it belongs, and the latest end of each."""
    ends: dict[Span, int] = {}
    for day, end_ms in await _fetch(connection, _STRAYED, _default(retention)):
        span = span_of(retention, day)
        ends[span] = max(end_ms, ends.get(span, 0))
    return ends


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


async def _drop_strayed(connection: Connection, span: Span, young_ms: int) -> int:
    first, behind = (task_id.hex() for task_id in span.ids())
    statement = sql.SQL(_DROP_STRAYED).format(
        default=sql.Identifier(_default(span.retention)),
        first=first, behind=behind, young=young_ms, limit=_ROWS_AT_A_TIME,
    )  # fmt: skip
    return (await connection.execute(statement)).rowcount


def _table(retention: int) -> str:
    return f"attempts_{retention}"


def _default(retention: int) -> str:
    return f"{_table(retention)}_default"
