"""A shard that answers slowly, while the others are well."""

import asyncio
import uuid
from typing import Any

import redis.asyncio as redis
from fixtures.execution import FrameWorker, cluster, wait_until

from meshq.execution.ring.hashring import Ring, key_of_id

_PAUSE_MS = 2_500
_TASKS = 300


def ids_elsewhere(ring: Ring, shard: str) -> list[bytes]:
    """Ids of tasks that belong to other shards."""
    made = (uuid.uuid4().bytes for _ in range(10 * _TASKS))
    return [task_id for task_id in made if ring.owner(key_of_id(task_id)) != shard][:_TASKS]


async def test_a_slow_shard_does_not_hold_up_the_tasks_of_the_others(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(lease_ttl=15.0, delivery_timeout=5.0)
        worker: FrameWorker = await system.worker(instance).connect()
        worker.auto_finish = True
        dispatcher = system.dispatcher(instance)
        await dispatcher.many(60)
        slow: Any
        async with redis.Redis.from_url(f"redis://{shards['shard-1']}") as slow:
            await slow.execute_command("CLIENT", "PAUSE", str(_PAUSE_MS), "ALL")
            paused = asyncio.ensure_future(slow.ping())
            ids = ids_elsewhere(instance.execution.shards.ring, "shard-1")
            await dispatcher.send(*(dispatcher.item(task_id=task_id) for task_id in ids))
            await worker.credit(10)
            await wait_until(lambda: len(set(ids) & system.ledger.ended().keys()) == _TASKS)
            assert not paused.done()
            await paused
        await wait_until(lambda: len(system.ledger.ended()) == _TASKS + 60)
