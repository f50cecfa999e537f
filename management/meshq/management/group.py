"""Group commit: callers that come at the same time share one transaction.

Callers put their work on a bounded queue and wait. Each lane takes what has gathered, up to a size,
and writes it in one go; with two lanes one gathers and encodes while the other waits for the disk. A
lonely caller waits for nobody; where many come, a lane lets more gather first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from meshq.contract.errors import MeshqError, Overloaded, Reason
from meshq.mesh.gathering import Gathering
from meshq.mesh.lifecycle import cancelled
from meshq.mesh.telemetry import logger

_log = logger(__name__)

W = TypeVar("W")
R = TypeVar("R")

_RETRY_DELAY = 1.0


class _Waiting(NamedTuple, Generic[W, R]):
    work: W
    items: int
    size: int
    answer: asyncio.Future[R]


class GroupWriter(Generic[W, R]):
    """Writes what callers submit, in groups.

    Args:
        name: For the log and the name of the tasks.
        write: Writes a group; returns one answer for each work, in order, where an error is an answer too.
            What it raises is the answer to all.
        lanes: How many groups are written at a time.
        group_items: Items of a group at most, unless a single work has more.
        group_bytes: Bytes of a group at most, likewise.
        queue_items: Items that may wait; more are refused.
        queue_bytes: Bytes that may wait, likewise.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[W]], Awaitable[Sequence[R | MeshqError]]],
        *,
        lanes: int,
        group_items: int = 1_000,
        group_bytes: int = 4 << 20,
        queue_items: int = 50_000,
        queue_bytes: int = 128 << 20,
    ) -> None:
        self._name = name
        self._write = write
        self._lanes = lanes
        self._group_items = group_items
        self._group_bytes = group_bytes
        self._queue_items = queue_items
        self._queue_bytes = queue_bytes
        self._waiting: deque[_Waiting[W, R]] = deque()
        self._items = 0
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._gathering = Gathering()

    async def start(self) -> None:
        """Begin to write."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._run(), name=f"{self._name}-{lane}") for lane in range(self._lanes)
            ]

    async def stop(self) -> None:
        """End; callers that still wait are cancelled."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            await cancelled(task)
        while self._waiting:
            self._waiting.popleft().answer.cancel()

    def submit(self, work: W, items: int, size: int) -> asyncio.Future[R]:
        """Put work on the queue.

        Returns:
            The answer, when the group that has the work is written.

        Raises:
            Overloaded: Too much waits already.
        """
        if self.full:
            raise Overloaded(
                "Too many requests wait for the ledger.", Reason.BACKLOG_FULL, retry_delay=_RETRY_DELAY
            )
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._gathering.came(items, others=bool(self._waiting))
        self._waiting.append(_Waiting(work, items, size, answer))
        self._items += items
        self._bytes += size
        self._arrived.set()
        return answer

    @property
    def full(self) -> bool:
        """Whether no more work is taken now."""
        return self._items >= self._queue_items or self._bytes >= self._queue_bytes

    async def room(self) -> None:
        """Wait until work is taken; for streams, which read no further meanwhile."""
        while self.full:
            self._room.clear()
            await self._room.wait()

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if self._items < self._group_items:
                await self._gathering.company()
            group = self._take()
            if group:
                with self._gathering.serving():
                    await self._write_group(group)

    def _take(self) -> list[_Waiting[W, R]]:
        group: list[_Waiting[W, R]] = []
        items = size = 0
        while self._waiting:
            first = self._waiting[0]
            if group and (items + first.items > self._group_items or size + first.size > self._group_bytes):
                break
            group.append(self._waiting.popleft())
            items += first.items
            size += first.size
        if not self._waiting:
            self._arrived.clear()
        self._items -= items
        self._bytes -= size
        self._room.set()
        return group

    async def _write_group(self, group: list[_Waiting[W, R]]) -> None:
        answers: Sequence[R | MeshqError]
        try:
            answers = await self._write([waiting.work for waiting in group])
        except MeshqError as error:
            answers = [error] * len(group)
        except Exception as error:  # noqa: BLE001
            _log.exception("a group could not be written", writer=self._name)
            for waiting in group:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        except asyncio.CancelledError:
            for waiting in group:
                waiting.answer.cancel()
            raise
        for waiting, answer in zip(group, answers, strict=True):
            _answer(waiting.answer, answer)


def _answer(future: asyncio.Future[R], answer: R | MeshqError) -> None:
    # The caller may be gone, and with it the future.
    if future.done():
        return
    if isinstance(answer, MeshqError):
        future.set_exception(answer)
    else:
        future.set_result(answer)
