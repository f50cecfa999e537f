"""Whether a filter selects a task, as `meshq.management.postgres.selections` says it in SQL."""

from __future__ import annotations

from meshq.contract.ids import lowest_id
from meshq.management.model.task import TaskFilter, TaskRow, shown_state


def selects(wanted: TaskFilter, row: TaskRow, now_ms: int) -> bool:
    """Whether a filter selects a task as it stands now."""
    return (
        row.tenant == wanted.tenant
        and (not wanted.queue or row.queue == wanted.queue)
        and (not wanted.type or row.type == wanted.type)
        and (not wanted.states or shown_state(row.state, row.ready_ms, now_ms) in wanted.states)
        and (not wanted.labels or set(wanted.labels).issubset(row.labels or ()))
        and (wanted.min_create_ms is None or row.task_id >= lowest_id(wanted.min_create_ms).bytes)
        and (wanted.max_create_ms is None or row.task_id < lowest_id(wanted.max_create_ms).bytes)
    )
