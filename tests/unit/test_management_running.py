"""The state of a stream of RunTasks, in orders of events that real servers seldom bring about."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from meshq.contract.errors import NotFound
from meshq.contract.status import from_status
from meshq.management.conversion.tasks import public_task
from meshq.management.create import Accepted
from meshq.management.model.claims import Answer, Submission, Verdict
from meshq.management.model.queues import UNSET
from meshq.management.model.reports import Finish
from meshq.management.model.states import State
from meshq.management.model.task import NewTask, TaskId, TaskRow, created_row
from meshq.management.servicers import running
from meshq.management.servicers.running import Run
from meshq.management.watch.bus import Bus, Gone, Over
from meshq.v1 import task_pb2, task_service_pb2

Request = task_service_pb2.RunTasksRequest


class Parts:
    """The use cases around one stream; the test says when frames are stored, and what the ledger has."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.rows: dict[TaskId, TaskRow] = {}
        self.tasks: list[NewTask] = []
        self.answers: list[asyncio.Future[Accepted]] = []
        self.stopping = asyncio.Event()
        self.submitted = asyncio.Event()
        self.admission = SimpleNamespace(settings=lambda *_: UNSET)
        self.watchers = SimpleNamespace(follow=self.bus.add, leave=self.bus.remove)
        self.creator = self.ledger = self.views = self

    async def room(self) -> None: ...

    def submit(self, submission: Submission) -> Awaitable[Accepted]:
        self.tasks.extend(submission.tasks)
        self.answers.append(asyncio.get_running_loop().create_future())
        self.submitted.set()
        return self.answers[-1]

    async def get_tasks(self, task_ids: Sequence[TaskId], *, full: bool) -> dict[TaskId, TaskRow]:
        assert not full
        return {task_id: self.rows[task_id] for task_id in task_ids if task_id in self.rows}

    async def page(self, rows: Sequence[TaskRow], view: int) -> list[task_pb2.Task]:
        assert view == task_pb2.TASK_VIEW_RESULT
        return [public_task(row, 0) for row in rows]


def over(task: NewTask) -> Over:
    end = Finish(task.task_id, 1, State.SUCCEEDED, 1, 2, "w")
    return Over(task.task_id, 1, end, 3)


class Stream:
    """A stream of one frame of two tasks, whose frame is not stored yet.

    Args:
        more: Set when a second frame is to come; None where there is none.
    """

    def __init__(self, more: asyncio.Event | None = None) -> None:
        self.parts = Parts()
        self._more = more
        self.run = Run(self.parts)  # type: ignore[arg-type]
        self.frames: list[list[str]] = []
        self.results: list[task_service_pb2.RunTasksResult] = []
        self.intake = asyncio.create_task(self.run.take(self._requests()))

    async def _requests(self) -> AsyncIterator[Request]:
        yield Request(tasks=[task_pb2.Task(type="t"), task_pb2.Task(type="t")])
        if self._more is not None:
            await self._more.wait()
            yield Request(tasks=[task_pb2.Task(type="t")])

    async def submitted(self) -> list[NewTask]:
        await self.parts.submitted.wait()
        return self.parts.tasks

    async def store(self, accepted: Accepted | None = None) -> None:
        self.parts.answers[0].set_result(accepted or Accepted())
        await self.intake

    async def goes_on(self) -> None:
        """Let everything happen that can."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def read(self) -> None:
        async with asyncio.timeout(5):
            response = await self.run.response()
        assert response is not None
        self.frames += [list(frame.task_ids) for frame in response.frames]
        self.results += response.results

    async def read_all(self) -> list[int]:
        """Read to the end; the places of what came back."""
        async with asyncio.timeout(5):
            while not self.run.over:
                await self.read()
            assert await self.run.response() is None
        assert not self.parts.bus.busy
        return [result.index for result in self.results]


@pytest.fixture
async def stream() -> Any:
    return Stream()


async def test_an_end_may_come_before_its_frame_is_stored(stream: Stream) -> None:
    first, second = await stream.submitted()
    stream.parts.bus.publish_over([over(second)])
    await stream.read()
    assert [result.index for result in stream.results] == [1]
    assert stream.frames == []
    await stream.store()
    stream.parts.bus.publish_over([over(first)])
    assert await stream.read_all() == [1, 0]
    assert stream.frames == [[str(uuid.UUID(bytes=task.task_id)) for task in (first, second)]]


async def test_an_end_that_is_told_twice_is_one(stream: Stream) -> None:
    first, second = await stream.submitted()
    await stream.store()
    stream.parts.bus.publish_over([over(first), over(first)])
    ended = created_row(first)._replace(state=State.SUCCEEDED)
    stream.parts.bus.publish_rows([ended, ended])
    await stream.read()
    stream.parts.bus.publish_over([over(first), over(second)])
    assert await stream.read_all() == [0, 1]


async def test_what_is_not_stored_yet_is_not_gone(stream: Stream) -> None:
    first, second = await stream.submitted()
    stream.parts.bus.publish_gone([first.task_id, second.task_id])
    await stream.read()
    assert stream.results == []
    await stream.store()
    stream.parts.bus.publish_gone([first.task_id])
    stream.parts.bus.publish_over([over(second)])
    assert sorted(await stream.read_all()) == [0, 1]
    (gone,) = [result for result in stream.results if result.index == 0]
    assert isinstance(from_status(gone.error), NotFound)


async def test_an_end_that_says_too_little_is_read(stream: Stream) -> None:
    first, second = await stream.submitted()
    await stream.store()
    row = created_row(first)._replace(state=State.FAILED, attempt=2, error_type="E")
    stream.parts.rows[first.task_id] = row
    stream.parts.bus.publish_over([Over(first.task_id, 2), over(second)])
    assert sorted(await stream.read_all()) == [0, 1]
    (failed,) = [result.task for result in stream.results if result.index == 0]
    assert (failed.attempt, failed.error.type) == (2, "E")


async def test_changes_that_are_no_ends_are_not_told(stream: Stream) -> None:
    first, second = await stream.submitted()
    await stream.store()
    await stream.read()
    running = created_row(first)._replace(state=State.RUNNING, worker_id="w")
    stream.parts.bus.publish_rows([running])
    retried = created_row(first)._replace(state=State.RETRYING, attempt=2)
    stream.parts.bus.publish_rows([retried])
    assert stream.results == []
    late = Finish(first.task_id, 2, State.SUCCEEDED, 1, 2, "w")
    stream.parts.bus.publish_over([Over(first.task_id, 2, late, 3), over(second)])
    assert await stream.read_all() == [0, 1]
    assert stream.results[0].task.attempt == 2


async def test_one_that_has_come_back_may_stand_for_another_one(stream: Stream) -> None:
    first, second = await stream.submitted()
    stream.parts.bus.publish_over([over(first)])
    await stream.read()
    stream.parts.rows[first.task_id] = created_row(first)._replace(state=State.SUCCEEDED)
    await stream.store(Accepted(others={second.task_id: Answer(first.task_id, Verdict.EXISTING)}))
    assert await stream.read_all() == [0, 1]
    assert len({result.task.task_id for result in stream.results}) == 1


async def test_what_has_ended_and_was_not_read_takes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "MAX_RUN_TASKS", 2)
    more = asyncio.Event()
    stream = Stream(more)
    first, second = await stream.submitted()
    stream.parts.answers[0].set_result(Accepted())
    stream.parts.bus.publish_over([over(first), over(second)])
    more.set()
    await stream.goes_on()
    assert len(stream.parts.answers) == 1
    await stream.read()
    assert sorted(result.index for result in stream.results) == [0, 1]
    # What was said last is written when the next is asked for.
    reading = asyncio.create_task(stream.read())
    await stream.goes_on()
    assert len(stream.parts.answers) == 2
    reading.cancel()
    stream.intake.cancel()


async def test_what_was_refused_and_was_not_read_takes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "MAX_RUN_TASKS", 2)
    more = asyncio.Event()
    stream = Stream(more)
    tasks = await stream.submitted()
    stream.parts.answers[0].set_result(Accepted(refused=frozenset(task.task_id for task in tasks)))
    await stream.goes_on()
    more.set()
    await stream.goes_on()
    assert len(stream.parts.answers) == 1
    await stream.read()
    assert [result.index for result in stream.results] == [0, 1]
    stream.intake.cancel()


async def test_nothing_is_heard_of_strangers(stream: Stream) -> None:
    first, second = await stream.submitted()
    await stream.store()
    stream.run.put(Gone(bytes(16)), 0)
    stream.parts.bus.publish_over([over(first), over(second)])
    assert await stream.read_all() == [0, 1]
