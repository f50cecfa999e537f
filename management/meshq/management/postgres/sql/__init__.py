"""The statements of the ledger, one file each."""

from __future__ import annotations

from importlib import resources
from typing import LiteralString


def statement(name: str) -> LiteralString:
    """The text of `<name>.sql`."""
    file = resources.files("meshq.management.postgres.sql") / f"{name}.sql"
    return file.read_text(encoding="utf-8")
