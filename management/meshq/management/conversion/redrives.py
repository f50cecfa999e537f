"""New tasks that make good for ended ones."""

from __future__ import annotations

from typing import Final

from meshq.contract.ids import new_task_id
from meshq.contract.limits import RETENTION_DAYS
from meshq.management.conversion.traits import columns_of, traits_of
from meshq.management.conversion.values import set_time, text_id
from meshq.management.model.queues import QueueSettings
from meshq.management.model.states import State
from meshq.management.model.task import NewTask, Special, TaskRow
from meshq.v1 import task_pb2

_LEFT_OUT: Final = (
    "start_time",
    "start_delay",
    "unique_key",
    "unique_scope",
    "unique_window",
    "unique_policy",
)


def redriven_task(row: TaskRow, settings: QueueSettings, start_ms: int) -> NewTask:
    """A new task with the specification of an old one, but without its start and its unique key.

    Args:
        row: The old task with its specification, in which all defaults are filled in.
        settings: What its queue is set to.
        start_ms: Not before this time; 0 for at once.
    """
    task_id = new_task_id(RETENTION_DAYS.index(settings.retention_days)).bytes
    create_ms = int.from_bytes(task_id[:6], "big")
    ready_ms = max(create_ms, start_ms)
    task = task_pb2.Task.FromString(row.spec or b"")
    for field in _LEFT_OUT:
        task.ClearField(field)
    task.task_id = text_id(task_id)
    set_time(task.create_time, create_ms)
    if ready_ms > create_ms:
        set_time(task.start_time, ready_ms)
    plain = Special(announce_start=row.max_attempts == 1)
    special = columns_of(traits_of(task), row.max_attempts, create_ms, ready_ms) or plain
    return NewTask(
        task_id,
        row.tenant,
        row.queue,
        row.type,
        State.SCHEDULED if ready_ms > create_ms else State.PENDING,
        row.max_attempts,
        ready_ms,
        task.SerializeToString(deterministic=True),
        settings.retention_days,
        special._replace(redriven_from=row.task_id),
    )
