"""RunTasks: tasks go in by frames and come back one by one, each once, on whichever instance it ends."""

import asyncio
import uuid
from typing import Any

import grpc
import pytest
from fixtures.management import Node, cluster, report, until
from google.protobuf import struct_pb2

from meshq.contract.errors import (
    InternalError,
    InvalidRequest,
    MeshqError,
    NotFound,
    Reason,
    Unavailable,
)
from meshq.contract.status import from_rpc_error, from_status
from meshq.management.servicers import running
from meshq.v1 import task_pb2, task_service_pb2, worker_service_pb2

SUCCEEDED = task_pb2.ATTEMPT_OUTCOME_SUCCEEDED
FAILED = task_pb2.ATTEMPT_OUTCOME_FAILED
LOST = task_pb2.ATTEMPT_OUTCOME_LOST
Response = task_service_pb2.RunTasksResponse
Request = task_service_pb2.RunTasksRequest


def of_types(*types: str, request_id: str = "", **fields: Any) -> Request:
    tasks = [task_pb2.Task(type=type_, **fields) for type_ in types]
    return Request(tasks=tasks, request_id=request_id)


def raw(text: str) -> bytes:
    return uuid.UUID(text).bytes


async def end(node: Node, task_id: str, result: str = "out", attempt: int = 1) -> None:
    success = worker_service_pb2.Success(result=struct_pb2.Value(string_value=result))
    await node.report(report(raw(task_id), attempt, SUCCEEDED, success=success.SerializeToString()))


class Stream:
    """One call, and what it has said so far.

    Attributes:
        ids: Those of each frame that was stored.
        results: What became of the tasks, by their places.
    """

    def __init__(self, node: Node, *requests: Request, closed: bool = False) -> None:
        self._call: Any = node.tasks.RunTasks(timeout=30)
        self._requests = requests
        self._closed = closed
        self.ids: list[list[str]] = []
        self.results: dict[int, task_service_pb2.RunTasksResult] = {}
        self.order: list[int] = []

    async def begin(self) -> "Stream":
        for request in self._requests:
            await self.write(request)
        if self._closed:
            await self.close()
        return self

    async def write(self, request: Request) -> None:
        await self._call.write(request)

    async def close(self) -> None:
        await self._call.done_writing()

    def cancel(self) -> None:
        self._call.cancel()

    async def read(self) -> Response | None:
        answer = await self._call.read()
        if answer is grpc.aio.EOF:
            return None
        response: Response = answer
        for frame in response.frames:
            assert frame.frame == len(self.ids)
            self.ids.append(list(frame.task_ids))
        for result in response.results:
            assert result.index not in self.results
            self.results[result.index] = result
            self.order.append(result.index)
        return response

    async def stored(self, frames: int = 1) -> list[str]:
        """Read until so many frames are stored; the ids of all."""
        while len(self.ids) < frames:
            assert await self.read() is not None
        return [task_id for ids in self.ids for task_id in ids]

    async def returned(self, count: int) -> list[task_service_pb2.RunTasksResult]:
        """Read until so many tasks are back; in the order of their places."""
        while len(self.results) < count:
            assert await self.read() is not None
        return [self.results[index] for index in sorted(self.results)]

    async def rest(self) -> None:
        while await self.read() is not None:
            pass

    async def failure(self) -> MeshqError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.rest()
        return from_rpc_error(caught.value)


async def begun(node: Node, *requests: Request, closed: bool = False) -> Stream:
    return await Stream(node, *requests, closed=closed).begin()


@pytest.mark.parametrize("nodes", [1, 2])
async def test_each_task_comes_back_when_it_has_ended(database: str, nodes: int) -> None:
    async with cluster(database, nodes=nodes) as system:
        here, there = system.nodes[0], system.nodes[-1]
        stream = await begun(here, of_types("a", "b"), of_types("c"))
        a, b, c = await stream.stored(2)
        assert not stream.results
        # From here on nobody answers for results but who reports them.
        system.execution.away = True
        for task_id in (c, a):
            await end(there, task_id, f"of {task_id}")
        await stream.returned(2)
        assert stream.order == [2, 0]
        found = stream.results[2].task
        assert (found.task_id, found.type, found.result.string_value) == (c, "c", f"of {c}")
        assert (found.state, found.worker_id) == (task_pb2.TASK_STATE_SUCCEEDED, "w-1")
        await stream.close()
        await end(there, b)
        await stream.rest()
        assert sorted(stream.results) == [0, 1, 2]
        await until(lambda: not here.management.bus.busy)


async def test_the_view_of_the_first_frame_counts(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        for view, seen in (
            (task_pb2.TASK_VIEW_UNSPECIFIED, ("", "out")),
            (task_pb2.TASK_VIEW_BASIC, ("", "")),
            (task_pb2.TASK_VIEW_FULL, ("in", "out")),
        ):
            request = of_types("t", payload=struct_pb2.Value(string_value="in"))
            request.view = view
            stream = await begun(node, request, closed=True)
            (task_id,) = await stream.stored()
            await end(node, task_id)
            await stream.rest()
            task = stream.results[0].task
            assert (task.payload.string_value, task.result.string_value) == seen


async def test_a_task_that_fails_in_the_end_is_a_result(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        first, second = system.nodes
        stream = await begun(first, of_types("t", max_attempts=2), closed=True)
        (task_id,) = await stream.stored()
        await second.report(report(raw(task_id), 1, LOST))
        error = task_pb2.TaskError(type="E", message="no", traceback="line 1").SerializeToString()
        failed = report(raw(task_id), 2, FAILED, error_type="E", error_message="no", error=error)
        await second.report(failed)
        await stream.rest()
        task = stream.results[0].task
        assert (task.state, task.attempt, task.error.traceback) == (task_pb2.TASK_STATE_FAILED, 2, "line 1")


async def test_what_is_refused_keeps_nothing_out_and_what_exists_is_waited_for(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        held = await node.create(unique_key="k")
        request = Request(
            tasks=[
                task_pb2.Task(type="t"),
                task_pb2.Task(type="no good"),
                task_pb2.Task(type="t", unique_key="k"),
                task_pb2.Task(type="t", unique_key="k", unique_policy=task_pb2.UNIQUE_POLICY_REJECT),
                task_pb2.Task(type="t", unique_key="k"),
            ]
        )
        stream = await begun(node, request, closed=True)
        first, *others = await stream.stored()
        assert others == ["", held.task_id, "", held.task_id]
        results = await stream.returned(2)
        assert [result.index for result in results] == [1, 3]
        assert [type(from_status(result.error)).__name__ for result in results] == [
            "InvalidRequest",
            "Conflict",
        ]
        await end(node, held.task_id)
        await end(node, first)
        await stream.rest()
        assert [stream.results[index].task.task_id for index in (0, 2, 4)] == [first] + [held.task_id] * 2


async def test_tasks_may_be_named_by_their_ids(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        first, second = system.nodes
        ended, open_ = (await first.create()).task_id, (await first.create()).task_id
        await end(first, ended)
        system.execution.record(raw(ended), 1, SUCCEEDED, "out")
        unknown = str(uuid.uuid4())
        named = Request(task_ids=[ended, open_, unknown, ended])
        stream = await begun(second, named, of_types("t"), closed=True)
        *ids, new = await stream.stored(2)
        assert ids == [ended, open_, unknown, ended]
        *_, missing, _ = await stream.returned(3)
        error = from_status(missing.error)
        assert isinstance(error, NotFound)
        assert (error.reason, error.metadata["task_id"]) == (Reason.TASK_NOT_FOUND, unknown)
        await end(first, open_, "late")
        await end(first, new, "new")
        await stream.rest()
        assert [stream.results[index].task.result.string_value for index in (0, 1, 3, 4)] == [
            *("out", "late", "out", "new")
        ]


async def test_a_repeated_frame_waits_for_the_tasks_of_the_first(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        first, second = system.nodes
        before = await begun(first, of_types("a", "b", request_id="r"))
        ids = await before.stored()
        await end(first, ids[0])
        await before.returned(1)
        before.cancel()
        system.execution.record(raw(ids[0]), 1, SUCCEEDED, "out")
        after = await begun(second, of_types("a", "b", request_id="r"), closed=True)
        assert await after.stored() == ids
        await end(first, ids[1])
        await after.rest()
        assert [after.results[index].task.task_id for index in (0, 1)] == ids
        # Other calls have names of their own.
        other = task_service_pb2.IngestTasksRequest(tasks=[task_pb2.Task(type="a")], request_id="r")
        (answer,) = [answer async for answer in first.tasks.IngestTasks(iter([other]))]
        assert answer.results[0].task_id not in ids


async def test_a_task_that_is_deleted_meanwhile_is_not_found(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        stream = await begun(node, of_types("a", "b"), closed=True)
        deleted, kept = await stream.stored()
        force = task_service_pb2.DeleteTaskRequest(task_id=deleted, force=True)
        await node.tasks.DeleteTask(force)
        await end(node, kept)
        await stream.rest()
        assert stream.results[1].task.task_id == kept
        # Who was quick enough to hear of the end before the deletion has seen how it ended.
        result = stream.results[0]
        assert result.task.state == task_pb2.TASK_STATE_CANCELLED or isinstance(
            from_status(result.error), NotFound
        )


async def test_what_a_broken_stream_between_instances_lost_is_read_again(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        first, second = system.nodes
        stream = await begun(first, of_types("t"), closed=True)
        (task_id,) = await stream.stored()
        await first.management.listening.stop()
        system.execution.record(raw(task_id), 1, SUCCEEDED, "out")
        await end(second, task_id)
        first.management.watchers.gap()
        await stream.rest()
        assert stream.results[0].task.result.string_value == "out"


async def test_large_results_come_in_several_answers(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        stream = await begun(node, of_types(*["t"] * 12), closed=True)
        ids = await stream.stored()
        large = "x" * 1_000_000
        for task_id in ids:
            system.execution.record(raw(task_id), 1, SUCCEEDED, large)
        await node.report(*(report(raw(task_id), 1, SUCCEEDED) for task_id in ids))
        sizes = []
        while (response := await stream.read()) is not None:
            sizes.append(response.ByteSize())
        assert sorted(stream.results) == list(range(12))
        assert max(sizes) < 10 << 20


async def test_no_more_is_read_while_too_much_is_open(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "MAX_RUN_TASKS", 3)
    async with cluster(database) as system:
        (node,) = system.nodes
        stream = await begun(node, of_types("a", "b"), of_types("c", "d"), of_types("e"), closed=True)
        ids = await stream.stored(2)
        await end(node, ids[0])
        await stream.returned(1)
        # Three are open, and that is enough.
        assert await node.management.ledger.open_count() == 3
        assert len(stream.ids) == 2
        await end(node, ids[3])
        (*_, last) = await stream.stored(3)
        for task_id in (ids[1], ids[2], last):
            await end(node, task_id)
        await stream.rest()
        assert sorted(stream.results) == list(range(5))


@pytest.mark.parametrize("closed", [False, True])
async def test_a_stopping_instance_sends_the_stream_away(database: str, closed: bool) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        stream = await begun(node, of_types("t"), closed=closed)
        await stream.stored()
        await node.management.drain()
        error = await stream.failure()
        assert isinstance(error, Unavailable)
        assert error.reason == Reason.DRAINING


async def test_who_leaves_is_forgotten(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        stream = await begun(node, of_types("t"))
        (task_id,) = await stream.stored()
        stream.cancel()
        await until(lambda: not node.management.bus.busy)
        assert (await node.get(task_id)).state == task_pb2.TASK_STATE_PENDING


async def test_a_silent_stream_says_that_it_lives(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "STREAM_KEEPALIVE_SECONDS", 0.05)
    async with cluster(database) as system:
        stream = await begun(system.nodes[0], of_types("t"))
        await stream.stored()
        assert await stream.read() == Response()


async def test_while_execution_is_away_the_stream_is(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        stream = await begun(node, of_types("t"))
        (task_id,) = await stream.stored()
        system.execution.away = True
        await node.report(report(raw(task_id), 1, SUCCEEDED))
        error = await stream.failure()
        assert error.retryable
        assert not isinstance(error, InternalError)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Request(), "tasks"),
        (Request(tasks=[task_pb2.Task(type="t")], task_ids=[str(uuid.uuid4())]), "task_ids"),
        (Request(task_ids=["x"]), "task_ids[0]"),
        (Request(tasks=[task_pb2.Task(type="t")] * 1_001), "tasks"),
        (Request(tasks=[task_pb2.Task(type="t")], view=77), "view"),  # type: ignore[arg-type]
        (Request(tasks=[task_pb2.Task(type="t")], request_id="ü"), "request_id"),
    ],
)
async def test_a_bad_frame_is_named_behind_what_came_before(
    database: str, request_: Request, field: str
) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        good = [] if field == "view" else [of_types("t")]
        stream = await begun(node, *good, request_)
        error = await stream.failure()
        assert isinstance(error, InvalidRequest)
        assert [item.field for item in error.violations] == [field]
        assert len(stream.ids) == len(good)


async def test_many_frames_of_many_callers(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        first, second = system.nodes

        async def run(node: Node) -> int:
            stream = await begun(node, *(of_types(*["t"] * 50) for _ in range(10)), closed=True)
            ids = await stream.stored(10)
            reports = [report(raw(task_id), 1, SUCCEEDED, success=b"") for task_id in ids]
            for start in range(0, len(reports), 125):
                reporter = (first, second)[start % 2]
                await reporter.report(*reports[start : start + 125])
            await stream.rest()
            assert [stream.results[index].task.task_id for index in range(500)] == ids
            return len(stream.results)

        assert await asyncio.gather(*(run(node) for node in (first, second, first))) == [500] * 3
