"""Running many tasks in both clients, against a real gRPC server that ends them as the tests say."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest
from fixtures.scripted import DOWN, Service, client, collected, service
from google.protobuf.message import Message

from meshq.client import Client, Ran, TaskSpec, TaskState
from meshq.contract.errors import InvalidRequest, MeshqError, NotFound, PreconditionFailed, Reason
from meshq.contract.status import to_status
from meshq.v1 import task_pb2, task_service_pb2

__all__ = ["client", "service"]

SUCCEEDED, RUNNING = task_pb2.TASK_STATE_SUCCEEDED, task_pb2.TASK_STATE_RUNNING


class Queue:
    """Creates tasks, whose ids are their types, and lets them end when they are waited for.

    Attributes:
        ends: Whether a task has ended by now.
        existing: What stands for the tasks of some types, as with unique keys.
    """

    def __init__(self, service: Service, ends: Callable[[str], bool] = lambda _: True) -> None:
        self.ends = ends
        self.refused: set[str] = set()
        self.missing: set[str] = set()
        self.existing: dict[str, str] = {}
        self.created: list[str] = []
        self.groups: list[list[str]] = []
        self.most = 1_000
        service.ingest = self._ingest
        service.otherwise = self._await

    async def _ingest(self, frames: Any) -> AsyncIterator[Message]:
        async for frame in frames:
            yield task_service_pb2.IngestTasksResponse(results=[self._result(task) for task in frame.tasks])

    def _result(self, task: task_pb2.Task) -> task_service_pb2.CreateTaskResult:
        if task.type in self.refused:
            return task_service_pb2.CreateTaskResult(error=to_status(InvalidRequest.field("type", "no")))
        self.created.append(task.type)
        return task_service_pb2.CreateTaskResult(task_id=self.existing.get(task.type, task.type))

    def _await(self, request: task_service_pb2.AwaitTasksRequest) -> Message | MeshqError:
        assert request.view == task_pb2.TASK_VIEW_RESULT
        ids = list(request.task_ids)
        self.groups.append(ids)
        if len(ids) > self.most:
            return InvalidRequest.field("task_ids", "must name tasks of at most 4 MiB")
        known = [task_id for task_id in ids if task_id not in self.missing]
        return task_service_pb2.AwaitTasksResponse(
            tasks=[self._task(task_id) for task_id in known],
            missing_task_ids=[task_id for task_id in ids if task_id in self.missing],
        )

    def _task(self, task_id: str) -> task_pb2.Task:
        found = task_pb2.Task(task_id=task_id, type=task_id, queue="q", state=RUNNING)
        if self.ends(task_id):
            found.state = SUCCEEDED
            found.result.string_value = f"result of {task_id}"
        return found


def specs(count: int) -> Iterable[TaskSpec]:
    return (TaskSpec(type=f"t{n}") for n in range(count))


def by_index(ended: list[Ran]) -> list[Ran]:
    return sorted(ended, key=lambda ran: ran.index)


async def test_every_task_comes_back_once_with_its_result(service: Service, client: Any) -> None:
    queue = Queue(service)
    ended = by_index(await collected(client.run_many(specs(4_500))))
    assert [ran.index for ran in ended] == list(range(4_500))
    assert [ran.task.result for ran in ended if ran.task] == [f"result of t{n}" for n in range(4_500)]
    assert all(len(group) <= 1_000 for group in queue.groups)
    assert sum(map(len, queue.groups)) == 4_500


async def test_no_tasks_are_no_error(service: Service, client: Any) -> None:
    Queue(service)
    assert await collected(client.run_many([])) == []


async def test_what_is_refused_or_gone_keeps_nothing_out(service: Service, client: Any) -> None:
    queue = Queue(service)
    queue.refused, queue.missing = {"t1"}, {"t2"}
    zero, one, two, three = by_index(await collected(client.run_many(specs(4))))
    assert [ran.task and ran.task.succeeded for ran in (zero, three)] == [True, True]
    assert (one.task, type(one.error)) == (None, InvalidRequest)
    assert (two.task, type(two.error)) == (None, NotFound)
    assert "t2" in str(two.error)


async def test_tasks_that_are_one_by_their_key_come_back_as_often_as_they_were_given(
    service: Service, client: Any
) -> None:
    queue = Queue(service)
    queue.existing = {"t1": "t0", "t2": "t0"}
    ended = by_index(await collected(client.run_many(specs(4))))
    assert [ran.task.task_id for ran in ended if ran.task] == ["t0", "t0", "t0", "t3"]


async def test_a_slow_task_does_not_keep_the_others(service: Service, client: Any) -> None:
    released = False
    queue = Queue(service, lambda task_id: task_id != "t0" or released)
    got = []
    async for ran in client.run_many(specs(2_500)):
        got.append(ran.index)
        released = len(got) == 2_499
    assert got[-1] == 0
    assert sorted(got) == list(range(2_500))
    assert sum(group == ["t0"] for group in queue.groups) >= 1


async def test_no_more_are_created_than_may_be_open(service: Service, client: Any) -> None:
    queue = Queue(service)
    most = 0
    ended = 0
    async for _ in client.run_many(specs(5_000), max_open=1_000):
        ended += 1
        most = max(most, len(queue.created) - ended)
    # Frames are created ahead of what is looked at: a window of them, and the one in which it was seen.
    assert ended == 5_000
    assert most <= 1_000 + 9 * 1_000
    with pytest.raises(InvalidRequest, match="max_open: must be at least 1, not 0"):
        await collected(client.run_many(specs(1), max_open=0))


async def test_results_that_are_too_large_for_one_answer_come_in_several(
    service: Service, client: Any
) -> None:
    queue = Queue(service)
    queue.most = 100
    ended = await collected(client.run_many(specs(1_000)))
    assert sorted(ran.index for ran in ended) == list(range(1_000))


async def test_what_is_down_is_asked_again_and_what_is_forbidden_is_an_error(
    service: Service, client: Any
) -> None:
    Queue(service)
    service.script += [DOWN, DOWN]
    assert len(await collected(client.run_many(specs(10)))) == 10
    service.script.append(PreconditionFailed("not now", Reason.QUEUE_NOT_EMPTY))
    with pytest.raises(PreconditionFailed, match="not now"):
        await collected(client.run_many(specs(10)))


async def test_an_error_of_the_source_is_raised(service: Service, client: Any) -> None:
    Queue(service)

    def source() -> Iterable[TaskSpec]:
        yield TaskSpec(type="t")
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        await collected(client.run_many(source()))


async def test_leaving_early_leaves_nothing_running(service: Service) -> None:
    Queue(service)
    before = asyncio.all_tasks()
    async with Client(service.target) as client:
        items = client.run_many(specs(100_000))
        async for ran in items:
            assert ran.task is not None
            assert ran.task.state is TaskState.SUCCEEDED
            break
        await items.aclose()
    left = [repr(task) for task in asyncio.all_tasks() - before]
    assert [text for text in left if "Bulk" in text or "AsyncRuns" in text] == []
