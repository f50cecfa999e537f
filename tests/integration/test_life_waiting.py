"""What tasks wait for while their shards are full, or begin anew: as callers are told of it."""

from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from fixtures.life import Life, attempts, life
from fixtures.management import until
from redis.asyncio import Redis

from meshq.execution.ring.shard import ShardState
from meshq.v1 import task_pb2
from meshq.v1 import task_service_pb2 as pb
from meshq.v1.queue_service_pb2 import CreateQueueRequest, Queue, QueueLimits

__all__ = ["attempts"]

IN_LINE = task_pb2.WAITING_REASON_IN_LINE
NO_WORKER = task_pb2.WAITING_REASON_NO_WORKER
RECOVERING = task_pb2.WAITING_REASON_SHARD_RECOVERING
DISPATCHING = task_pb2.WAITING_REASON_DISPATCHING
SUCCEEDED = task_pb2.TASK_STATE_SUCCEEDED


@pytest.fixture
async def system(database: str, attempts: str, shards: dict[str, str]) -> AsyncIterator[Life]:
    async with life(database, attempts, shards, lease_ttl=120) as running:
        yield running


async def waits_for(
    system: Life, task: task_pb2.Task, reason: task_pb2.WaitingReason.ValueType
) -> task_pb2.TaskWaiting:
    """Wait until that is what it waits for."""

    async def found() -> task_pb2.TaskWaiting | None:
        is_now = (await system.management.nodes[0].get(task.task_id)).waiting
        return is_now if is_now.reason == reason else None

    told: task_pb2.TaskWaiting = await until(found, task_pb2.WaitingReason.Name(reason))
    return told


async def listed(system: Life) -> dict[str, int]:
    """The reasons in a list, by task."""
    tasks = (await system.management.nodes[0].tasks.ListTasks(pb.ListTasksRequest())).tasks
    return {task.task_id: task.waiting.reason for task in tasks}


async def succeeded(system: Life, *tasks: task_pb2.Task) -> bool:
    node = system.management.nodes[0]
    return all([(await node.get(task.task_id)).state == SUCCEEDED for task in tasks])


async def test_a_task_is_on_its_way_while_the_shards_are_full(system: Life, shards: dict[str, str]) -> None:
    node = system.management.nodes[0]
    known = system.execution.instances[0].execution.shards.all()
    there = await node.create()
    await waits_for(system, there, NO_WORKER)
    await set_memory(shards, full=True)
    await until(lambda: all(shard.full for shard in known), "full shards")
    task = await node.create()
    told = await waits_for(system, task, DISPATCHING)
    assert told.message == "It is on its way to its shard."
    assert await listed(system) == {task.task_id: DISPATCHING, there.task_id: NO_WORKER}
    await set_memory(shards, full=False)
    await waits_for(system, task, NO_WORKER)
    await system.worker(finish=True)
    await until(lambda: succeeded(system, there, task))


async def set_memory(shards: dict[str, str], *, full: bool) -> None:
    for address in shards.values():
        async with Redis.from_url(f"redis://{address}") as server:
            used = (await server.info("memory"))["used_memory"]
            await server.config_set("maxmemory", int(used * 1.1) if full else 0)


async def test_a_task_waits_for_its_shard_to_recover(system: Life, shards: dict[str, str]) -> None:
    node, instance = system.management.nodes[0], system.execution.instances[0]
    limits = QueueLimits(max_running=1)
    await node.queues.CreateQueue(CreateQueueRequest(queue=Queue(queue="narrow", limits=limits)))
    plain = await node.create()
    await waits_for(system, plain, NO_WORKER)
    # Another instance is alive and has not adopted what its sessions run: the shards wait for it.
    system.execution.peers.instances["e-late"] = SimpleNamespace(address="127.0.0.1:1")
    for address in shards.values():
        async with Redis.from_url(f"redis://{address}") as server:
            await server.flushall()
    told = await waits_for(system, plain, RECOVERING)
    assert told.message == "Its shard is being compared with the ledger."
    assert (await listed(system))[plain.task_id] == RECOVERING
    # What is new is queued, and what has limits waits on the shard until all that runs is counted.
    queues = ["default", "narrow"]
    await system.worker(credit=0, queues=queues)
    new, limited = await node.create(), await node.create(queue="narrow")
    await waits_for(system, new, IN_LINE)
    await waits_for(system, limited, RECOVERING)
    assert sum([(await shard.totals()).ready for shard in instance.execution.shards.all()]) == 2
    assert all(shard.state is ShardState.RECOVERING for shard in instance.execution.shards.all())
    del system.execution.peers.instances["e-late"]
    await waits_for(system, plain, IN_LINE)
    await waits_for(system, limited, IN_LINE)
    await system.worker(finish=True, worker_id="w-2", queues=queues)
    await until(lambda: succeeded(system, plain, new, limited))
