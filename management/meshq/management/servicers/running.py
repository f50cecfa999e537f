"""RunTasks: frames are stored as they come, and each task is returned once it has ended.

A stream listens for its tasks before they are stored: no end is missed, and one may come before the answer to
its frame. What the creation and the end of a task say need not be read from the ledger. Tasks that existed
before are read, and those of which there is more to know.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Final

from meshq.contract.errors import InvalidRequest, MeshqError, Reason, Unavailable
from meshq.contract.limits import MAX_FRAME_ITEMS, MAX_RUN_TASKS, STREAM_KEEPALIVE_SECONDS
from meshq.contract.status import to_status
from meshq.management.conversion.values import text_id
from meshq.management.create import Accepted
from meshq.management.ledger import task_missing
from meshq.management.model.claims import Answer, ClaimKind, Submission, Verdict
from meshq.management.model.task import NewTask, TaskId, TaskRow, created_row
from meshq.management.servicers.ingest import stored
from meshq.management.servicers.parts import TaskParts
from meshq.management.servicers.reading import read_ids
from meshq.management.servicers.requests import Entry, Frame, all_stored, answers, frame
from meshq.management.servicers.views import VIEW_RESULT, read_view
from meshq.management.watch.bus import Event, Gone, Over
from meshq.management.watch.watchers import later, with_end
from meshq.v1 import task_service_pb2

_Request = task_service_pb2.RunTasksRequest
_Response = task_service_pb2.RunTasksResponse

_NOTHING: Final = Submission([], None, 0)


async def run_tasks(parts: TaskParts, requests: AsyncIterator[_Request]) -> AsyncIterator[_Response]:
    """Serve one stream.

    Args:
        parts: The use cases.
        requests: The frames.

    Raises:
        MeshqError: A frame as a whole was refused, the caller is too slow, or the instance stops.
    """
    run = Run(parts)
    intake = asyncio.create_task(run.take(requests))
    with parts.watchers.attach(run):
        try:
            while (response := await run.response()) is not None:
                yield response
        finally:
            intake.cancel()
            await asyncio.gather(intake, return_exceptions=True)
            run.leave()


class _Open:
    """A task that was not returned yet.

    Attributes:
        row: As far as it is known.
        indexes: Its places in the stream; several where it stands for others that were given.
    """

    __slots__ = ("indexes", "row")

    def __init__(self, row: TaskRow | None, indexes: list[int]) -> None:
        self.row = row
        self.indexes = indexes


class Run:
    """The state of one stream: its open tasks, and what is to be said next. It is a `Listener`.

    Args:
        parts: The use cases.
    """

    news = rows = False

    def __init__(self, parts: TaskParts) -> None:
        self._parts = parts
        self._view: int | None = None
        self._open: dict[TaskId, _Open] = {}
        self._room = asyncio.Event()
        self._taken = self._settled = self._said = self._frames = 0
        self._all_taken = False
        self._failure: Exception | None = None
        self._unread: set[TaskId] = set()
        self._ended: list[tuple[TaskRow, _Open]] = []
        self._left: set[TaskId] = set()
        self._next = _Response()
        self._woken = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether no more frames come, and every task was returned."""
        return self._all_taken and not (self._failure or self._open or self._something)

    @property
    def _something(self) -> bool:
        return bool(self._ended or self._unread or self._next.frames or self._next.results)

    def leave(self) -> None:
        """Hear of nothing more."""
        self._parts.watchers.leave(self, self._left.union(self._open))

    async def take(self, requests: AsyncIterator[_Request]) -> None:
        """Store the frames."""
        parts = self._parts
        try:
            async for checked, accepted in stored(parts.creator, self, requests, parts.stopping):
                self._settle(checked, accepted)
                self._woken.set()
        except Exception as error:  # noqa: BLE001
            # Whatever it is, it is raised where the answers are made, behind what there is to say.
            self._failure = error
        self._all_taken = True
        self._woken.set()

    def check(self, request: _Request) -> Frame:
        """See `meshq.management.servicers.ingest.Intake`."""
        if self._view is None:
            self._view = read_view(request.view, default=VIEW_RESULT)
        if not request.task_ids:
            size = request.ByteSize()
            return frame(ClaimKind.RUN, request.tasks, size, request.request_id, self._parts.admission)
        if request.tasks:
            raise InvalidRequest.field("task_ids", "exactly one of tasks and task_ids must be set, not both")
        return Frame(_NOTHING, [Answer(id_, Verdict.EXISTING) for id_ in read_ids(request.task_ids)], None)

    async def admit(self, checked: Frame) -> None:
        """See `meshq.management.servicers.ingest.Intake`."""
        await self._parts.creator.room()
        # What is not written yet counts, as somebody may send and not read.
        while self._taken - self._said >= MAX_RUN_TASKS:
            self._room.clear()
            await self._room.wait()
        for index, entry in enumerate(checked.entries, self._taken):
            if isinstance(entry, NewTask):
                self._open[entry.task_id] = _Open(created_row(entry), [index])
        self._taken += len(checked.entries)
        new = [task.task_id for task in checked.submission.tasks]
        self._parts.watchers.follow(self, new)

    def _settle(self, checked: Frame, accepted: Accepted | None) -> None:
        """A frame was stored."""
        tasks = checked.submission.tasks
        if all_stored(accepted) and len(tasks) == len(checked.entries):
            ids = [text_id(task.task_id) for task in tasks]
        else:
            ids = [
                self._settle_one(index, *each)
                for index, each in enumerate(answers(checked, accepted), self._settled)
            ]
        self._settled += len(ids)
        self._next.frames.add(frame=self._frames, task_ids=ids)
        self._frames += 1

    def _settle_one(self, index: int, entry: Entry, task_id: TaskId, error: MeshqError | None) -> str:
        """One task of a frame was stored, or refused, or another one stands for it."""
        if isinstance(entry, NewTask):
            if entry.task_id == task_id and not error:
                return text_id(task_id)
            self._drop(entry.task_id)
        if error:
            self._fail([index], error)
            return ""
        if task_id not in self._open:
            self._open[task_id] = _Open(None, [])
            self._parts.watchers.follow(self, [task_id])
        self._open[task_id].indexes.append(index)
        self._unread.add(task_id)
        return text_id(task_id)

    async def response(self) -> _Response | None:
        """What there is to say, once there is something; after a while an empty one, and None at the end."""
        self._room.set()
        await self._wait()
        await self._read()
        self._part()
        response, self._next = self._next, _Response()
        ended, self._ended = self._ended, []
        if ended:
            # What ends meanwhile comes behind what did not fit.
            self._ended = ended[await self._add(response, ended[:MAX_FRAME_ITEMS]) :] + self._ended
        self._said += len(response.results)
        return None if self.over and not (response.frames or response.results) else response

    async def _wait(self) -> None:
        if self._something or self.over:
            return
        if self._failure:
            raise self._failure
        self._woken.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(STREAM_KEEPALIVE_SECONDS):
                await self._woken.wait()

    async def _add(self, response: _Response, ended: Sequence[tuple[TaskRow, _Open]]) -> int:
        """Add as many tasks as fit into a response; returns how many those are."""
        assert self._view is not None
        tasks = await self._parts.views.page([row for row, _ in ended], self._view)
        add = response.results.add
        for task, (_, open_) in zip(tasks, ended, strict=False):
            for index in open_.indexes:
                add(index=index).task.CopyFrom(task)
        return len(tasks)

    def put(self, event: Event, size: int) -> None:
        """See `Listener`. Only ends are kept, each once, so that nobody can be too slow."""
        del size
        if not isinstance(event, Over | TaskRow | Gone) or (open_ := self._open.get(event.task_id)) is None:
            return
        row = open_.row
        if isinstance(event, Over) and row is not None and event.end is not None:
            self._end(with_end(row, event.end, event.max_attempts), open_)
        elif isinstance(event, TaskRow) and row is not None:
            open_.row = later(event, row)
            if open_.row.ended:
                self._end(open_.row, open_)
        else:
            self._unread.add(event.task_id)
            self._woken.set()

    def drain(self) -> None:
        """See `Listener`."""
        self._failure = self._failure or Unavailable(
            "This instance stops; call again.", Reason.DRAINING, retry_delay=0.1
        )
        self._woken.set()

    async def _read(self) -> None:
        """Read tasks of which it is not known how they stand."""
        unread, self._unread = list(self._unread), set()
        for start in range(0, len(unread), MAX_FRAME_ITEMS):
            part = unread[start : start + MAX_FRAME_ITEMS]
            rows = await self._parts.ledger.get_tasks(part, full=False)
            for task_id in part:
                if task_id in self._open:
                    self._see(task_id, rows.get(task_id), self._open[task_id])

    def _see(self, task_id: TaskId, row: TaskRow | None, open_: _Open) -> None:
        if row is not None:
            open_.row = row
            if row.ended:
                self._end(row, open_)
        elif open_.indexes[0] < self._settled:
            self._drop(task_id)
            self._fail(open_.indexes, task_missing(task_id))

    def _end(self, row: TaskRow, open_: _Open) -> None:
        self._drop(row.task_id)
        self._ended.append((row, open_))
        self._woken.set()

    def _drop(self, task_id: TaskId) -> None:
        """Wait no longer for a task."""
        del self._open[task_id]
        self._left.add(task_id)

    def _part(self) -> None:
        """Hear no more of the tasks that are not waited for."""
        left, self._left = self._left, set()
        self._parts.watchers.leave(self, left.difference(self._open))

    def _fail(self, indexes: Sequence[int], error: MeshqError) -> None:
        for index in indexes:
            self._next.results.add(index=index, error=to_status(error))
