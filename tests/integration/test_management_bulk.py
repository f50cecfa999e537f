"""Cancelling and deleting many tasks."""

import uuid
from typing import Any

import grpc
import pytest
from fixtures.management import Node, cluster, report, until
from google.protobuf.timestamp_pb2 import Timestamp

from meshq.contract.errors import InvalidRequest
from meshq.contract.status import from_rpc_error
from meshq.management.model.task import TaskFilter
from meshq.v1 import task_pb2
from meshq.v1 import task_service_pb2 as pb

CANCELLED = task_pb2.TASK_STATE_CANCELLED
CANCELLING = task_pb2.TASK_STATE_CANCELLING
PENDING = task_pb2.TASK_STATE_PENDING
SUCCEEDED = task_pb2.ATTEMPT_OUTCOME_SUCCEEDED
ID = str(uuid.uuid4())


def raw(task: task_pb2.Task) -> bytes:
    return uuid.UUID(task.task_id).bytes


async def count(node: Node, **filters: object) -> int:
    return (await node.tasks.CountTasks(pb.CountTasksRequest(**filters))).count  # type: ignore[arg-type]


async def test_tasks_are_cancelled_by_id(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        waiting, running, done = [await node.create() for _ in range(3)]
        await until(lambda: len(system.execution.shard) == 3)
        system.execution.lease(raw(running))
        await node.report(report(raw(done), 1, SUCCEEDED))
        request = pb.CancelTasksRequest(
            task_ids=[waiting.task_id, running.task_id, done.task_id, ID, waiting.task_id], reason="why"
        )
        answer = await node.tasks.CancelTasks(request)
        assert (answer.cancelled_count, answer.complete) == (2, True)
        assert list(answer.missing_task_ids) == [ID]
        assert (await node.get(waiting.task_id)).cancel_reason == "why"
        assert (await node.get(running.task_id)).state == CANCELLING
        assert (await node.get(done.task_id)).state == task_pb2.TASK_STATE_SUCCEEDED
        assert (await node.tasks.CancelTasks(request)).cancelled_count == 0


async def test_tasks_are_cancelled_by_filter(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        batch = [task_pb2.Task(type="t", queue="q", labels={"a": "b"})] * 1_000
        for tasks in (batch, batch, batch[:1]):
            await node.tasks.BatchCreateTasks(pb.BatchCreateTasksRequest(tasks=tasks))
        other = await node.create(queue="q")
        await until(lambda: len(system.execution.shard) == 2_002)
        request = pb.CancelTasksRequest(filter=pb.TaskFilter(queue="q", labels=["a=b"]))
        answer = await node.tasks.CancelTasks(request)
        assert (answer.cancelled_count, answer.complete) == (2_001, True)
        assert await count(node, states=[CANCELLED]) == 2_001
        assert (await node.get(other.task_id)).state == PENDING
        assert list(system.execution.shard) == [raw(other)]
        assert (await node.tasks.CancelTasks(request)).cancelled_count == 0


async def test_a_call_without_time_does_one_page_and_says_so(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        batch = [task_pb2.Task(type="t")] * 1_000
        for tasks in (batch, batch[:1]):
            await node.tasks.BatchCreateTasks(pb.BatchCreateTasksRequest(tasks=tasks))
        wanted, bulk = TaskFilter("default", type="t"), node.management.bulk
        assert await bulk.cancel_selected(wanted, "", 0.0) == (1_000, False)
        assert await bulk.cancel_selected(wanted, "", 0.0) == (1, True)
        assert await bulk.delete_selected(wanted, 0.0) == (1_000, False)


async def test_ended_tasks_are_deleted_and_open_ones_are_left(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        done, other, open_ = [await node.create(queue="q") for _ in range(3)]
        for task in (done, other):
            await node.report(report(raw(task), 1, SUCCEEDED))
        request = pb.DeleteTasksRequest(task_ids=[done.task_id, open_.task_id, ID])
        answer = await node.tasks.DeleteTasks(request)
        assert (answer.deleted_count, answer.complete) == (1, True)
        assert (await node.tasks.DeleteTasks(request)).deleted_count == 0
        by_filter = pb.DeleteTasksRequest(filter=pb.TaskFilter(queue="q"))
        assert (await node.tasks.DeleteTasks(by_filter)).deleted_count == 1
        assert await count(node) == 1
        await node.management.housekeeping.run_once()
        assert set(system.execution.forgotten) >= {raw(done), raw(other)}


FILTER = pb.TaskFilter(queue="q")


@pytest.mark.parametrize(
    ("request_", "field", "value"),
    [
        (pb.CancelTasksRequest(), "task_ids", "not neither"),
        (pb.CancelTasksRequest(task_ids=[ID], filter=FILTER), "task_ids", "not both"),
        (pb.CancelTasksRequest(task_ids=["x"]), "task_ids[0]", "not 'x'"),
        (pb.CancelTasksRequest(task_ids=[ID] * 1_001), "task_ids", "not 1001"),
        (pb.CancelTasksRequest(filter=pb.TaskFilter()), "filter", "empty"),
        (pb.CancelTasksRequest(filter=pb.TaskFilter(queue="?")), "filter.queue", "not '?'"),
        (pb.CancelTasksRequest(filter=pb.TaskFilter(labels=["a=b"] * 17)), "filter.labels", "not 17"),
        (
            pb.CancelTasksRequest(filter=pb.TaskFilter(max_create_time=Timestamp(nanos=-1))),
            "filter.max_create_time",
            "not seconds 0, nanos -1",
        ),
        (pb.CancelTasksRequest(filter=FILTER, reason="x" * 1_025), "reason", "not 1025"),
        (pb.DeleteTasksRequest(), "task_ids", "not neither"),
        (pb.DeleteTasksRequest(filter=pb.TaskFilter()), "filter", "empty"),
        (pb.DeleteTasksRequest(filter=pb.TaskFilter(type="?")), "filter.type", "not '?'"),
    ],
)
async def test_a_bad_call_names_field_and_value(
    database: str, request_: pb.CancelTasksRequest | pb.DeleteTasksRequest, field: str, value: str
) -> None:
    async with cluster(database) as system:
        stub = system.nodes[0].tasks
        call: Any = stub.CancelTasks if isinstance(request_, pb.CancelTasksRequest) else stub.DeleteTasks
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request_)
        error = from_rpc_error(caught.value)
        assert isinstance(error, InvalidRequest)
        assert [item.field for item in error.violations] == [field]
        assert value in error.violations[0].rule
