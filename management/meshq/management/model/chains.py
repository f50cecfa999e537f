"""Chains: the tasks of a queue with the same ordering key, which run one after the other."""

from __future__ import annotations

from typing import NamedTuple


class ChainKey(NamedTuple):
    """What names a chain."""

    tenant: str
    queue: str
    key: str
