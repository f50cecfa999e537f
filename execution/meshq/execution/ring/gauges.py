"""How much each shard holds and does, as metrics."""

from __future__ import annotations

import asyncio
from typing import Final

from prometheus_client import Gauge

from meshq.execution.model import Depth
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shard import Shard
from meshq.execution.ring.shards import Shards
from meshq.mesh.lifecycle import Repeater

_VERSION: Final = Gauge("meshq_ring_version", "The version of the ring that is used here.")
_USABLE: Final = Gauge("meshq_shard_usable", "1 while this instance can use the shard, else 0.", ["shard"])
_SHARE: Final = Gauge("meshq_shard_share", "The part of the keys that the shard owns, 0 to 1.", ["shard"])
_READY: Final = Gauge("meshq_shard_ready", "Tasks that are ready.", ["shard"])
_DELAYED: Final = Gauge("meshq_shard_delayed", "Tasks that wait for their time.", ["shard"])
_LEASED: Final = Gauge("meshq_shard_leased", "Tasks at workers.", ["shard"])
_KEYS: Final = Gauge("meshq_shard_keys", "Keys that the server holds.", ["shard"])
_USED: Final = Gauge("meshq_shard_used_memory_bytes", "Memory in use.", ["shard"])
_MOST: Final = Gauge(
    "meshq_shard_max_memory_bytes", "Memory that the server may use; 0 for no limit.", ["shard"]
)
_OPERATIONS: Final = Gauge("meshq_shard_operations_per_second", "Commands per second.", ["shard"])
_ALL: Final = (_USABLE, _SHARE, _READY, _DELAYED, _LEASED, _KEYS, _USED, _MOST, _OPERATIONS)
_LOOK_SECONDS: Final = 5.0


class Gauges:
    """See the module.

    Args:
        shards: The shards.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._shown: set[str] = set()
        self._repeater = Repeater("gauges", self.run_once, _LOOK_SECONDS)
        self.start = self._repeater.start
        self.stop = self._repeater.stop

    async def run_once(self) -> None:
        """Read all figures."""
        ring = self._shards.ring
        _VERSION.set(ring.version)
        shares = ring.shares()
        shards = self._shards.all()
        for name in self._shown - {shard.name for shard in shards}:
            for gauge in _ALL:
                gauge.remove(name)
        self._shown = {shard.name for shard in shards}
        for shard, held in zip(shards, await asyncio.gather(*map(_held, shards)), strict=True):
            _SHARE.labels(shard.name).set(shares.get(shard.name, 0.0))
            _show(shard, held)


async def _held(shard: Shard) -> Depth | None:
    try:
        return await shard.totals()
    except ShardError:
        return None


def _show(shard: Shard, held: Depth | None) -> None:
    name, load = shard.name, shard.load
    _USABLE.labels(name).set(int(held is not None))
    _KEYS.labels(name).set(load.keys)
    _USED.labels(name).set(load.used_memory)
    _MOST.labels(name).set(load.max_memory)
    _OPERATIONS.labels(name).set(load.operations)
    # What a silent shard holds is not known: the last figures stand.
    for gauge, figure in (
        (_READY, held.ready if held else None),
        (_DELAYED, held.delayed if held else None),
        (_LEASED, held.leased if held else None),
    ):
        if figure is not None:
            gauge.labels(name).set(figure)
