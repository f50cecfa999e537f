"""Making good for tasks that ended without success."""

import asyncio
import uuid
from itertools import pairwise
from typing import Any

import pytest
from fixtures.failures import failure
from fixtures.management import Cluster, Node, cluster, report, until
from google.protobuf.duration_pb2 import Duration

from meshq.contract.errors import InvalidRequest, NotFound, Reason
from meshq.v1 import queue_service_pb2, task_pb2
from meshq.v1 import task_service_pb2 as pb

FAILED = task_pb2.ATTEMPT_OUTCOME_FAILED
SUCCEEDED = task_pb2.ATTEMPT_OUTCOME_SUCCEEDED
DEAD = task_pb2.TASK_STATE_FAILED
CANCELLED = task_pb2.TASK_STATE_CANCELLED
PENDING = task_pb2.TASK_STATE_PENDING
SCHEDULED = task_pb2.TASK_STATE_SCHEDULED


def raw(task: task_pb2.Task) -> bytes:
    return uuid.UUID(task.task_id).bytes


async def dead(node: Node, **fields: Any) -> task_pb2.Task:
    """A task that has failed for good."""
    task = await node.create(**fields)
    await node.report(report(raw(task), 1, FAILED, error_type="E", non_retryable=True))
    assert (await node.get(task.task_id)).state == DEAD
    return task


async def redriven(node: Node, task: task_pb2.Task) -> task_pb2.Task:
    return await node.tasks.RedriveTask(pb.RedriveTaskRequest(task_id=task.task_id))


async def drain(node: Node, queue: str) -> None:
    await node.queues.DrainQueue(queue_service_pb2.DrainQueueRequest(queue=queue))


async def test_a_new_task_has_the_specification_of_the_old_one(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        old = await dead(
            node,
            queue="q",
            data=b"in",
            content_type="x/y",
            headers={"h": "v"},
            labels={"a": "b"},
            priority=7,
            max_attempts=5,
            ordering_key="o",
            unique_key="u",
            limit_key="l",
            start_delay=Duration(nanos=1_000_000),
            schedule_to_close_timeout=Duration(seconds=60),
            retry_policy=task_pb2.RetryPolicy(initial_delay=Duration(seconds=9)),
        )
        new = await redriven(node, old)
        assert new.task_id != old.task_id
        assert (new.state, new.attempt, new.redriven_from) == (PENDING, 1, old.task_id)
        assert (new.data, new.content_type, dict(new.headers)) == (b"in", "x/y", {"h": "v"})
        assert (dict(new.labels), new.priority, new.max_attempts) == ({"a": "b"}, 7, 5)
        assert (new.ordering_key, new.limit_key, new.unique_key) == ("o", "l", "")
        assert new.retry_policy.initial_delay.seconds == 9
        assert not new.HasField("start_time")
        assert (await node.get(old.task_id)).redriven_to == new.task_id
        await until(lambda: raw(new) in system.execution.shard)
        assert (await node.get(new.task_id)).redriven_from == old.task_id


async def test_a_repeated_redrive_returns_the_same_task(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        first, second = system.nodes
        old = await dead(first)
        tasks = await asyncio.gather(*(redriven(node, old) for node in (first, second) * 4))
        assert len({task.task_id for task in tasks}) == 1
        assert (await first.tasks.CountTasks(pb.CountTasksRequest())).count == 2


async def test_what_cannot_be_redriven(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        open_ = await node.create()
        error = await failure(redriven(node, open_))
        assert error.reason == Reason.TASK_NOT_REDRIVABLE
        await node.report(report(raw(open_), 1, SUCCEEDED))
        assert (await failure(redriven(node, open_))).reason == Reason.TASK_NOT_REDRIVABLE
        assert isinstance(await failure(redriven(node, task_pb2.Task(task_id=str(uuid.uuid4())))), NotFound)
        assert isinstance(await failure(redriven(node, task_pb2.Task(task_id="x"))), InvalidRequest)
        old = await dead(node, queue="q")
        await drain(node, "q")
        assert (await failure(redriven(node, old))).reason == Reason.QUEUE_DRAINING
        many = node.tasks.RedriveTasks(pb.RedriveTasksRequest(filter=pb.TaskFilter(queue="q")))
        assert (await failure(many)).reason == Reason.QUEUE_DRAINING


async def many_dead(system: Cluster, count: int) -> list[task_pb2.Task]:
    (node,) = system.nodes
    batch = pb.BatchCreateTasksRequest(tasks=[task_pb2.Task(type="t", queue="q")] * count)
    ids = [result.task_id for result in (await node.tasks.BatchCreateTasks(batch)).results]
    await node.report(*(report(uuid.UUID(text).bytes, 1, FAILED, non_retryable=True) for text in ids))
    return [task_pb2.Task(task_id=text) for text in ids]


async def test_dead_letters_are_redriven_by_filter_and_only_once(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        olds = await many_dead(system, 130)
        kept = await dead(node, queue="other")
        request = pb.RedriveTasksRequest(filter=pb.TaskFilter(queue="q"), max_tasks=60)
        assert (await node.tasks.RedriveTasks(request)).redriven_count == 60
        assert [bool((await node.get(task.task_id)).redriven_to) for task in (olds[59], olds[60])] == [
            True,
            False,
        ]
        request.max_tasks = 0
        answer = await node.tasks.RedriveTasks(request)
        assert (answer.redriven_count, answer.complete) == (70, True)
        assert (await node.tasks.RedriveTasks(request)).redriven_count == 0
        assert not (await node.get(kept.task_id)).redriven_to
        counted = pb.CountTasksRequest(queue="q", states=[PENDING])
        assert (await node.tasks.CountTasks(counted)).count == 130
        await until(lambda: len(system.execution.shard) == 260 or len(system.execution.shard) >= 130)


async def test_a_rate_spreads_the_starts(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        olds = await many_dead(system, 4)
        request = pb.RedriveTasksRequest(filter=pb.TaskFilter(queue="q"), rate=0.1)
        assert (await node.tasks.RedriveTasks(request)).redriven_count == 4
        starts = []
        for old in olds[1:]:
            new = await node.get((await node.get(old.task_id)).redriven_to)
            assert new.state == SCHEDULED
            assert new.start_time == new.next_start_time
            starts.append(new.start_time.ToMilliseconds())
        assert [later - earlier for earlier, later in pairwise(starts)] == [10_000] * 2


async def test_a_rate_goes_on_behind_what_was_planned_before(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        olds = await many_dead(system, 5)
        other = await dead(node, queue="other")
        request = pb.RedriveTasksRequest(filter=pb.TaskFilter(queue="q", states=[DEAD]), rate=0.1)
        request.filter.max_create_time.GetCurrentTime()
        for max_tasks in (2, 1, 0):
            request.max_tasks = max_tasks
            await node.tasks.RedriveTasks(request)
        news = [await node.get((await node.get(old.task_id)).redriven_to) for old in olds]
        starts = [task.start_time.ToMilliseconds() for task in news[1:]]
        assert [later - earlier for earlier, later in pairwise(starts)] == [10_000] * 3
        # What the filter does not select begins at once.
        await node.tasks.RedriveTasks(pb.RedriveTasksRequest(filter=pb.TaskFilter(queue="other"), rate=0.1))
        new = await node.get((await node.get(other.task_id)).redriven_to)
        assert not new.HasField("start_time")


async def test_calls_with_a_rate_at_the_same_time_share_it(database: str) -> None:
    async with cluster(database) as system:
        await many_dead(system, 150)
        second = await system.add_node()
        request = pb.RedriveTasksRequest(filter=pb.TaskFilter(queue="q", states=[DEAD]), rate=0.1)
        answers = await asyncio.gather(
            *(node.tasks.RedriveTasks(request) for node in (system.nodes[0], second) * 2)
        )
        assert sum(answer.redriven_count for answer in answers) == 150
        listed = await second.tasks.ListTasks(
            pb.ListTasksRequest(queue="q", states=[SCHEDULED], page_size=200)
        )
        starts = sorted(task.start_time.ToMilliseconds() for task in listed.tasks)
        assert len(starts) == 149
        assert min(later - earlier for earlier, later in pairwise(starts)) >= 10_000


async def test_cancelled_tasks_are_redriven_when_the_filter_says_so(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task = await node.create(labels={"a": "b"})
        await node.tasks.CancelTask(pb.CancelTaskRequest(task_id=task.task_id))
        wanted = pb.TaskFilter(labels=["a=b"])
        request = pb.RedriveTasksRequest(filter=wanted)
        assert (await node.tasks.RedriveTasks(request)).redriven_count == 0
        request.filter.states.append(CANCELLED)
        assert (await node.tasks.RedriveTasks(request)).redriven_count == 1


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.RedriveTasksRequest(), {"filter": "nothing"}),
        (pb.RedriveTasksRequest(filter=pb.TaskFilter(states=[DEAD])), {"filter": "only states"}),
        (
            pb.RedriveTasksRequest(filter=pb.TaskFilter(queue="q", states=[PENDING])),
            {"filter.states[0]": "PENDING"},
        ),
        (pb.RedriveTasksRequest(filter=pb.TaskFilter(queue="?")), {"filter.queue": "'?'"}),
        (
            pb.RedriveTasksRequest(filter=pb.TaskFilter(queue="q"), rate=-1, max_tasks=-1),
            {"rate": "-1", "max_tasks": "-1"},
        ),
        (pb.RedriveTasksRequest(filter=pb.TaskFilter(queue="q"), rate=float("nan")), {"rate": "nan"}),
        (
            pb.RedriveTasksRequest(filter=pb.TaskFilter(queue="q"), max_tasks=1_000_001),
            {"max_tasks": "1000001"},
        ),
    ],
)
async def test_a_bad_redrive_names_fields_and_values(
    database: str, request_: pb.RedriveTasksRequest, fields: dict[str, str]
) -> None:
    async with cluster(database) as system:
        error = await failure(system.nodes[0].tasks.RedriveTasks(request_))
        assert isinstance(error, InvalidRequest)
        assert {item.field: item.rule.rpartition(", not ")[2] for item in error.violations} == fields
