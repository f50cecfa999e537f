"""The statements, one file each.

Rows of tables that fill and empty are found by `c.task_id = ANY (ARRAY[i.task_id])` where `c.task_id =
i.task_id` would say the same, so that PostgreSQL goes by the index also where it takes the table for empty.
"""

from __future__ import annotations

from importlib import resources


def statement(name: str) -> bytes:
    """The text of a statement."""
    return (resources.files("meshq.execution.postgres.sql") / f"{name}.sql").read_bytes()
