"""Shards that die, come back with old data or none, are emptied, have no memory left, or are slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from faults.cases.network import WIRED
from faults.link import Trouble
from faults.table import Fault, Scene, add

SHARD = "shard-1"
_ROUND_TRIP = 2.0
_LITTLE = 64 << 10


@asynccontextmanager
async def server(scene: Scene, name: str) -> AsyncIterator[Any]:
    """A connection of the test's own to a shard."""
    async with redis.Redis.from_url(f"redis://{scene.system.shards[name]}") as connection:
        yield connection


async def kill_each(scene: Scene) -> None:
    """Kill -9 of one shard after the other, each while the one before is just back."""
    for name in scene.system.shards:
        scene.system.kill(name)
        await scene.system.ended(name)
        await scene.system.wait_ready(name)
        await scene.accepted(100)


async def kill_all(scene: Scene) -> None:
    """Kill -9 of all shards at once."""
    for name in scene.system.shards:
        scene.system.kill(name)


async def back_with_old_data(scene: Scene) -> None:
    """A shard is killed, and comes back with what it held a while ago."""
    async with server(scene, SHARD) as shard:
        folder = Path((await shard.config_get("dir"))["dir"])
        await shard.save()
    await scene.accepted(200)
    scene.system.kill(SHARD)
    await scene.system.ended(SHARD)
    await scene.system.wait_ready(SHARD)
    assert "loaded from disk" in scene.system.logs(SHARD), "the shard has come back without its data"
    (folder / "dump.rdb").unlink()


async def back_empty(scene: Scene) -> None:
    """A shard is stopped, stays away for a while, and comes back with nothing."""
    await scene.system.stop_process(SHARD)
    await asyncio.sleep(scene.seconds(10.0, 1.0))
    await scene.system.start_process(SHARD)


async def flush_all(scene: Scene) -> None:
    """All shards forget everything at once."""

    async def flush(name: str) -> None:
        async with server(scene, name) as shard:
            await shard.flushall()

    await asyncio.gather(*(flush(name) for name in scene.system.shards))


async def out_of_memory(scene: Scene) -> None:
    """No shard may take any more memory; later they may again."""
    for name in scene.system.shards:
        async with server(scene, name) as shard:
            used = (await shard.info("memory"))["used_memory"]
            await shard.config_set("maxmemory", used + _LITTLE)
    await asyncio.sleep(scene.seconds(20.0, 4.0))
    for name in scene.system.shards:
        async with server(scene, name) as shard:
            await shard.config_set("maxmemory", 256 << 20)


async def slow(scene: Scene) -> None:
    """Each call to a shard takes two seconds."""
    WIRED.impose(Trouble(latency=_ROUND_TRIP / 2), (SHARD,))
    await asyncio.sleep(scene.seconds(20.0, 6.0))
    WIRED.heal()
    scene.heal()


add(Fault("kill-each-shard", kill_each))
add(Fault("kill-all-shards", kill_all))
add(Fault("shard-back-with-old-data", back_with_old_data))
add(Fault("shard-back-empty", back_empty))
add(Fault("flush-all-shards", flush_all, often=True))
add(Fault("shards-out-of-memory", out_of_memory))
add(Fault("slow-shard-2s", slow, WIRED))
