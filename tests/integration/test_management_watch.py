"""Watches: nothing is missed, on whichever instance it happens."""

import asyncio
import uuid
from typing import Any

import grpc
import pytest
from fixtures.management import Cluster, Node, cluster, report, until
from google.protobuf import struct_pb2
from google.protobuf.duration_pb2 import Duration

from meshq.contract.errors import InvalidRequest, MeshqError, NotFound, Reason
from meshq.contract.status import from_rpc_error
from meshq.internal.v1 import progress_service_pb2
from meshq.management.stubs import commits
from meshq.management.watch.bus import Subscription
from meshq.v1 import task_pb2, task_service_pb2, worker_service_pb2

SUCCEEDED = task_pb2.ATTEMPT_OUTCOME_SUCCEEDED
FAILED = task_pb2.ATTEMPT_OUTCOME_FAILED
LOST = task_pb2.ATTEMPT_OUTCOME_LOST
STARTED = task_pb2.ATTEMPT_OUTCOME_UNSPECIFIED


def watch(node: Node, task_id: bytes) -> Any:
    return node.tasks.WatchTask(
        task_service_pb2.WatchTaskRequest(task_id=str(uuid.UUID(bytes=task_id))), timeout=20
    )


async def created(node: Node) -> bytes:
    task = await node.create(payload={"string_value": "in"})
    return uuid.UUID(task.task_id).bytes


async def finish(system: Cluster, node: Node, task_id: bytes, attempt: int = 1) -> None:
    system.execution.record(task_id, attempt, SUCCEEDED, "out")
    await node.report(report(task_id, attempt, SUCCEEDED))


async def read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


@pytest.mark.parametrize("nodes", [1, 2])
async def test_a_watch_sees_every_state_and_ends_with_the_result(database: str, nodes: int) -> None:
    async with cluster(database, nodes=nodes) as system:
        watched, committing = system.nodes[0], system.nodes[-1]
        task_id = await created(committing)
        call = watch(watched, task_id)
        first = (await call.read()).task
        assert (first.state, first.payload.string_value) == (task_pb2.TASK_STATE_PENDING, "in")
        await committing.report(report(task_id, 1, STARTED))
        running = (await call.read()).task
        assert (running.state, running.max_attempts) == (task_pb2.TASK_STATE_RUNNING, 3)
        assert not running.HasField("payload")
        await committing.report(report(task_id, 1, LOST))
        retried = (await call.read()).task
        assert (retried.state, retried.attempt) == (task_pb2.TASK_STATE_PENDING, 2)
        await finish(system, committing, task_id, 2)
        last = (await call.read()).task
        assert (last.state, last.result.string_value) == (task_pb2.TASK_STATE_SUCCEEDED, "out")
        assert last.payload.string_value == "in"
        assert await call.read() == grpc.aio.EOF
        await until(lambda: not watched.management.bus.busy)


async def test_a_task_that_has_ended_is_one_event(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id = await created(node)
        await finish(system, node, task_id)
        events = [event async for event in watch(node, task_id)]
        assert [event.task.result.string_value for event in events] == ["out"]


async def test_progress_and_output_come_from_execution(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id, other = await created(node), await created(node)
        call = watch(node, task_id)
        await call.read()
        await until(lambda: system.execution.watched == {task_id})
        progress = task_pb2.TaskProgress(attempt=1, fraction=0.5, message="half")
        output = task_pb2.TaskOutput(attempt=1, offset=3, stream="log", chunk=b"line")
        system.execution.say(progress_service_pb2.TaskNews(task_id=other, progress=progress))
        system.execution.say(progress_service_pb2.TaskNews(task_id=task_id, progress=progress))
        system.execution.say(progress_service_pb2.TaskNews(task_id=task_id, output=output))
        assert (await call.read()).progress == progress
        assert (await call.read()).output == output
        call.cancel()
        await until(lambda: not system.execution.watched)


async def test_what_a_broken_stream_between_instances_lost_is_read_again(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        first, second = system.nodes
        task_id = await created(first)
        call = watch(first, task_id)
        await call.read()
        await first.management.listening.stop()
        await finish(system, second, task_id)
        first.management.watchers.gap()
        assert (await call.read()).task.state == task_pb2.TASK_STATE_SUCCEEDED


async def test_nobody_is_told_for_long_what_nobody_watches(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "_LINGER_COMMITS", 3)
    async with cluster(database, nodes=2) as system:
        watching, working = system.nodes
        for _ in range(2):
            task_id = await created(watching)
            call = watch(watching, task_id)
            await call.read()
            await until(lambda: working.management.commits.wanted)
            await finish(system, working, task_id)
            await read_all(call)
            await until(lambda: not watching.management.bus.busy)
            # The next watch is not far, usually.
            for _ in range(2):
                await finish(system, working, await created(working))
            assert working.management.commits.wanted
            await finish(system, working, await created(working))
            await until(lambda: not working.management.commits.wanted)


async def test_a_slow_reader_is_sent_away(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id = await created(node)
        call = watch(node, task_id)
        await call.read()
        await until(lambda: system.execution.watched)
        output = task_pb2.TaskOutput(attempt=1, stream="log", chunk=bytes(60_000))
        for _ in range(800):
            system.execution.say(progress_service_pb2.TaskNews(task_id=task_id, output=output))
        await until(
            lambda: any(
                isinstance(listener, Subscription) and listener._too_slow
                for listeners in node.management.bus._by_task.values()
                for listener in listeners
            )
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_all(call)
        assert from_rpc_error(caught.value).reason == Reason.WATCH_TOO_SLOW


async def test_a_watch_of_nothing_is_refused(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        cases: list[tuple[str, type[MeshqError]]] = [("x", InvalidRequest), (str(uuid.uuid4()), NotFound)]
        for task_id, error in cases:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await node.tasks.WatchTask(task_service_pb2.WatchTaskRequest(task_id=task_id)).read()
            assert isinstance(from_rpc_error(caught.value), error)


async def test_a_silent_watch_says_that_it_lives(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        node.management.watchers._keepalive = 0.05
        call = watch(node, await created(node))
        await call.read()
        assert (await call.read()).keepalive.interval.seconds == 20


async def test_a_stopping_instance_sends_watches_away(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        call = watch(node, await created(node))
        await call.read()
        await node.management.drain()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert from_rpc_error(caught.value).reason == Reason.DRAINING


async def test_run_waits_for_the_outcome(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        first, second = system.nodes
        request = task_service_pb2.RunTaskRequest(task=task_pb2.Task(type="t"))
        running = asyncio.ensure_future(first.tasks.RunTask(request))
        await until(lambda: system.execution.shard)
        (task_id,) = system.execution.shard
        assert not running.done()
        await finish(system, second, task_id)
        assert (await asyncio.wait_for(running, 5)).result.string_value == "out"
        assert not system.execution.watched
        again = task_service_pb2.RunTaskRequest(task_id=str(uuid.UUID(bytes=task_id)))
        assert (await second.tasks.RunTask(again)).result.string_value == "out"


@pytest.mark.parametrize("reported_to", [0, 1])
async def test_run_needs_nobody_where_the_result_comes_along(database: str, reported_to: int) -> None:
    async with cluster(database, nodes=2) as system:
        request = task_service_pb2.RunTaskRequest(
            task=task_pb2.Task(type="t", payload=struct_pb2.Value(string_value="in"))
        )
        running = asyncio.ensure_future(system.nodes[0].tasks.RunTask(request))
        await until(lambda: system.execution.shard)
        (task_id,) = system.execution.shard
        # From here on nobody answers for results but who reports them.
        system.execution.away = True
        success = worker_service_pb2.Success(result=struct_pb2.Value(string_value="out")).SerializeToString()
        await system.nodes[reported_to].report(report(task_id, 1, SUCCEEDED, success=success))
        task = await asyncio.wait_for(running, 5)
        assert (task.result.string_value, task.payload.string_value) == ("out", "in")
        assert (task.state, task.worker_id) == (task_pb2.TASK_STATE_SUCCEEDED, "w-1")


async def test_an_error_that_comes_along_is_the_whole_one(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        request = task_service_pb2.RunTaskRequest(task=task_pb2.Task(type="t", max_attempts=1))
        running = asyncio.ensure_future(system.nodes[0].tasks.RunTask(request))
        await until(lambda: system.execution.shard)
        (task_id,) = system.execution.shard
        system.execution.away = True
        error = task_pb2.TaskError(type="E", message="no", traceback="line 1").SerializeToString()
        failed = report(task_id, 1, FAILED, error_type="E", error_message="no", error=error)
        await system.nodes[1].report(failed)
        task = await asyncio.wait_for(running, 5)
        assert (task.error.type, task.error.traceback) == ("E", "line 1")


async def test_run_returns_the_task_as_it_stands_when_the_time_is_over(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        request = task_service_pb2.RunTaskRequest(
            task=task_pb2.Task(type="t"), request_id="r", wait_timeout=Duration(nanos=50_000_000)
        )
        first = await node.tasks.RunTask(request)
        assert first.state == task_pb2.TASK_STATE_PENDING
        assert (await node.tasks.RunTask(request)).task_id == first.task_id


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (task_service_pb2.RunTaskRequest(), "task_id"),
        (task_service_pb2.RunTaskRequest(task=task_pb2.Task(type="t"), task_id="x"), "task_id"),
        (task_service_pb2.RunTaskRequest(task_id="x"), "task_id"),
        (task_service_pb2.RunTaskRequest(task_id="x", wait_timeout=Duration(seconds=601)), "wait_timeout"),
        (task_service_pb2.RunTaskRequest(task_id="x", wait_timeout=Duration(seconds=-1)), "wait_timeout"),
        (task_service_pb2.RunTaskRequest(task=task_pb2.Task()), "task.type"),
    ],
)
async def test_a_bad_run_names_its_field(
    database: str, request_: task_service_pb2.RunTaskRequest, field: str
) -> None:
    async with cluster(database) as system:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await system.nodes[0].tasks.RunTask(request_)
        error = from_rpc_error(caught.value)
        assert isinstance(error, InvalidRequest)
        assert [item.field for item in error.violations] == [field]
