"""Running many tasks with asyncio: tasks are created, waited for and handed out at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from typing import Any

from meshq.client.models import Awaited, Created, Ran
from meshq.client.operations import Operation
from meshq.client.runs import Runs
from meshq.contract.errors import MeshqError


class AsyncRuns:
    """Drives `Runs`.

    Args:
        runs: The state.
        created: Creates the tasks.
        perform: Makes a call.
    """

    def __init__(
        self,
        runs: Runs,
        created: AsyncGenerator[Created, None],
        perform: Callable[[Operation[Awaited]], Awaitable[Awaited]],
    ) -> None:
        self._runs = runs
        self._created = created
        self._perform = perform
        self._ended: list[Ran] = []
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def ended(self) -> AsyncGenerator[Ran, None]:
        """What became of the tasks, as they end.

        Raises:
            MeshqError: A call has failed for good.
        """
        self._go(self._create())
        try:
            while self._failure is None:
                ended, self._ended = self._ended, []
                for ran in ended:
                    yield ran
                self._room.set()
                self._news.clear()
                if not self._ended:
                    if self._runs.finished:
                        return
                    await self._news.wait()
            raise self._failure
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _create(self) -> None:
        async with aclosing(self._created) as all_created:
            async for created in all_created:
                self._hear(self._runs.created(created))
                await self._wait_for_room()
        self._runs.all_created()
        self._hear(())

    async def _wait_for_room(self) -> None:
        while self._runs.full:
            self._room.clear()
            await self._room.wait()

    def _wait_for_more(self) -> None:
        while group := self._runs.take():
            self._go(self._wait_for(group))

    async def _wait_for(self, group: Sequence[str]) -> None:
        try:
            answer = await self._perform(self._runs.operation(group))
        except MeshqError as error:
            self._runs.failed(group, error)
            self._hear(())
        else:
            self._hear(self._runs.awaited(group, answer))

    def _hear(self, ended: Iterable[Ran]) -> None:
        self._ended.extend(ended)
        self._wait_for_more()
        if self._ended or self._runs.finished:
            self._news.set()

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
            self._news.set()
