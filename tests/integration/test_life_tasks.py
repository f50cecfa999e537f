"""What callers do with tasks, with management and execution together, on real shards and databases."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
import pytest
from fixtures.life import Life, attempts, life
from fixtures.management import Node, until
from google.protobuf.duration_pb2 import Duration
from redis.asyncio import Redis

from meshq.contract.errors import Reason, Unavailable
from meshq.contract.status import from_rpc_error
from meshq.v1 import task_pb2
from meshq.v1 import task_service_pb2 as pb

__all__ = ["attempts"]

FULL = task_pb2.TASK_VIEW_FULL
DONE = task_pb2.TASK_STATE_SUCCEEDED


@pytest.fixture
async def system(database: str, attempts: str, shards: dict[str, str]) -> AsyncIterator[Life]:
    async with life(database, attempts, shards, nodes=2, instances=2) as running:
        yield running


async def update(node: Node, task_id: str, **fields: Any) -> task_pb2.Task:
    return await node.tasks.UpdateTask(pb.UpdateTaskRequest(task=task_pb2.Task(task_id=task_id, **fields)))


async def in_line(node: Node, task_id: str) -> task_pb2.TaskWaiting:
    """Wait until a task is on its shard; returns what it waits for there."""

    async def arrived() -> task_pb2.TaskWaiting | None:
        waiting = (await node.get(task_id)).waiting
        on_its_way = task_pb2.WAITING_REASON_UNSPECIFIED, task_pb2.WAITING_REASON_DISPATCHING
        return None if waiting.reason in on_its_way else waiting

    waiting: task_pb2.TaskWaiting = await until(arrived, "the dispatch")
    return waiting


async def test_a_task_on_its_shard_is_changed_and_the_worker_gets_it_as_it_is_then(system: Life) -> None:
    node, other = system.management.nodes
    task = await node.create(data=b"old", priority=1)
    waiting = await in_line(node, task.task_id)
    assert waiting.reason == task_pb2.WAITING_REASON_NO_WORKER
    assert waiting.message
    changed = await update(other, task.task_id, data=b"new", labels={"a": "b"})
    assert changed.spared_attempts == 1
    await in_line(node, task.task_id)
    worker = await system.worker()
    (token,) = await worker.next_task()
    assigned = worker.assigned[token]
    assert (assigned.task.data, assigned.task.priority, dict(assigned.task.labels)) == (b"new", 1, {"a": "b"})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await update(node, task.task_id, priority=9)
    assert from_rpc_error(caught.value).reason == Reason.TASK_STARTED
    await worker.finish(token)
    answer = await node.tasks.AwaitTasks(pb.AwaitTasksRequest(task_ids=[task.task_id], view=FULL))
    assert answer.satisfied
    assert (answer.tasks[0].state, answer.tasks[0].result_data) == (DONE, b"out")
    ended = await other.tasks.ListAttempts(pb.ListAttemptsRequest(task_id=task.task_id))
    assert [item.attempt for item in ended.attempts] == [2]


async def test_a_task_comes_back_when_its_change_dies_between_recall_and_write(
    system: Life, shards: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = system.management.nodes[0]
    task = await node.create(data=b"old")
    await in_line(node, task.task_id)

    async def die(*_: object) -> NoReturn:
        raise Unavailable("It is gone.", Reason.LEDGER_UNAVAILABLE)

    monkeypatch.setattr(node.management.ledger, "pass_over", die)
    with pytest.raises(grpc.aio.AioRpcError):
        await update(node, task.task_id, data=b"new")
    worker = await system.worker(finish=True)
    # As two minutes later, when the shards have forgotten the recall.
    assert all([await forget_recalls(address) for address in shards.values()])
    answer = await node.tasks.AwaitTasks(pb.AwaitTasksRequest(task_ids=[task.task_id], view=FULL))
    (done,) = answer.tasks
    assert (done.state, done.attempt, done.data) == (DONE, 1, b"old")
    assert [assigned.task.data for assigned in worker.assigned.values()] == [b"old"]


async def forget_recalls(address: str) -> int:
    """Remove the tombstones of a shard, each of which was asked for the task; returns of how many minutes."""
    async with Redis.from_url(f"redis://{address}") as shard:
        keys = [key async for key in shard.scan_iter("mq:tombstones:*")]
        return int(await shard.delete(*keys)) if keys else 0


async def test_changes_while_workers_take_tasks_lose_and_double_nothing(system: Life) -> None:
    node, other = system.management.nodes
    batch = pb.BatchCreateTasksRequest(tasks=[task_pb2.Task(type="t")] * 200)
    ids = [result.task_id for result in (await node.tasks.BatchCreateTasks(batch)).results]
    workers = [await system.worker(number, 5, finish=True) for number in (0, 1)]

    async def change(place: Node, task_id: str) -> bool:
        try:
            await update(place, task_id, labels={"changed": "yes"})
        except grpc.aio.AioRpcError as error:
            if from_rpc_error(error).reason != Reason.TASK_STARTED:
                raise
            return False
        return True

    places = [(node, other)[number % 2] for number in range(len(ids))]
    changed = await asyncio.gather(*map(change, places, ids))
    answer = await node.tasks.AwaitTasks(
        pb.AwaitTasksRequest(task_ids=ids, wait_timeout=Duration(seconds=20))
    )
    assert answer.satisfied
    assert {task.state for task in answer.tasks} == {DONE}
    assert [task.labels.get("changed") == "yes" for task in answer.tasks] == changed
    # Each task was handed out once, changed or not.
    assert sum(len(worker.assigned) for worker in workers) == len(ids)


async def test_a_task_that_failed_is_redriven_and_succeeds(system: Life) -> None:
    node, other = system.management.nodes
    watch: Any = other.tasks.WatchTasks(
        pb.WatchTasksRequest(filter=pb.TaskFilter(labels=["a=b"])), timeout=20
    )
    await watch.read()
    await until(lambda: all(link.heard_ms for link in other.management.listening.links()))
    task = await node.create(labels={"a": "b"}, data=b"in", max_attempts=1)
    worker = await system.worker()
    (token,) = await worker.next_task()
    await worker.report(token, failure={"error": {"type": "E", "message": "no"}})

    async def failed() -> bool:
        return (await node.get(task.task_id)).state == task_pb2.TASK_STATE_FAILED

    await until(failed, "the failure")
    new = await node.tasks.RedriveTask(pb.RedriveTaskRequest(task_id=task.task_id))
    (again,) = [item for item in await worker.next_task(2) if item != token]
    assert worker.assigned[again].task.data == b"in"
    await worker.finish(again)
    answer = await node.tasks.AwaitTasks(pb.AwaitTasksRequest(task_ids=[new.task_id]))
    assert answer.tasks[0].state == DONE
    states: dict[str, list[int]] = {task.task_id: [], new.task_id: []}
    while not states[new.task_id] or states[new.task_id][-1] != DONE:
        event = await watch.read()
        if event.HasField("task"):
            states[event.task.task_id].append(int(event.task.state))
    assert (states[task.task_id][0], states[task.task_id][-1]) == (3, 8)
    assert states[new.task_id][0] == task_pb2.TASK_STATE_PENDING


async def test_many_tasks_are_cancelled_on_their_shards_and_at_workers(system: Life) -> None:
    node, _ = system.management.nodes
    batch = pb.BatchCreateTasksRequest(tasks=[task_pb2.Task(type="t", queue="q")] * 500)
    await node.tasks.BatchCreateTasks(batch)
    worker = await system.worker(credit=3, queues=["q"])
    tokens = await worker.next_task(3)
    answer = await node.tasks.CancelTasks(pb.CancelTasksRequest(filter=pb.TaskFilter(queue="q")))
    assert (answer.cancelled_count, answer.complete) == (500, True)
    await until(lambda: len(worker.cancels) == 3, "the word to the worker")
    for token in tokens:
        await worker.report(token, cancelled={})

    async def all_cancelled() -> bool:
        counted = pb.CountTasksRequest(states=[task_pb2.TASK_STATE_CANCELLED])
        return (await node.tasks.CountTasks(counted)).count == 500

    await until(all_cancelled, "the cancellation of all")
