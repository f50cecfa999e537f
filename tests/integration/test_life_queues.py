"""What is set of queues, in force: management and execution together, on real shards and databases."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fixtures.execution import FrameWorker, polled
from fixtures.life import Life, attempts, leased_at, life
from fixtures.management import Node, until
from google.protobuf.field_mask_pb2 import FieldMask

from meshq.v1 import task_pb2, task_service_pb2
from meshq.v1.queue_service_pb2 import (
    CreateQueueRequest,
    GetQueueRequest,
    PauseQueueRequest,
    PurgeQueueRequest,
    Queue,
    QueueLimits,
    ResumeQueueRequest,
    UpdateQueueRequest,
)

__all__ = ["attempts"]


@pytest.fixture
async def system(database: str, attempts: str, shards: dict[str, str]) -> AsyncIterator[Life]:
    async with life(database, attempts, shards, nodes=2, instances=2) as running:
        nodes = running.management.nodes
        await until(lambda: all(len(node.management.configuring.links()) == 2 for node in nodes), "links")
        yield running


async def create(node: Node, count: int, **fields: Any) -> None:
    tasks = [task_pb2.Task(**{"type": "t", "queue": "q", **fields}) for _ in range(count)]
    await node.tasks.BatchCreateTasks(task_service_pb2.BatchCreateTasksRequest(tasks=tasks))


async def shown(node: Node) -> Queue:
    return await node.queues.GetQueue(GetQueueRequest(queue="q"))


async def on_the_shards(node: Node, count: int) -> None:
    """Wait until so many tasks are ready on the shards."""

    async def arrived() -> bool:
        depths, complete = await node.management._placement.depths("default", ["q"])
        return complete and depths["q"].ready == count

    await until(arrived, "the dispatch")


def tokens(workers: list[FrameWorker]) -> list[bytes]:
    return [token for worker in workers for token in worker.assigned]


async def test_after_a_pause_nothing_is_handed_out_until_the_queue_is_resumed(
    system: Life,
) -> None:
    one, other = system.management.nodes
    await create(one, 800)
    workers = [await system.worker(number, 20, finish=True, queues=["q"]) for number in (0, 1)]
    await until(lambda: len(tokens(workers)) > 50, "the first results")
    paused = await one.queues.PauseQueue(PauseQueueRequest(queue="q", actor="ann"))
    returned_ms = int(time.time() * 1_000) + 1
    assert paused.pause.actor == "ann"
    for instance in system.execution.instances:
        assert await polled(instance, queues=["q"]) == []
    # A worker that comes now gets nothing either.
    late = await system.worker(0, worker_id="late", queues=["q"])
    await asyncio.gather(*(polled(item, wait=0.5, queues=["q"]) for item in system.execution.instances))
    handed_out = tokens([*workers, late])
    assert len(handed_out) < 800
    assert max(map(leased_at, handed_out)) <= returned_ms
    assert not late.assigned
    await other.queues.ResumeQueue(ResumeQueueRequest(queue="q"))

    async def done() -> bool:
        return (await shown(one)).counts.succeeded == 800

    await late.close()
    await until(done, "the rest")


async def test_a_limit_is_in_force_on_all_instances_when_the_call_returns(system: Life) -> None:
    one, other = system.management.nodes
    await one.queues.CreateQueue(
        CreateQueueRequest(queue=Queue(queue="q", limits=QueueLimits(max_running=3)))
    )
    await create(other, 50)
    workers = [await system.worker(number, queues=["q"]) for number in (0, 1)]
    await until(lambda: len(tokens(workers)) == 3, "three tasks at workers")
    await on_the_shards(one, 47)
    request = UpdateQueueRequest(
        queue=Queue(queue="q", limits=QueueLimits(max_running=5)),
        update_mask=FieldMask(paths=["limits.max_running"]),
    )
    await other.queues.UpdateQueue(request)
    await until(lambda: len(tokens(workers)) == 5, "five tasks at workers")
    for instance in system.execution.instances:
        assert await polled(instance, wait=0.3, queues=["q"]) == []
    assert len(tokens(workers)) == 5

    async def agreed() -> bool:
        counts = (await shown(one)).counts
        return (counts.running, counts.pending) == (5, 45)

    await until(agreed, "the figures")


async def test_a_purge_leaves_what_workers_have(system: Life) -> None:
    one, other = system.management.nodes
    await create(one, 30)
    await on_the_shards(one, 30)
    worker = await system.worker(0, credit=4, queues=["q"])
    await worker.next_task(4)
    purged = await other.queues.PurgeQueue(PurgeQueueRequest(queue="q", reason="spring"))
    assert (purged.cancelled_count, purged.complete) == (26, True)
    assert not worker.cancels
    await worker.finish(*worker.assigned)

    async def ended() -> bool:
        counts = (await shown(one)).counts
        return (counts.open, counts.succeeded, counts.cancelled) == (0, 4, 26)

    await until(ended, "the ends")
