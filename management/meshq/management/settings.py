"""The settings of management."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, SecretStr

from meshq.mesh.settings import ProcessSettings


class ManagementSettings(ProcessSettings):
    """See `docs/ledger.md` for what they mean together."""

    component: ClassVar[str] = "meshq.management"

    database_url: SecretStr
    """The PostgreSQL database of the ledger."""
    max_open_tasks: int = Field(5_000_000, ge=1)
    """Above this many open tasks new ones are refused with BACKLOG_FULL."""
    sweep_age: float = Field(5.0, ge=0.1, le=3_600)
    """Seconds for which an open task is left alone before it is compared with the shards."""
    sweep_rate: float = Field(2_000.0, ge=1)
    """Tasks compared per second at most."""
    ledger_writers: int = Field(2, ge=1, le=16)
    """Groups that are written at a time, for each of accepting and finishing."""
    ledger_readers: int = Field(4, ge=1, le=64)
    """Connections for reads."""
