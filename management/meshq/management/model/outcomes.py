"""Ends of attempts, as execution is asked for them."""

from __future__ import annotations

from typing import NamedTuple

from meshq.management.model.task import TaskId

Key = tuple[TaskId, int]
"""A task and an attempt."""


class Sought(NamedTuple):
    """An end that somebody wants to see.

    Attributes:
        limit_key: Empty for none. With the tenant and the queue it says where the task was.
        end_ms: When the task ended; 0 where that is not known.
    """

    task_id: TaskId
    attempt: int
    tenant: str
    queue: str
    limit_key: str
    end_ms: int

    @property
    def key(self) -> Key:
        """What is asked for."""
        return self.task_id, self.attempt


class Content(NamedTuple):
    """What an attempt left: an encoded `meshq.v1.Success` or `meshq.v1.TaskError`."""

    success: bytes | None
    error: bytes | None
