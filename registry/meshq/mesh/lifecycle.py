"""Background services, the one loop that most of them are, and the two signals that end a process."""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

from meshq.mesh.telemetry import logger

_log = logger(__name__)

_FIRST_BACKOFF = 0.2
_MAX_BACKOFF = 10.0

_CANCEL_AGAIN_SECONDS: Final = 0.2

_TICK_SECONDS: Final = 1.0
_JUST_SECONDS: Final = 0.002
"""Timers may fire so early."""
_GOLDEN: Final = 0.618
"""What follows each other in whole numbers is far apart in multiples of it, but for their whole part."""


class Background(Protocol):
    """Something that runs beside the server. Both methods tolerate being called twice."""

    async def start(self) -> None:
        """Begin; returns when it runs."""

    async def stop(self) -> None:
        """End; returns when nothing of it runs any more."""


class Repeater:
    """Runs something every so often, and at once when it is woken.

    Pauses of a second and more end up to a second early, so that all of a process end together: waking costs
    more than most of what is done then.

    Args:
        name: For the log.
        run_once: Does it once; may return the seconds until the next time.
        interval: Seconds until the next time when `run_once` returns None.
    """

    def __init__(self, name: str, run_once: Callable[[], Awaitable[float | None]], interval: float) -> None:
        self._name = name
        self._run_once = run_once
        self._interval = interval
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Run as soon as the current run is over; several wakes are one."""
        self._wake.set()

    async def start(self) -> None:
        """Begin with a run at once."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """Interrupt the run or the pause."""
        task, self._task = self._task, None
        if task is not None:
            await cancelled(task)

    async def _run(self) -> None:
        failures = 0
        while True:
            self._wake.clear()
            try:
                pause = await self._run_once()
                failures = 0
            except Exception as error:  # noqa: BLE001
                failures += 1
                pause = backoff(failures)
                _log.warning(
                    "background run failed", task=self._name, retry_in=round(pause, 2), exc_info=error
                )
            await self._pause(self._interval if pause is None else pause)

    async def _pause(self, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(tick_before(now, seconds, _offset())):
                await self._wake.wait()


def tick_before(now: float, seconds: float, offset: float) -> float:
    """When a pause ends that lasts so long at most: just after its last tick, if there is one in it.

    Args:
        now: The loop's time.
        seconds: How long the pause is.
        offset: When the process ticks, in seconds after each whole one.
    """
    end = now + seconds
    if seconds < _TICK_SECONDS:
        return end
    tick = math.floor(end - offset) + offset
    return min(tick + _JUST_SECONDS, end) if tick > now else end


def _offset() -> float:
    # Processes of one machine share the clock, and are not to wake at the same time.
    return os.getpid() * _GOLDEN % 1


def backoff(failures: int, *, first: float = _FIRST_BACKOFF, most: float = _MAX_BACKOFF) -> float:
    """Seconds to wait after so many failures in a row: doubling, with jitter, bounded."""
    return min(most, first * 2.0 ** min(failures - 1, 30)) * random.uniform(0.8, 1.2)  # noqa: S311


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel a task of one's own and wait until it is over.

    It is cancelled again until it is: before Python 3.12 `asyncio.wait_for`, and whatever is built on it,
    swallows a cancellation that comes at the moment its wait ends.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_AGAIN_SECONDS)
    if not task.cancelled():
        task.result()


class StopSignals:
    """SIGTERM and SIGINT: the first asks the process to stop, the second to hurry.

    Attributes:
        stop: Set by the first signal.
        hurry: Set by the second.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()

    def install(self) -> None:
        """Listen; on the main thread, inside of the loop."""
        for number in self._SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._received)

    def _received(self) -> None:
        if self.stop.is_set():
            self.hurry.set()
        self.stop.set()

    async def bounded(self, work: Awaitable[object], seconds: float, hurried_seconds: float = 1.0) -> bool:
        """Do something until it is done or the time is over.

        Args:
            work: What is done; cancelled when the time is over.
            seconds: How long it may take.
            hurried_seconds: How long it may go on after a second signal.

        Returns:
            Whether it was done.
        """
        doing = asyncio.ensure_future(work)
        hurried = asyncio.create_task(self.hurry.wait())
        try:
            await asyncio.wait({doing, hurried}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if hurried.done() and not doing.done():
                await asyncio.wait({doing}, timeout=min(hurried_seconds, seconds))
            if doing.done():
                await doing
                return True
            return False
        finally:
            for task in (doing, hurried):
                task.cancel()
            await asyncio.gather(doing, hurried, return_exceptions=True)
