"""The statements, one file each."""

from __future__ import annotations

from importlib import resources


def statement(name: str) -> bytes:
    """The text of a statement."""
    return (resources.files("meshq.execution.postgres.sql") / f"{name}.sql").read_bytes()
