"""When the ends of tasks become known to somebody who watches their queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Self

from meshq.bench.handlers import CLOCK
from meshq.client import Client, Task, TaskState

_LISTENING_WITHIN = 30.0
_FIRST_WORD = 0.5
MIDDLE_OF_MS = 0.0005
"""Servers cut times to milliseconds; on average the truth is half a millisecond later."""


class Subscriber:
    """Watches a queue, and notes when it is told that a task has succeeded: `async with Subscriber(...)`.

    Attributes:
        heard: When, by task id, in seconds since 1970.
    """

    def __init__(self, client: Client, queue: str) -> None:
        self.heard: dict[str, float] = {}
        self._client = client
        self._queue = queue
        self._news = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._listening = asyncio.create_task(self._listen())
        try:
            await self._hear_anything()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listening is not None
        self._listening.cancel()
        await asyncio.wait([self._listening])

    async def until(self, task_ids: Sequence[str], seconds: float) -> None:
        """Wait until the ends of all of these are known."""
        async with asyncio.timeout(seconds):
            while not all(task_id in self.heard for task_id in task_ids):
                self._news.clear()
                await self._news.wait()

    async def _listen(self) -> None:
        async for change in self._client.watch_tasks(queue=self._queue, states=[TaskState.SUCCEEDED]):
            self.heard[change.task.task_id] = time.time()
            self._news.set()

    async def _hear_anything(self) -> None:
        """A stream tells nothing of what was before it, so a task is run until one is told of."""
        async with asyncio.timeout(_LISTENING_WITHIN):
            while not self.heard:
                task = await self._client.run(CLOCK, time.time(), queue=self._queue, check=True)
                try:
                    await self.until([task.task_id], _FIRST_WORD)
                except TimeoutError:
                    continue


def after_handler(tasks: Sequence[Task], heard: dict[str, float]) -> list[float]:
    """How long after their handlers the ends of tasks were heard of, in milliseconds.

    Handler and subscriber are on one machine, so that whatever the servers' clocks say it is right.
    """
    return [
        (heard[task.task_id] - task.result) * 1000
        for task in tasks
        if task.task_id in heard and isinstance(task.result, float)
    ]
