"""What a server says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Load(NamedTuple):
    """How busy a server is.

    Attributes:
        keys: Keys that it holds; a waiting task is two.
        used_memory: Bytes.
        max_memory: Bytes that it may use; 0 for no limit.
        operations: Commands per second.
    """

    keys: int = 0
    used_memory: int = 0
    max_memory: int = 0
    operations: float = 0.0


def parse_load(info: Mapping[str, str]) -> Load:
    """Read it from the server's INFO: memory, stats, keyspace."""
    counted = dict(part.partition("=")[::2] for part in info.get("db0", "").split(","))
    return Load(
        int(counted.get("keys", 0)),
        int(info.get("used_memory", 0)),
        int(info.get("maxmemory", 0)),
        float(info.get("instantaneous_ops_per_sec", 0)),
    )
