"""Starts that the ledger has to know of before a worker gets the task.

One call is under way at a time; what comes meanwhile goes with the next. Nothing is lost when no answer
comes: the lease goes back, and whoever takes the task next announces it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.execution.model import Action, Directive, Ended, Lease
from meshq.mesh.lifecycle import backoff, cancelled
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_MOST_PAUSE: Final = 0.5


class Ledger(Protocol):
    """Who is told."""

    async def report(self, reports: Sequence[Ended]) -> list[Directive]:
        """Report ends (or starts, with outcome 0) and get what is to be done."""


class _Start(NamedTuple):
    report: Ended
    answer: asyncio.Future[Directive]


class Announcer:
    """See the module.

    Args:
        ledger: Who is told.
        apply: Does on the shards what the ledger wants instead of a start.
    """

    def __init__(
        self, ledger: Ledger, apply: Callable[[list[Ended], list[Directive]], Awaitable[None]]
    ) -> None:
        self._ledger = ledger
        self._apply = apply
        self._waiting: list[_Start] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to tell."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="announcements")

    async def stop(self) -> None:
        """Tell no more; who waits gets no answer."""
        task, self._task = self._task, None
        if task is not None:
            await cancelled(task)

    async def announce(self, starts: Sequence[Ended], seconds: float) -> list[bool | None]:
        """Tell the ledger of starts.

        Args:
            starts: Reports with outcome 0.
            seconds: For how long to wait for the answers.

        Returns:
            For each True if the task may start, False if it may not (and the shards know by now what is to
            become of it), None if no answer came.
        """
        loop = asyncio.get_running_loop()
        told = [_Start(start, loop.create_future()) for start in starts]
        self._waiting += told
        self._wake.set()
        await asyncio.wait([start.answer for start in told], timeout=seconds)
        verdicts = [_verdict(start.answer) for start in told]
        for start in told:
            start.answer.cancel()
        dropped = [start for start, may in zip(told, verdicts, strict=True) if may is False]
        if dropped:
            directives = [start.answer.result() for start in dropped]
            await self._apply([start.report for start in dropped], directives)
        return verdicts

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            part = [start for start in self._waiting[:MAX_FRAME_ITEMS] if not start.answer.done()]
            del self._waiting[:MAX_FRAME_ITEMS]
            if not self._waiting:
                self._wake.clear()
            if not part:
                continue
            failures = 0 if await self._told(part) else failures + 1
            if failures:
                self._waiting[:0] = part
                self._wake.set()
                await asyncio.sleep(backoff(failures, first=0.05, most=_MOST_PAUSE))

    async def _told(self, part: list[_Start]) -> bool:
        try:
            directives = await self._ledger.report([start.report for start in part])
        except MeshqError as error:
            _log.warning("starts not announced", count=len(part), reason=error.message)
            return False
        except Exception as error:  # noqa: BLE001
            _log.error("starts not announced", exc_info=error)
            return False
        for start, directive in zip(part, directives, strict=True):
            if not start.answer.done():
                start.answer.set_result(directive)
        return True


def _verdict(answer: asyncio.Future[Directive]) -> bool | None:
    if not answer.done() or answer.cancelled():
        return None
    return answer.result().action == Action.KEEP


def started(lease: Lease, worker_id: str) -> Ended:
    """The report that a task has started."""
    return Ended(
        lease.task_id, lease.attempt, lease.tenant, 0, lease.epoch, lease.number, worker_id,
        lease.leased_ms, 0, None, None, "", "", lease.shard,
    )  # fmt: skip
