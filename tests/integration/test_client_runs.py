"""Running many tasks in both clients, against a real gRPC server that ends them as the tests say."""

import asyncio
from collections import deque
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

SUCCEEDED = task_pb2.TASK_STATE_SUCCEEDED


class Queue:
    """Creates tasks, whose ids are their types, and lets them end as tests say.

    Attributes:
        ends: Whether a task ends now.
        changed: Set when that has changed.
        existing: What stands for the tasks of some types, as with unique keys.
        breaks: For each stream what it ends with, and after how many answers.
        streams: For each stream the frames that it brought.
        deaf: Over so many streams nobody hears that frames are stored.
    """

    def __init__(self, service: Service, ends: Callable[[str], bool] = lambda _: True) -> None:
        self.ends = ends
        self.changed = asyncio.Event()
        self.refused: set[str] = set()
        self.missing: set[str] = set()
        self.existing: dict[str, str] = {}
        self.created: list[str] = []
        self.breaks: deque[tuple[int, MeshqError]] = deque()
        self.streams: list[list[task_service_pb2.RunTasksRequest]] = []
        self.deaf = 0
        service.streams = self._run

    async def _run(self, frames: Any) -> AsyncIterator[Message | MeshqError]:
        seen: list[task_service_pb2.RunTasksRequest] = []
        self.streams.append(seen)
        left, error = self.breaks.popleft() if self.breaks else (-1, DOWN)
        open_: dict[int, str] = {}
        places = 0
        async for frame in frames:
            assert frame.view == task_pb2.TASK_VIEW_RESULT
            if left == len(seen):
                yield error
            seen.append(frame)
            names = list(frame.task_ids) or [self._create(task) for task in frame.tasks]
            answer = task_service_pb2.RunTasksResponse()
            open_.update({places + n: name for n, name in enumerate(names) if name})
            for place in (places + n for n, name in enumerate(names) if not name):
                answer.results.add(index=place, error=to_status(InvalidRequest.field("type", "no")))
            places += len(names)
            if len(self.streams) > self.deaf:
                answer.frames.add(frame=len(seen) - 1, task_ids=names)
            self._end(open_, answer)
            yield answer
        while open_:
            answer = task_service_pb2.RunTasksResponse()
            self._end(open_, answer)
            if answer.results:
                yield answer
            else:
                await asyncio.wait_for(self.changed.wait(), 10)
                self.changed.clear()

    def _create(self, task: task_pb2.Task) -> str:
        if task.type in self.refused:
            return ""
        self.created.append(task.type)
        return self.existing.get(task.type, task.type)

    def _end(self, open_: dict[int, str], answer: task_service_pb2.RunTasksResponse) -> None:
        for place, name in list(open_.items()):
            if name in self.missing:
                error = NotFound(f"There is no task {name}.", Reason.TASK_NOT_FOUND)
                answer.results.add(index=place, error=to_status(error))
            elif self.ends(name):
                task = answer.results.add(index=place).task
                task.MergeFrom(task_pb2.Task(task_id=name, type=name, queue="q", state=SUCCEEDED))
                task.result.string_value = f"result of {name}"
            else:
                continue
            del open_[place]


def specs(count: int) -> Iterable[TaskSpec]:
    return (TaskSpec(type=f"t{n}") for n in range(count))


def by_index(ended: list[Ran]) -> list[Ran]:
    return sorted(ended, key=lambda ran: ran.index)


async def test_every_task_comes_back_once_with_its_result(service: Service, client: Any) -> None:
    queue = Queue(service)
    ended = by_index(await collected(client.run_many(specs(4_500))))
    assert [ran.index for ran in ended] == list(range(4_500))
    assert [ran.task.result for ran in ended if ran.task] == [f"result of t{n}" for n in range(4_500)]
    assert all(len(frame.tasks) <= 1_000 for frame in queue.streams[0])


async def test_no_tasks_are_no_error(service: Service, client: Any) -> None:
    Queue(service)
    assert await collected(client.run_many([])) == []


async def test_what_is_refused_or_gone_keeps_nothing_out(service: Service, client: Any) -> None:
    queue = Queue(service)
    queue.refused, queue.missing = {"t1"}, {"t2"}
    given = [*specs(4), TaskSpec(type="t", payload=b"x"), *specs(1)]
    zero, one, two, three, four, five = by_index(await collected(client.run_many(given)))
    assert [ran.task and ran.task.succeeded for ran in (zero, three, five)] == [True, True, True]
    assert [ran.task for ran in (one, two, four)] == [None] * 3
    errors = [type(ran.error).__name__ for ran in (one, two, four)]
    assert errors == ["InvalidRequest", "NotFound", "InvalidRequest"]
    assert "t2" in str(two.error)
    alone = await collected(client.run_many([TaskSpec(type="t", payload=b"x")]))
    assert [ran.index for ran in alone] == [0]


async def test_tasks_that_are_one_by_their_key_come_back_as_often_as_they_were_given(
    service: Service, client: Any
) -> None:
    queue = Queue(service)
    queue.existing = {"t1": "t0", "t2": "t0"}
    ended = by_index(await collected(client.run_many(specs(4))))
    assert [ran.task.task_id for ran in ended if ran.task] == ["t0", "t0", "t0", "t3"]


async def test_a_slow_task_does_not_keep_the_others(service: Service, client: Any) -> None:
    got: list[int] = []
    queue = Queue(service, lambda task_id: task_id != "t0" or len(got) == 2_499)
    async for ran in client.run_many(specs(2_500)):
        got.append(ran.index)
        queue.changed.set()
    assert got[-1] == 0
    assert sorted(got) == list(range(2_500))


async def test_no_more_are_created_than_may_be_open(service: Service, client: Any) -> None:
    queue = Queue(service)
    most = ended = 0
    async for _ in client.run_many(specs(5_000), max_open=1_000):
        most = max(most, len(queue.created) - ended)
        ended += 1
    assert ended == 5_000
    assert most <= 1_000
    with pytest.raises(InvalidRequest, match="max_open: must be at least 1, not 0"):
        await collected(client.run_many(specs(1), max_open=0))


async def test_one_after_the_other(service: Service, client: Any) -> None:
    queue = Queue(service)
    assert [ran.index for ran in await collected(client.run_many(specs(20), max_open=1))] == list(range(20))
    assert [len(frame.tasks) for frame in queue.streams[0]] == [1] * 20


async def test_over_a_new_stream_what_was_stored_is_asked_for_by_its_id(
    service: Service, client: Any
) -> None:
    queue = Queue(service, lambda task_id: len(queue.streams) > 1 or int(task_id[1:]) % 2 == 0)
    queue.breaks.append((2, DOWN))
    ended = by_index(await collected(client.run_many(specs(3_000))))
    assert [ran.index for ran in ended] == list(range(3_000))
    assert queue.created == [f"t{n}" for n in range(3_000)]
    first, second = queue.streams
    named = [task_id for frame in second for task_id in frame.task_ids]
    assert sorted(named, key=lambda task_id: int(task_id[1:])) == [f"t{n}" for n in range(1, 2_000, 2)]
    assert {frame.request_id for frame in first}.isdisjoint(frame.request_id for frame in second)


async def test_frames_that_were_not_stored_are_sent_again_as_they_were(service: Service, client: Any) -> None:
    queue = Queue(service, lambda task_id: len(queue.streams) > 1 or task_id == "t7")
    queue.deaf = 1
    queue.breaks.append((1, DOWN))
    ended = by_index(await collected(client.run_many(specs(1_500))))
    # One of them had come back before its frame was stored, and comes back once.
    assert [ran.index for ran in ended] == list(range(1_500))
    before, after = queue.streams[0][0], queue.streams[1][0]
    assert before.request_id
    assert before == after


async def test_what_is_down_is_asked_again_and_what_is_forbidden_is_an_error(
    service: Service, client: Any
) -> None:
    queue = Queue(service)
    queue.breaks += [(0, DOWN), (0, DOWN)]
    assert len(await collected(client.run_many(specs(10)))) == 10
    queue.breaks.append((0, PreconditionFailed("not now", Reason.QUEUE_NOT_EMPTY)))
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
    assert [text for text in left if "Bulk" in text] == []
