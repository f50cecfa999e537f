"""Processes that are killed, once and again and again, and components that are asked to stop."""

from __future__ import annotations

import redis.asyncio as redis
from faults.table import Act, Fault, Scene, add

COMPONENTS = ("management-1", "execution-1", "worker-1", "worker-2", "registry", "gateway")
SERVERS = ("shard-1", "etcd", "postgres")
OFTEN = frozenset({"management-1", "execution-1", "registry", "gateway", "shard-1", "postgres"})
LOOPS = ("management-1", "execution-1", "gateway", "worker-1")
ROUNDS, SHORT_ROUNDS = 6, 3


def kill(name: str) -> Act:
    """Kill -9; the supervisor starts it again."""

    async def act(scene: Scene) -> None:
        scene.system.kill(name)

    return act


def terminate(name: str) -> Act:
    """What a rolling restart does to one process."""

    async def act(scene: Scene) -> None:
        scene.system.terminate(name)

    return act


def crash_loop(name: str) -> Act:
    """Whenever it is back, it is killed again."""

    async def act(scene: Scene) -> None:
        for number in range(int(scene.seconds(ROUNDS, SHORT_ROUNDS))):
            if number:
                await scene.system.wait_ready(name)
            scene.system.kill(name)
            await scene.system.ended(name)

    return act


async def wipe_shard(scene: Scene) -> None:
    """All that a shard knows is gone at once."""
    async with redis.Redis.from_url(f"redis://{scene.system.shards['shard-2']}") as shard:
        await shard.flushall()


for _name in (*COMPONENTS, *SERVERS):
    add(Fault(f"kill-{_name}", kill(_name), often=_name in OFTEN))
for _name in COMPONENTS[:-3] + COMPONENTS[-2:]:
    add(Fault(f"terminate-{_name}", terminate(_name)))
for _name in LOOPS:
    add(Fault(f"crash-loop-{_name}", crash_loop(_name)))
add(Fault("wipe-shard", wipe_shard, often=True))
