"""What open tasks are shown to wait for, and how running ones get on."""

import uuid
from typing import Any

from fixtures.management import cluster, report, until
from google.protobuf.duration_pb2 import Duration

from meshq.internal.v1 import dispatch_service_pb2
from meshq.v1 import queue_service_pb2, task_pb2
from meshq.v1 import task_service_pb2 as pb

STARTED = task_pb2.ATTEMPT_OUTCOME_UNSPECIFIED
SUCCEEDED = task_pb2.ATTEMPT_OUTCOME_SUCCEEDED
FULL = task_pb2.TASK_VIEW_FULL


def raw(task: task_pb2.Task) -> bytes:
    return uuid.UUID(task.task_id).bytes


def explanation(reason: int, **fields: Any) -> dispatch_service_pb2.Explanation:
    waiting = task_pb2.TaskWaiting(reason=reason, message="because", **fields)  # type: ignore[arg-type]
    return dispatch_service_pb2.Explanation(waiting=waiting)


async def test_the_ledger_knows_what_has_not_come_and_who_is_before(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        later = await node.create(start_delay=Duration(seconds=3_600))
        first, second, third = [await node.create(ordering_key="k") for _ in range(3)]
        await until(lambda: raw(first) in system.execution.shard)
        shown = (await node.get(later.task_id)).waiting
        assert shown.reason == task_pb2.WAITING_REASON_NOT_DUE
        assert shown.due_time == later.start_time
        shown = (await node.get(third.task_id, FULL)).waiting
        assert shown.reason == task_pb2.WAITING_REASON_PREDECESSOR
        assert shown.predecessor_task_id == second.task_id
        assert second.task_id in shown.message
        assert not system.execution.asked


async def test_a_paused_queue_says_who_paused_it(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task = await node.create(queue="q")
        await node.queues.PauseQueue(
            queue_service_pb2.PauseQueueRequest(queue="q", actor="ann", reason="the provider is down")
        )
        shown = (await node.get(task.task_id)).waiting
        assert shown.reason == task_pb2.WAITING_REASON_QUEUE_PAUSED
        assert "ann" in shown.message
        assert "the provider is down" in shown.message


async def test_execution_is_asked_once_for_a_page(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        tasks = [await node.create() for _ in range(3)]
        done = await node.create()
        await node.report(report(raw(done), 1, SUCCEEDED))
        busy = explanation(task_pb2.WAITING_REASON_KEY_BUSY, limit=2, in_use=2)
        system.execution.explanations = {
            raw(tasks[0]): busy,
            raw(tasks[1]): explanation(task_pb2.WAITING_REASON_NO_WORKER),
        }
        page = await node.tasks.ListTasks(pb.ListTasksRequest())
        shown = {task.task_id: task.waiting for task in page.tasks if task.HasField("waiting")}
        assert shown == {
            tasks[0].task_id: busy.waiting,
            tasks[1].task_id: system.execution.explanations[raw(tasks[1])].waiting,
        }
        (asked,) = system.execution.asked
        assert set(asked) == {raw(task) for task in tasks}
        found = await node.tasks.BatchGetTasks(pb.BatchGetTasksRequest(task_ids=[tasks[0].task_id]))
        assert found.tasks[0].waiting == busy.waiting


async def test_the_full_view_of_a_running_task_has_its_progress(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task = await node.create()
        await node.report(report(raw(task), 1, STARTED))
        progress = task_pb2.TaskProgress(attempt=1, fraction=0.5, message="half")
        system.execution.explanations[raw(task)] = dispatch_service_pb2.Explanation(
            running=True, progress=progress
        )
        shown = await node.get(task.task_id, FULL)
        assert shown.progress == progress
        assert not shown.HasField("waiting")
        system.execution.asked.clear()
        assert not (await node.get(task.task_id)).HasField("progress")
        assert not system.execution.asked


async def test_without_execution_the_reason_is_left_out(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task = await node.create()
        system.execution.away = True
        for view in (task_pb2.TASK_VIEW_BASIC, FULL):
            assert not (await node.get(task.task_id, view)).HasField("waiting")
        assert (await node.tasks.ListTasks(pb.ListTasksRequest())).tasks[0].task_id == task.task_id
