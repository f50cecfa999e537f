"""Waiting for several tasks to end."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from fixtures.management import cluster, report, until
from google.protobuf.duration_pb2 import Duration

from meshq.contract.errors import InvalidRequest
from meshq.contract.status import from_rpc_error
from meshq.v1 import task_pb2
from meshq.v1 import task_service_pb2 as pb
from meshq.v1.worker_service_pb2 import Success

SUCCEEDED = task_pb2.ATTEMPT_OUTCOME_SUCCEEDED
DONE = task_pb2.TASK_STATE_SUCCEEDED
PENDING = task_pb2.TASK_STATE_PENDING
ANY = pb.AWAIT_MODE_ANY
SOON = Duration(nanos=50_000_000)


def raw(task: task_pb2.Task) -> bytes:
    return uuid.UUID(task.task_id).bytes


@pytest.mark.parametrize(("mode", "satisfied_after"), [(pb.AWAIT_MODE_UNSPECIFIED, 3), (ANY, 1)])
async def test_waiting_for_all_or_any(database: str, mode: Any, satisfied_after: int) -> None:
    async with cluster(database, nodes=2) as system:
        first, second = system.nodes
        tasks = [await first.create() for _ in range(3)]
        ids = [task.task_id for task in tasks]
        waiting = asyncio.ensure_future(first.tasks.AwaitTasks(pb.AwaitTasksRequest(task_ids=ids, mode=mode)))
        await until(lambda: len(first.management.bus.watched) == 3)
        for number, task in enumerate(tasks[::-1]):
            assert not waiting.done()
            system.execution.record(raw(task), 1, SUCCEEDED, "out")
            await second.report(report(raw(task), 1, SUCCEEDED))
            if number + 1 == satisfied_after:
                break
        answer = await asyncio.wait_for(waiting, 5)
        assert answer.satisfied
        assert [task.task_id for task in answer.tasks] == ids
        assert answer.tasks[2].state == DONE
        assert not answer.tasks[2].HasField("result")
        assert not first.management.bus.busy
        full = pb.AwaitTasksRequest(task_ids=ids[2:], view=task_pb2.TASK_VIEW_FULL)
        assert (await second.tasks.AwaitTasks(full)).tasks[0].result.string_value == "out"


async def test_when_the_time_is_over_tasks_are_shown_as_they_stand(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task = await node.create()
        request = pb.AwaitTasksRequest(task_ids=[task.task_id], wait_timeout=SOON)
        answer = await node.tasks.AwaitTasks(request)
        assert not answer.satisfied
        assert [item.state for item in answer.tasks] == [PENDING]


async def test_unknown_and_deleted_tasks_are_not_waited_for(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        unknown = str(uuid.uuid4())
        for mode in (pb.AWAIT_MODE_ALL, ANY):
            answer = await node.tasks.AwaitTasks(pb.AwaitTasksRequest(task_ids=[unknown], mode=mode))
            assert (list(answer.missing_task_ids), answer.satisfied) == ([unknown], False)
        task = await node.create()
        request = pb.AwaitTasksRequest(task_ids=[task.task_id, unknown, task.task_id])
        waiting = asyncio.ensure_future(node.tasks.AwaitTasks(request))
        await until(lambda: node.management.bus.busy)
        node.management.bus.publish_gone([raw(task)])
        answer = await asyncio.wait_for(waiting, 5)
        assert list(answer.missing_task_ids) == [task.task_id, unknown, task.task_id]


async def test_a_thousand_tasks_are_waited_for_together(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        batch = pb.BatchCreateTasksRequest(tasks=[task_pb2.Task(type="t")] * 1_000)
        ids = [result.task_id for result in (await node.tasks.BatchCreateTasks(batch)).results]
        waiting = asyncio.ensure_future(node.tasks.AwaitTasks(pb.AwaitTasksRequest(task_ids=ids)))
        await until(lambda: len(node.management.bus.watched) == 1_000)
        await node.report(*[report(uuid.UUID(text).bytes, 1, SUCCEEDED) for text in ids])
        assert (await asyncio.wait_for(waiting, 5)).satisfied


@pytest.mark.parametrize("committing", [0, 1])
async def test_many_ends_at_once_reach_who_waits_and_who_watches(database: str, committing: int) -> None:
    async with cluster(database, nodes=2) as system:
        node, others = system.nodes[0], system.nodes[committing]
        batch = pb.BatchCreateTasksRequest(tasks=[task_pb2.Task(type="t")] * 1_000)
        ids = [result.task_id for result in (await node.tasks.BatchCreateTasks(batch)).results]
        for text in ids:
            system.execution.record(uuid.UUID(text).bytes, 1, SUCCEEDED, text)
        request = pb.AwaitTasksRequest(task_ids=ids, view=task_pb2.TASK_VIEW_FULL)
        waiting = asyncio.ensure_future(node.tasks.AwaitTasks(request))
        watching: Any = node.tasks.WatchTask(pb.WatchTaskRequest(task_id=ids[7]), timeout=20)
        assert (await watching.read()).task.state == PENDING
        one = asyncio.ensure_future(node.tasks.RunTask(pb.RunTaskRequest(task_id=ids[8])))
        await until(lambda: len(node.management.bus.watched) == 1_000)
        await others.report(*[report(uuid.UUID(text).bytes, 1, SUCCEEDED) for text in ids])
        answer = await asyncio.wait_for(waiting, 5)
        assert answer.satisfied
        assert [task.result.string_value for task in answer.tasks] == ids
        assert {task.state for task in answer.tasks} == {DONE}
        shown = (await asyncio.wait_for(watching.read(), 5)).task
        assert (shown.state, shown.result.string_value) == (DONE, ids[7])
        assert (await asyncio.wait_for(one, 5)).result.string_value == ids[8]


LIVES: dict[str, tuple[dict[str, Any], Any]] = {
    "plain": ({}, SUCCEEDED),
    "failed": ({"max_attempts": 1}, task_pb2.ATTEMPT_OUTCOME_FAILED),
    "with labels": ({"labels": {"team": "a"}}, SUCCEEDED),
    "retried": ({}, SUCCEEDED),
    "cancelled": ({}, SUCCEEDED),
    "prioritized": ({"priority": 4, "max_attempts": 7}, SUCCEEDED),
}


@pytest.mark.parametrize("committing", [0, 1])
@pytest.mark.parametrize("view", [task_pb2.TASK_VIEW_BASIC, task_pb2.TASK_VIEW_RESULT])
async def test_what_was_waited_for_is_as_it_is_read_afterwards(
    database: str, committing: int, view: Any
) -> None:
    async with cluster(database, nodes=2) as system:
        node, committer = system.nodes[0], system.nodes[committing]
        made = {
            life: await node.create(payload={"string_value": "in"}, **fields)
            for life, (fields, _) in LIVES.items()
        }
        ids = {life: raw(task) for life, task in made.items()}
        # Only of many at a time the rows are not read where they end.
        others = [raw(await node.create()) for _ in range(20)]
        asked = [task.task_id for task in made.values()] + [str(uuid.UUID(bytes=other)) for other in others]
        waiting = asyncio.ensure_future(
            node.tasks.AwaitTasks(pb.AwaitTasksRequest(task_ids=asked, view=view))
        )
        await until(lambda: len(node.management.bus.watched) == len(asked))
        lost = report(ids["retried"], 1, task_pb2.ATTEMPT_OUTCOME_LOST)
        await committer.report(lost)
        cancelled = made["cancelled"].task_id
        await committer.tasks.CancelTask(pb.CancelTaskRequest(task_id=cancelled, reason="late"))
        reports = [report(other, 1, SUCCEEDED) for other in others]
        for life, (_, outcome) in LIVES.items():
            attempt = 2 if life == "retried" else 1
            system.execution.record(ids[life], attempt, outcome, life)
            error = {"error_type": "ValueError", "error_message": "no"} if outcome != SUCCEEDED else {}
            reports.append(report(ids[life], attempt, outcome, **error))
        for other in others:
            system.execution.record(other, 1, SUCCEEDED, "other")
        await committer.report(*reports)
        awaited = await asyncio.wait_for(waiting, 5)
        assert awaited.satisfied
        read = await committer.tasks.BatchGetTasks(pb.BatchGetTasksRequest(task_ids=asked, view=view))
        assert list(awaited.tasks) == list(read.tasks)
        shown = dict(zip(LIVES, awaited.tasks, strict=False))
        assert shown["retried"].attempt == 2
        assert not any(task.HasField("payload") for task in awaited.tasks)
        results = [task.result.string_value for task in shown.values()]
        if view == task_pb2.TASK_VIEW_RESULT:
            assert results == [life if task.state == DONE else "" for life, task in shown.items()]
            assert results.count("") == 2
            assert shown["failed"].error.traceback == "line 1"
        else:
            assert set(results) == {""}


async def test_who_waits_for_many_plain_tasks_reads_each_row_once(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        batch = pb.BatchCreateTasksRequest(tasks=[task_pb2.Task(type="t")] * 500)
        ids = [result.task_id for result in (await node.tasks.BatchCreateTasks(batch)).results]
        read: list[int] = []
        ledger = node.management.ledger
        get_tasks = ledger.get_tasks

        async def counted(task_ids: Sequence[bytes], *, full: bool) -> Any:
            read.append(len(task_ids))
            return await get_tasks(task_ids, full=full)

        monkeypatch.setattr(ledger, "get_tasks", counted)
        request = pb.AwaitTasksRequest(task_ids=ids, view=task_pb2.TASK_VIEW_RESULT)
        waiting = asyncio.ensure_future(node.tasks.AwaitTasks(request))
        await until(lambda: read == [500])
        await node.report(
            *[
                report(uuid.UUID(text).bytes, 1, SUCCEEDED, success=Success(data=b"out").SerializeToString())
                for text in ids
            ]
        )
        answer = await asyncio.wait_for(waiting, 5)
        assert {task.result_data for task in answer.tasks} == {b"out"}
        assert read == [500]


ID = str(uuid.uuid4())


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.AwaitTasksRequest(), "task_ids"),
        (pb.AwaitTasksRequest(task_ids=[ID] * 1_001), "task_ids"),
        (pb.AwaitTasksRequest(task_ids=[ID, "x"]), "task_ids[1]"),
        (pb.AwaitTasksRequest(task_ids=[ID], wait_timeout=Duration(seconds=601)), "wait_timeout"),
        (pb.AwaitTasksRequest(task_ids=[ID], wait_timeout=Duration(seconds=5, nanos=-6)), "wait_timeout"),
        (pb.AwaitTasksRequest(task_ids=[ID], mode=7), "mode"),  # type: ignore[arg-type]
        (pb.AwaitTasksRequest(task_ids=[ID], view=7), "view"),  # type: ignore[arg-type]
    ],
)
async def test_a_bad_wait_names_its_field(database: str, request_: pb.AwaitTasksRequest, field: str) -> None:
    async with cluster(database) as system:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await system.nodes[0].tasks.AwaitTasks(request_)
        error = from_rpc_error(caught.value)
        assert isinstance(error, InvalidRequest)
        assert [item.field for item in error.violations] == [field]
