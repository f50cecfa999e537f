"""Clocks that jump: of one process or of all shards, ahead or back, and right again.

Workers are left out: nothing is decided by their clocks, but the checker reads when their handlers ran.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from faults.clock import COMPILER, Clocks
from faults.table import Fault, Scene, add

CLOCKS = Clocks()
_HOUR = 3_600.0


@dataclass(frozen=True)
class Jump:
    """Clocks are wrong for a while.

    Attributes:
        seconds: How far ahead they go; negative for back.
        names: Whose.
    """

    seconds: float
    names: Collection[str]

    async def __call__(self, scene: Scene) -> None:
        """Turn them, wait, and set them right."""
        CLOCKS.turn(self.seconds, self.names)
        await asyncio.sleep(scene.seconds(20.0, 4.0))
        CLOCKS.turn(0.0, self.names)
        scene.heal()


SHARDS = ("shard-1", "shard-2", "shard-3")
if COMPILER is not None:
    for _name in ("management-1", "execution-1", "shard-1"):
        # What waits on a shard for its time has only the shard's clock.
        _early = frozenset({"too early"}) if _name == "shard-1" else frozenset[str]()
        _often = _name == "management-1"
        add(Fault(f"clock-ahead-{_name}", Jump(_HOUR, (_name,)), CLOCKS, exempt=_early, often=_often))
        add(Fault(f"clock-back-{_name}", Jump(-_HOUR, (_name,)), CLOCKS))
    add(Fault("clock-ahead-all-shards", Jump(_HOUR, SHARDS), CLOCKS, exempt=frozenset({"too early"})))
