"""A shard that Sentinels watch over fails over to its replica."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from faults.stage import Setup
from faults.table import Fault, Scene, add
from fixtures.execution import wait_until
from fixtures.sentinels import PRIMARY, Member, WatchedShard, ask, watched_shard

from meshq.execution.ring import keys
from meshq.local.plan import SystemPlan
from meshq.local.system import System

_SHARD = "shard-1"
_WITHIN = 60.0


@dataclass(frozen=True)
class Watched(Setup):
    """The first shard is one that three Sentinels watch over, with a replica.

    Attributes:
        shards: It, while the system runs.
    """

    shards: list[WatchedShard] = field(default_factory=list, compare=False)

    def shape(self, plan: SystemPlan) -> SystemPlan:
        """Start no server for the shard, and tell whoever looks for it to ask the Sentinels."""
        former = f"{_SHARD}={plan.shards[_SHARD]}"
        now = f"{_SHARD}={self.shards[-1].address}"
        processes = []
        for process in plan.processes:
            listed = process.environment.get("MESHQ_SHARDS", "").replace(former, now)
            environment = {**process.environment, **({"MESHQ_SHARDS": listed} if listed else {})}
            if process.name != _SHARD:
                processes.append(replace(process, environment=environment))
        others = {name: address for name, address in plan.shards.items() if name != _SHARD}
        return replace(plan, processes=tuple(processes), shards=others)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[System]:
        """The servers of the shard are there before the system and after it."""
        with tempfile.TemporaryDirectory() as folder, watched_shard(Path(folder) / "watched") as shard:
            await wait_until(shard.complete, "Sentinels that know everybody", _WITHIN)
            self.shards.append(shard)
            async with super().open() as system:
                yield system


_WATCHED = Watched()


async def _moved(shard: WatchedShard, before: Member, epoch: str) -> None:
    """Wait until another server is the primary, and the ring uses it."""
    await wait_until(lambda: shard.primary() is not before, "another primary", _WITHIN)
    await wait_until(lambda: _epoch(shard.primary()) != epoch, "a new epoch", _WITHIN)


def _epoch(server: Member) -> str:
    return str(ask(server, "HGET", keys.META, "epoch"))


async def kill_primary(scene: Scene) -> None:
    """Kill -9 of the primary, and of its successor when the first has come back as its replica."""
    shard = _WATCHED.shards[-1]
    for again in (False,) if scene.short else (False, True):
        if again:
            await wait_until(shard.complete, "a replica again", _WITHIN)
        primary = shard.primary()
        epoch = _epoch(primary)
        scene.history.mark(f"the primary {primary.address} is killed")
        primary.kill()
        await _moved(shard, primary, epoch)
        primary.start()
    scene.heal()
    await scene.accepted(100)


async def fail_over(scene: Scene) -> None:
    """Make the replica the primary while both are well, as for an upgrade of the server."""
    shard = _WATCHED.shards[-1]
    for again in (False, True):
        if again:
            await wait_until(shard.complete, "a replica again", _WITHIN)
        primary = shard.primary()
        epoch = _epoch(primary)
        scene.history.mark(f"{primary.address} hands over")
        await asyncio.to_thread(ask, shard.sentinels[0], "SENTINEL", "FAILOVER", PRIMARY)
        await _moved(shard, primary, epoch)
    scene.heal()
    await scene.accepted(100)


add(Fault("sentinel-kill-primary", kill_primary, _WATCHED, often=True))
add(Fault("sentinel-fail-over", fail_over, _WATCHED))
