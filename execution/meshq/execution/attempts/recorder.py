"""Records the ends of attempts, many in one statement.

One statement is under way at a time; what arrives meanwhile goes with the next, and when too much waits it is
answered TRY_LATER at once. Whatever is recorded
afterwards - the end that was just inserted, or an earlier one that had won - is reported to the ledger, so
that a report that an instance died over is made by the next one who asks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.execution.model import Ended, Outcome, Status
from meshq.mesh.gathering import Gathering
from meshq.mesh.lifecycle import cancelled
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_MAX_BYTES: Final = 8 * 1024 * 1024
_MAX_WAITING: Final = 50_000
_MAX_WAITING_BYTES: Final = 128 * 1024 * 1024
"""What may wait while the database is slow; beyond that the leases keep it."""
_PAUSE_AFTER_FAILURE: Final = 0.2

Key = tuple[bytes, int]
Answer = Callable[[list[Status]], None]


class Attempts(Protocol):
    """Where ends are kept."""

    async def insert(self, rows: Sequence[Ended]) -> int:
        """Record ends; returns how many were new."""

    async def get(self, keys: Sequence[Key]) -> dict[Key, Ended]:
        """The recorded ends among some attempts."""


class Reports(Protocol):
    """Who tells the ledger."""

    @property
    def full(self) -> bool:
        """Whether no more should be recorded for now."""

    def add(self, ended: Ended) -> None:
        """Report an end."""


class _Batch(NamedTuple):
    rows: Sequence[Ended]
    answer: Answer
    size: int


class Recorder:
    """See the module.

    Args:
        attempts: The database.
        reports: Gets what is recorded.
        with_error_text: Completes an end that was read from the database.
    """

    def __init__(
        self, attempts: Attempts, reports: Reports, with_error_text: Callable[[Ended], Ended]
    ) -> None:
        self._attempts = attempts
        self._reports = reports
        self._with_error_text = with_error_text
        self._batches: deque[_Batch] = deque()
        self._count = self._bytes = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._gathering = Gathering()

    async def start(self) -> None:
        """Begin to write."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="recorder")

    async def stop(self) -> None:
        """Write no more; what waits is answered TRY_LATER."""
        task, self._task = self._task, None
        if task is not None:
            await cancelled(task)
        self._count = self._bytes = 0
        while self._batches:
            batch = self._batches.popleft()
            batch.answer([Status.TRY_LATER] * len(batch.rows))

    def submit(self, rows: Sequence[Ended], answer: Answer) -> None:
        """Record ends, and answer with one status for each when it is done. `answer` must not raise."""
        if self._count >= _MAX_WAITING or self._bytes >= _MAX_WAITING_BYTES:
            answer([Status.TRY_LATER] * len(rows))
            return
        self._gathering.came(len(rows), others=bool(self._batches))
        self._queue(_Batch(rows, answer, sum(len(row.success or row.error or b"") for row in rows)))
        self._wake.set()

    def _queue(self, batch: _Batch) -> None:
        self._batches.append(batch)
        self._count += len(batch.rows)
        self._bytes += batch.size

    async def record(self, rows: Sequence[Ended]) -> list[Status]:
        """Record ends and wait for the statuses."""
        done: asyncio.Future[list[Status]] = asyncio.get_running_loop().create_future()
        self.submit(rows, lambda statuses: None if done.done() else done.set_result(statuses))
        return await done

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._batches:
                if self._count < MAX_FRAME_ITEMS:
                    await self._gathering.company()
                with self._gathering.serving():
                    await self._write(self._take())

    def _take(self) -> list[_Batch]:
        """Whole batches up to the size of a frame, at least one."""
        taken: list[_Batch] = []
        count = size = 0
        while self._batches:
            batch = self._batches[0]
            count += len(batch.rows)
            size += batch.size
            if taken and (count > MAX_FRAME_ITEMS or size > _MAX_BYTES):
                break
            taken.append(self._batches.popleft())
            self._count -= len(batch.rows)
            self._bytes -= batch.size
        return taken

    async def _write(self, batches: list[_Batch]) -> None:
        try:
            statuses = await self._settle([row for batch in batches for row in batch.rows])
        except MeshqError as error:
            _log.warning("attempts could not be recorded", count=len(batches), reason=error.message)
            statuses = [Status.TRY_LATER] * sum(len(batch.rows) for batch in batches)
            await asyncio.sleep(_PAUSE_AFTER_FAILURE)
        except asyncio.CancelledError:
            self._batches.extendleft(reversed(batches))
            raise
        except Exception as error:  # noqa: BLE001
            _log.error("attempts could not be recorded", exc_info=error)
            statuses = [Status.TRY_LATER] * sum(len(batch.rows) for batch in batches)
            await asyncio.sleep(_PAUSE_AFTER_FAILURE)
        at = 0
        for batch in batches:
            batch.answer(statuses[at : at + len(batch.rows)])
            at += len(batch.rows)

    async def _settle(self, rows: list[Ended]) -> list[Status]:
        if self._reports.full:
            return [Status.TRY_LATER] * len(rows)
        first: dict[Key, Ended] = {}
        for row in rows:
            first.setdefault(row[:2], row)
        new = await self._attempts.insert(list(first.values()))
        if new == len(rows):
            for row in rows:
                self._reports.add(row)
            return [Status.ACCEPTED] * new
        return self._compared(rows, await self._attempts.get(list(first)))

    def _compared(self, rows: list[Ended], recorded: dict[Key, Ended]) -> list[Status]:
        statuses = []
        for row in rows:
            winner = recorded.get(row[:2])
            if winner is None:
                # Deleted in between: the ledger has no use for the task any more, and says so.
                winner = row
            statuses.append(Status.ACCEPTED if _same(row, winner) else Status.LEASE_LOST)
            self._reports.add(self._with_error_text(winner)._replace(shard=row.shard))
        return statuses


_CLOSED: Final = frozenset({Outcome.LOST, Outcome.TIMED_OUT})


def _same(row: Ended, recorded: Ended) -> bool:
    """Whether what is recorded came from the same lease; one that a shard has closed is no longer a lease."""
    same_lease = (row.epoch, row.number) == (recorded.epoch, recorded.number)
    return same_lease and (recorded.outcome not in _CLOSED or row.outcome in _CLOSED)
