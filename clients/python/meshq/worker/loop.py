"""Coroutine functions in an event loop of their own, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence

from meshq.worker.context import News
from meshq.worker.jobs import Board, Job


class LoopRunner:
    """Runs jobs as asyncio tasks, up to `slots` at a time."""

    def __init__(self, slots: int, board: Board, news: News) -> None:
        self._slots = slots
        self._board = board
        self._news = news
        self._waiting: deque[Job] = deque()
        self._running = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="meshq-loop", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs; returns at once."""
        self._loop.call_soon_threadsafe(self._accept, jobs)

    def cancel(self, job: Job) -> None:
        """Cancel the task of a running job."""
        # Once more through the loop: a task that is cancelled before its first step runs nothing at all,
        # not even what answers the job.
        self._loop.call_soon_threadsafe(self._loop.call_soon, _cancel, job)

    def stop(self, seconds: float) -> None:
        """End the loop; a handler that blocks it is left behind after so many seconds."""
        self._waiting.clear()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(seconds)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._cancel_all())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    def _accept(self, jobs: Sequence[Job]) -> None:
        self._waiting.extend(jobs)
        self._begin()

    def _begin(self) -> None:
        while self._waiting and self._running < self._slots:
            job = self._waiting.popleft()
            if not job.claim():
                self._board.finish(job, job.stopped())
                continue
            self._running += 1
            job.handle = self._loop.create_task(self._run(job))

    async def _run(self, job: Job) -> None:
        try:
            args, keywords = job.bind(self._news)
            result = job.succeeded(await job.handler.function(*args, **keywords))
        except BaseException as error:  # noqa: BLE001 - whatever it raises is the task's outcome
            self._board.finish(job, job.failed(error))
        else:
            self._board.finish(job, result)
        finally:
            self._running -= 1
            self._begin()


def _cancel(job: Job) -> None:
    if job.handle is not None:
        job.handle.cancel()
