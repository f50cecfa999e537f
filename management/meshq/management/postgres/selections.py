"""What a filter selects: read page by page, counted, or picked to be changed.

Each statement is put together from the parts of the filter that are set, and planned anew each time: which
index serves best depends on how common the queue, the type or the label is.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, LiteralString, NamedTuple

from meshq.contract.ids import lowest_id
from meshq.management.model.states import OPEN, TERMINAL, State
from meshq.management.model.task import Changed, TaskFilter, TaskId, TaskRow
from meshq.management.postgres.database import Database, LedgerConnection
from meshq.management.postgres.sql import statement

_LIST: Final = statement("list_open"), statement("list_finished")
_COUNT: Final = statement("count_open"), statement("count_finished")
_PICK: Final = statement("pick_open"), statement("pick_finished")
_PICK_REDRIVABLE: Final = statement("pick_redrivable")
_LATEST_REDRIVEN: Final = statement("latest_redriven")
_CHANGED: Final = statement("changed_open"), statement("changed_finished")

_HIGHEST: Final = uuid.UUID(bytes=b"\xff" * 16)
_TIMED: Final = frozenset({State.SCHEDULED, State.RETRYING})
_BOTH: Final[LiteralString] = """
    id >= %(lowest)s::uuid AND id < %(highest)s::uuid AND tenant = %(tenant)s::text"""
_QUEUE: Final[LiteralString] = " AND queue = %(queue)s::text"
_TYPE: Final[LiteralString] = " AND type = %(type)s::text"
_LABELS: Final[LiteralString] = " AND labels @> %(labels)s::text[]"
_OPEN_STATES: Final[LiteralString] = "state = ANY (%(open)s::smallint[])"
_NOT_DUE: Final[LiteralString] = "(state = ANY (%(timed)s::smallint[]) AND ready_ms > %(now)s::bigint)"
_DUE: Final[LiteralString] = "(state IN (2, 5) AND ready_ms <= %(now)s::bigint)"
_KEPT: Final[LiteralString] = " AND leave_ms > %(now)s::bigint"
_ENDED_STATES: Final[LiteralString] = " AND state = ANY (%(ended)s::smallint[])"


class Conditions(NamedTuple):
    """A filter as SQL.

    Attributes:
        open: What holds for rows of open_tasks; None when none can be selected.
        ended: The same for finished_tasks.
        parameters: What the conditions refer to.
    """

    open: LiteralString | None
    ended: LiteralString | None
    parameters: dict[str, Any]


def conditions(
    wanted: TaskFilter, now_ms: int, after: TaskId | None = None, before: TaskId | None = None
) -> Conditions:
    """A filter as SQL, between two ids that are not selected themselves."""
    lowest = lowest_id(wanted.min_create_ms or 0)
    highest = _HIGHEST if wanted.max_create_ms is None else lowest_id(wanted.max_create_ms)
    if after is not None:
        lowest = max(lowest, uuid.UUID(int=int.from_bytes(after, "big") + 1))
    if before is not None:
        highest = min(highest, uuid.UUID(bytes=before))
    states = frozenset(wanted.states)
    common = _BOTH + (_QUEUE if wanted.queue else "") + (_TYPE if wanted.type else "")
    common += _LABELS if wanted.labels else ""
    return Conditions(
        common + _open_states(states) if not states or states & OPEN else None,
        common + _KEPT + (_ENDED_STATES if states else "") if not states or states & TERMINAL else None,
        {
            "lowest": lowest,
            "highest": highest,
            "now": now_ms,
            "tenant": wanted.tenant,
            "queue": wanted.queue,
            "type": wanted.type,
            "labels": list(wanted.labels),
            "open": sorted(states & OPEN - _TIMED),
            "timed": sorted(states & _TIMED),
            "ended": sorted(states & TERMINAL),
        },
    )


def _open_states(states: frozenset[int]) -> LiteralString:
    """States as readers see them: what waited for its time is PENDING once that has come."""
    if not states or states >= OPEN:
        return ""
    parts: list[LiteralString] = []
    if states & OPEN - _TIMED:
        parts.append(_OPEN_STATES)
    if states & _TIMED:
        parts.append(_NOT_DUE)
    if State.PENDING in states:
        parts.append(_DUE)
    alternatives: LiteralString = " OR ".join(parts)
    return " AND (" + alternatives + ")"


class Selections:
    """Reads what filters select."""

    def __init__(self, database: Database, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._now_ms = now_ms

    async def list_tasks(self, wanted: TaskFilter, before: TaskId | None, limit: int) -> list[TaskRow]:
        """See `Ledger.list_tasks`."""
        chosen = conditions(wanted, self._now_ms(), before=before)
        ordered: LiteralString = _rows(_LIST, chosen) + " ORDER BY 1 DESC LIMIT %(limit)s::bigint"
        return [TaskRow(*row) for row in await self._select(ordered, {**chosen.parameters, "limit": limit})]

    async def count_tasks(self, wanted: TaskFilter, limit: int) -> int:
        """See `Ledger.count_tasks`."""
        chosen = conditions(wanted, self._now_ms())
        rows = _union(_COUNT, chosen)
        counted: LiteralString = "SELECT count(*) FROM (" + rows + " LIMIT %(limit)s::bigint) AS c"  # noqa: S608
        return int((await self._select(counted, {**chosen.parameters, "limit": limit}))[0][0])

    async def pick_tasks(self, wanted: TaskFilter, after: TaskId, limit: int, *, ended: bool) -> list[TaskId]:
        """See `Ledger.pick_tasks`."""
        chosen = conditions(wanted, self._now_ms(), after=after)
        condition = chosen.ended if ended else chosen.open
        if condition is None:
            return []
        picked = _PICK[ended].replace("<filter>", condition)
        rows = await self._select(picked, {**chosen.parameters, "limit": limit})
        return [task_id for (task_id,) in rows]

    async def pick_redrivable(self, wanted: TaskFilter, after: TaskId, limit: int) -> list[TaskId]:
        """See `Ledger.pick_redrivable`."""
        chosen = conditions(wanted, self._now_ms(), after=after)
        picked = _PICK_REDRIVABLE.replace("<filter>", chosen.ended or "false")
        rows = await self._select(picked, {**chosen.parameters, "limit": limit})
        return [task_id for (task_id,) in rows]

    async def changed_tasks(self, wanted: TaskFilter, since_ms: int, limit: int) -> list[Changed]:
        """See `Ledger.changed_tasks`."""
        chosen = conditions(wanted, self._now_ms())
        ordered: LiteralString = _rows(_CHANGED, chosen) + " ORDER BY 1 LIMIT %(limit)s::bigint"
        parameters = {**chosen.parameters, "since": since_ms, "limit": limit}
        return [Changed(row[0], TaskRow(*row[1:])) for row in await self._select(ordered, parameters)]

    async def _select(self, query: LiteralString, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        async def work(connection: LedgerConnection) -> list[tuple[Any, ...]]:
            cursor = await connection.execute(query, parameters, prepare=False, binary=True)
            return await cursor.fetchall()

        return await self._database.read(work)


async def latest_redriven(connection: LedgerConnection, wanted: TaskFilter, now_ms: int) -> int | None:
    """See `Ledger.redrive_behind`."""
    made = wanted._replace(states=(), min_create_ms=None, max_create_ms=None)
    chosen = conditions(made, now_ms)
    latest = _LATEST_REDRIVEN.replace("<filter>", chosen.open or "false")
    row = await (await connection.execute(latest, chosen.parameters, prepare=False)).fetchone()
    return row[0] if row else None


def _rows(parts: tuple[LiteralString, LiteralString], chosen: Conditions) -> LiteralString:
    """What can be put in order, also where one table alone is read, whose part has an order of its own."""
    union = _union(parts, chosen)
    rows: LiteralString = "SELECT * FROM (" + union + ") AS r"  # noqa: S608
    return rows


def _union(parts: tuple[LiteralString, LiteralString], chosen: Conditions) -> LiteralString:
    """Both tables in one snapshot, so that a task that is moved meanwhile is found once."""
    found: list[LiteralString] = [
        "(" + part.replace("<filter>", condition) + ")"
        for part, condition in zip(parts, chosen[:2], strict=True)
        if condition is not None
    ]
    return " UNION ALL ".join(found)
