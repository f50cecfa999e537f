"""Every way in: unary, batch, bulk stream."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import psycopg
import pytest
from fixtures.failures import failure
from fixtures.management import Node, cluster, until
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from meshq.contract.errors import Conflict, InvalidRequest, Overloaded, Reason
from meshq.contract.metadata import EDGE, REQUEST_ID
from meshq.contract.status import from_rpc_error, from_status
from meshq.v1 import task_pb2, task_service_pb2


async def batch(node: Node, *types: str, request_id: str = "") -> list[task_service_pb2.CreateTaskResult]:
    request = task_service_pb2.BatchCreateTasksRequest(
        tasks=[task_pb2.Task(type=type_) for type_ in types], request_id=request_id
    )
    return list((await node.tasks.BatchCreateTasks(request)).results)


async def open_count(node: Node) -> int:
    return await node.management.ledger.open_count()


async def test_many_callers_at_a_time_share_transactions(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        tasks = await asyncio.gather(*(node.create(request_id=f"r{n}") for n in range(300)))
        assert len({task.task_id for task in tasks}) == 300
        assert await open_count(node) == 300
        await until(lambda: len(system.execution.shard) == 300, "the dispatch")
        assert len(system.execution.frames) < 300


async def test_a_repeated_request_gets_the_first_answer(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        first, second = system.nodes
        calls = [node.create(request_id="r", queue="q") for node in (first, second) for _ in range(10)]
        tasks = await asyncio.gather(*calls)
        assert len({task.task_id for task in tasks}) == 1
        assert await open_count(first) == 1
        again = await second.create(request_id="r", queue="q", tenant="ignored")
        assert again.task_id == tasks[0].task_id
        other = task_service_pb2.CreateTaskRequest(task=task_pb2.Task(type="other"), request_id="r")
        error = await failure(first.tasks.CreateTask(other))
        assert isinstance(error, Conflict)
        assert error.reason == Reason.REQUEST_ID_REUSED
        # Other calls have names of their own.
        assert (await batch(first, "t", request_id="r"))[0].task_id != tasks[0].task_id


async def test_the_gateways_request_id_stands_in(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        request = task_service_pb2.CreateTaskRequest(task=task_pb2.Task(type="t"))
        edge = ((REQUEST_ID, "r-1"), (EDGE, "1"))
        tasks = [await node.tasks.CreateTask(request, metadata=edge) for _ in range(2)]
        assert tasks[0].task_id == tasks[1].task_id
        direct = ((REQUEST_ID, "r-1"),)
        others = [await node.tasks.CreateTask(request, metadata=direct) for _ in range(2)]
        assert len({task.task_id for task in tasks + others}) == 3


async def test_a_bad_task_does_not_keep_the_others_out(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        results = await batch(node, "a", "no good", "b", request_id="r")
        error = from_status(results[1].error)
        assert isinstance(error, InvalidRequest)
        assert error.violations[0].field == "tasks[1].type"
        assert await open_count(node) == 2
        again = await batch(node, "a", "no good", "b", request_id="r")
        assert again == results
        nothing = await batch(node, "?", "?", request_id="s")
        assert [item.error.code for item in nothing] == [3, 3]
        assert await open_count(node) == 2


async def test_a_bad_time_does_not_keep_the_others_out(database: str) -> None:
    bad: dict[str, Any] = {
        "start_time": Timestamp(seconds=253_402_300_800),
        "start_delay": Duration(seconds=5, nanos=-6),
        "heartbeat_timeout": Duration(nanos=2_000_000_000),
    }
    tasks = [task_pb2.Task(type="t"), *(task_pb2.Task(type="t", **{name: bad[name]}) for name in bad)]

    async def frames() -> AsyncIterator[task_service_pb2.IngestTasksRequest]:
        yield task_service_pb2.IngestTasksRequest(tasks=tasks)

    async with cluster(database) as system:
        (node,) = system.nodes
        answer = await node.tasks.BatchCreateTasks(task_service_pb2.BatchCreateTasksRequest(tasks=tasks))
        (ingested,) = [frame async for frame in node.tasks.IngestTasks(frames())]
        for good, *refused in (answer.results, ingested.results):
            assert good.task_id
            errors = [from_status(item.error) for item in refused]
            for number, (name, value, error) in enumerate(zip(bad, bad.values(), errors, strict=True), 1):
                assert isinstance(error, InvalidRequest)
                (violation,) = error.violations
                assert violation.field == f"tasks[{number}].{name}"
                assert violation.rule.startswith("must be ")
                assert violation.rule.endswith(f", not seconds {value.seconds}, nanos {value.nanos}")
        assert await open_count(node) == 2


async def test_what_the_ledger_refuses_is_alone(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            await connection.execute("ALTER TABLE open_tasks ADD CHECK (type <> 'bad')")
        results, *singles = await asyncio.gather(
            batch(node, *(["good"] * 20), "bad", "good", request_id="r"),
            *(node.create() for _ in range(20)),
            return_exceptions=True,
        )
        assert isinstance(results, list)
        assert [n for n, item in enumerate(results) if item.HasField("error")] == [20]
        assert all(isinstance(item, task_pb2.Task) for item in singles)
        assert await open_count(node) == 41
        again = await batch(node, *(["good"] * 20), "bad", "good", request_id="r")
        assert [item.task_id for item in again] == [item.task_id for item in results]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (task_service_pb2.CreateTaskRequest(), "task"),
        (task_service_pb2.CreateTaskRequest(task=task_pb2.Task()), "task.type"),
        (task_service_pb2.CreateTaskRequest(task=task_pb2.Task(type="t"), request_id="a b"), "request_id"),
    ],
)
async def test_bad_input_is_named(
    database: str, request_: task_service_pb2.CreateTaskRequest, field: str
) -> None:
    async with cluster(database) as system:
        error = await failure(system.nodes[0].tasks.CreateTask(request_))
        assert isinstance(error, InvalidRequest)
        assert [item.field for item in error.violations] == [field]


async def test_frames_are_answered_in_order(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes

        async def frames() -> AsyncIterator[task_service_pb2.IngestTasksRequest]:
            for number in range(30):
                tasks = [task_pb2.Task(type="t" if n else f"t{number}") for n in range(50)]
                yield task_service_pb2.IngestTasksRequest(tasks=tasks, request_id=f"f{number}")

        for _ in range(2):
            answers = [answer async for answer in node.tasks.IngestTasks(frames())]
            assert [answer.frame for answer in answers] == list(range(30))
            first = [uuid.UUID(answer.results[0].task_id).bytes for answer in answers]
            rows = await node.management.ledger.get_tasks(first, full=False)
            assert [rows[task_id].type for task_id in first] == [f"t{number}" for number in range(30)]
        assert await open_count(node) == 1_500


async def test_the_gateways_request_id_is_not_that_of_each_frame(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        frames = [task_service_pb2.IngestTasksRequest(tasks=[task_pb2.Task(type=f"t{n}")]) for n in range(3)]
        call = node.tasks.IngestTasks(iter(frames), metadata=((REQUEST_ID, "r-1"), (EDGE, "1")))
        assert len({answer.results[0].task_id async for answer in call}) == 3


async def test_a_frame_that_is_refused_comes_after_the_answers_before_it(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes

        async def frames() -> AsyncIterator[task_service_pb2.IngestTasksRequest]:
            for _ in range(3):
                yield task_service_pb2.IngestTasksRequest(tasks=[task_pb2.Task(type="t")])
            yield task_service_pb2.IngestTasksRequest()

        call: Any = node.tasks.IngestTasks(frames())
        assert [(await call.read()).frame for _ in range(3)] == [0, 1, 2]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert isinstance(from_rpc_error(caught.value), InvalidRequest)


@asynccontextmanager
async def taken(database: str, key: str) -> AsyncIterator[psycopg.AsyncConnection[tuple[Any, ...]]]:
    """Let whoever wants a unique key wait until the block ends; yields a connection to look with."""
    async with (
        await psycopg.AsyncConnection.connect(database) as holder,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as connection,
    ):
        await holder.execute(
            "INSERT INTO unique_keys (tenant, queue, key, task_id, scope)"
            " VALUES ('default', 'default', %s, gen_random_uuid(), 2)",
            [key],
        )
        yield connection
        await holder.rollback()


async def blocked(connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> list[int]:
    """The connections that wait for others."""
    cursor = await connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return [pid for (pid,) in await cursor.fetchall()]


def chained(number: int) -> task_service_pb2.IngestTasksRequest:
    """A frame of a chain; the first one also wants a unique key."""
    tasks = [task_pb2.Task(type="t", ordering_key="k") for _ in range(30)]
    if number == 0:
        tasks[0].unique_key = "u"
    return task_service_pb2.IngestTasksRequest(tasks=tasks, request_id=f"f{number}")


async def in_order(
    database: str, answers: list[task_service_pb2.IngestTasksResponse]
) -> tuple[list[str], list[str]]:
    """The tasks of a chain as they were sent, and as they have their places."""
    async with await psycopg.AsyncConnection.connect(database) as connection:
        cursor = await connection.execute(
            "SELECT id::text FROM open_tasks WHERE ordering_key = 'k' ORDER BY order_seq"
        )
        stored = [task_id for (task_id,) in await cursor.fetchall()]
    return [result.task_id for answer in answers for result in answer.results], stored


async def test_frames_of_a_chain_do_not_overtake_each_other(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        call: Any = node.tasks.IngestTasks()
        async with taken(database, "u") as connection:
            for number in range(8):
                await call.write(chained(number))
            await until(lambda: blocked(connection), "the first frame")
            # Others go on, and would take the frames behind the first one along.
            for number in range(20):
                await node.create(unique_key=f"other-{number}")
        for number in range(8, 40):
            await call.write(chained(number))
        await call.done_writing()
        sent, stored = await in_order(database, [answer async for answer in call])
        assert len(sent) == 1_200
        assert stored == sent


async def test_behind_a_frame_that_failed_no_other_of_the_chain_is_stored(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        call: Any = node.tasks.IngestTasks()
        async with taken(database, "u") as connection:
            for number in range(8):
                await call.write(chained(number))
            (pid,) = await until(lambda: blocked(connection), "the first frame")
            await connection.execute("SELECT pg_cancel_backend(%s)", [pid])
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
            for number in range(20):
                await node.create(unique_key=f"other-{number}")
        assert await open_count(node) == 20
        # As clients do.
        again = node.tasks.IngestTasks(iter([chained(number) for number in range(8)]))
        sent, stored = await in_order(database, [answer async for answer in again])
        assert len(sent) == 240
        assert stored == sent


async def test_a_stop_answers_the_frame_that_others_of_its_chain_wait_for(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        call: Any = node.tasks.IngestTasks()
        async with taken(database, "u") as connection:
            for number in range(3):
                await call.write(chained(number))
            await until(lambda: blocked(connection), "the first frame")
            await node.management.drain()
        assert (await call.read()).frame == 0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert from_rpc_error(caught.value).reason == Reason.DRAINING
        assert await open_count(node) == 30


async def test_a_stop_answers_what_was_read_and_sends_the_stream_away(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        call: Any = node.tasks.IngestTasks()
        await call.write(task_service_pb2.IngestTasksRequest(tasks=[task_pb2.Task(type="t")]))
        assert (await call.read()).results[0].task_id
        await node.management.drain()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert from_rpc_error(caught.value).reason == Reason.DRAINING


async def test_a_full_backlog_refuses(database: str) -> None:
    async with cluster(database, max_open_tasks=10) as system:
        (node,) = system.nodes
        assert len(await batch(node, *(["t"] * 10))) == 10
        request = task_service_pb2.CreateTaskRequest(task=task_pb2.Task(type="t"))
        error = await failure(node.tasks.CreateTask(request))
        assert isinstance(error, Overloaded)
        assert error.reason == Reason.BACKLOG_FULL
        assert error.retry_delay
        await until(lambda: len(system.execution.shard) == 10, "the dispatch")
        for task_id in list(system.execution.shard):
            await node.management.canceller.cancel(task_id, "")

        async def accepted() -> bool:
            try:
                return bool(await node.create())
            except grpc.aio.AioRpcError:
                return False

        await until(accepted, "room in the backlog")
