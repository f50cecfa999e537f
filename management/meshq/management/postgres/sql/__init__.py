"""The statements of the ledger, one file each.

What a `TaskRow` or a `Sendable` is made of stands here once: statements write `<open row>` for a row of
open_tasks, which they call `o`, `<finished row>` for one of finished_tasks, called `f`, and `<sendable>` for
a row of open_tasks that is to be dispatched as a repeat.

PostgreSQL takes a table that had no rows when it was last analyzed for empty until it is analyzed again,
however full it is by then, and joins it as if it had one row: it goes over all of the table and looks for
each row in what came with the statement. So rows are found by `o.id = ANY (ARRAY[i.id])` where `o.id = i.id`
would say the same, and chains by an EXISTS with `OFFSET 0`: these leave nothing but the index.
"""

from __future__ import annotations

from importlib import resources
from typing import Final, LiteralString

_COLUMNS: Final[dict[LiteralString, LiteralString]] = {
    "<open row>": """
    uuid_send(o.id), o.tenant, o.queue, o.type, o.state, o.attempt, o.max_attempts, o.ready_ms, o.start_ms,
    NULL::bigint, o.worker_id, o.error_type, o.error_message, o.cancel_reason, o.cancel_ms, o.spared,
    o.unanswered, o.ending, o.ordering_key, o.unique_key, o.labels, uuid_send(o.redriven_from), NULL::bytea,
    o.traits""",
    "<finished row>": """
    uuid_send(f.id), f.tenant, f.queue, f.type, f.state, f.attempt, f.max_attempts, f.ready_ms, f.start_ms,
    f.end_ms, f.worker_id, f.error_type, f.error_message, f.cancel_reason, f.cancel_ms, f.spared,
    0::smallint, NULL::smallint, f.ordering_key, f.unique_key, f.labels, uuid_send(f.redriven_from),
    uuid_send(f.redriven_to), f.traits""",
    "<sendable>": """
    uuid_send(o.id), o.attempt, o.tenant, o.queue, o.type, o.ready_ms, o.priority, o.fairness_key, true,
    o.spec, o.traits, o.start_by_ms, o.announce_start,
    o.state = 4 AND o.announce_start AND o.attempt - o.spared >= o.max_attempts""",
}


def statement(name: str) -> LiteralString:
    """The text of `<name>.sql` with its columns."""
    file = resources.files("meshq.management.postgres.sql") / f"{name}.sql"
    text: LiteralString = file.read_text(encoding="utf-8")
    for mark, columns in _COLUMNS.items():
        text = text.replace(mark, columns)
    return text
