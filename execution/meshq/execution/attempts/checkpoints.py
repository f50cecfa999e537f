"""Checkpoints: written behind, and read when the next attempt is handed out.

A task's first checkpoint is written at once, the next ones at most every `CHECKPOINT_INTERVAL_SECONDS`; what
waits is written before an end of the attempt is recorded here. Whoever hands the task out again reads the
table, and what waits in this instance. A worker that polls may report the end to another instance, so what it
says is written before it is answered.

While the database is away only so many bytes wait; what comes above that is dropped, and a later attempt
goes on from an earlier point.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from time import monotonic
from typing import Final, Protocol

from prometheus_client import Counter

from meshq.contract.errors import MeshqError
from meshq.contract.limits import CHECKPOINT_INTERVAL_SECONDS, MAX_CHECKPOINT_BYTES, MAX_FRAME_BYTES
from meshq.execution.model import Checkpoint, Ended, Outcome
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_IDLE_SECONDS: Final = 3_600.0
_AT_ONCE: Final = MAX_FRAME_BYTES // MAX_CHECKPOINT_BYTES
_MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
_DROPPED: Final = Counter("meshq_checkpoints_dropped", "Checkpoints dropped since too many waited.")


class Store(Protocol):
    """Where checkpoints are kept."""

    async def store(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Keep checkpoints, at most one of each task."""

    async def load(self, task_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """The checkpoints of those of some tasks that have one."""


class Checkpoints:
    """See the module.

    Args:
        store: The database.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting = _Waiting()
        self._under_way: set[bytes] = set()
        # Tasks that may be written now, and those whose last write is too young, with their times.
        self._ready: dict[bytes, None] = {}
        self._resting: dict[bytes, float] = {}
        self._order: deque[tuple[float, bytes]] = deque()
        self._writing = asyncio.Lock()
        self._repeater = Repeater("checkpoints", self.run_once, _IDLE_SECONDS)

    async def start(self) -> None:
        """Begin to write."""
        await self._repeater.start()

    async def stop(self) -> None:
        """Write what waits, and no more."""
        await self._repeater.stop()
        if self._waiting:
            await self._write(list(self._waiting))

    def take(self, checkpoint: Checkpoint) -> None:
        """A handler has reached a point; it takes the place of the one before."""
        task_id = checkpoint.task_id
        waiting = self._waiting.get(task_id)
        if waiting is not None and waiting.attempt > checkpoint.attempt:
            return
        if not self._waiting.put(checkpoint, _MAX_WAITING_BYTES):
            _DROPPED.inc()
            return
        if task_id not in self._resting:
            self._ready[task_id] = None
            self._repeater.wake()

    async def keep(self, task_ids: Sequence[bytes]) -> None:
        """Write what waits of tasks now; what cannot be written is tried again later."""
        try:
            await self._write(task_ids)
        except MeshqError as error:
            _log.warning("checkpoints of polled tasks not written yet", reason=error.message)

    async def of(self, task_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """The latest checkpoints of tasks; raises `MeshqError` when the database does not answer."""
        found = await self._store.load(task_ids)
        for task_id in task_ids:
            waiting = self._waiting.get(task_id)
            if waiting is not None:
                found[task_id] = waiting.content
        return found

    def concern(self, rows: Iterable[Ended]) -> bool:
        """Whether checkpoints of ending attempts wait: they are to be `settled` first."""
        if not self._waiting and not self._under_way:
            return False
        return any(row.task_id in self._waiting or row.task_id in self._under_way for row in rows)

    async def settle(self, rows: Sequence[Ended]) -> None:
        """Write what waits of attempts that end; raises `MeshqError` when the database does not answer."""
        for row in rows:
            if row.outcome == Outcome.SUCCEEDED:
                self._waiting.pop(row.task_id)
                self._ready.pop(row.task_id, None)
        await self._write([row.task_id for row in rows if row.outcome != Outcome.SUCCEEDED])

    async def run_once(self) -> float:
        """Write what may be written; returns the seconds until there may be more."""
        now = monotonic()
        while self._order and self._order[0][0] <= now:
            _, task_id = self._order.popleft()
            if self._resting.get(task_id, now) <= now:
                self._resting.pop(task_id, None)
                if task_id in self._waiting:
                    self._ready[task_id] = None
        await self._write(list(self._ready))
        return self._order[0][0] - monotonic() if self._order else _IDLE_SECONDS

    async def _write(self, task_ids: Sequence[bytes]) -> None:
        """Write what waits of some tasks, and return when no older write of them is under way."""
        async with self._writing:
            left = dict.fromkeys(task_id for task_id in task_ids if task_id in self._waiting)
            while left:
                part = list(islice(left, _AT_ONCE))
                await self._write_part([task_id for task_id in part if task_id in self._waiting])
                for task_id in part:
                    del left[task_id]

    async def _write_part(self, task_ids: list[bytes]) -> None:
        if not task_ids:
            return
        rows = [row for task_id in task_ids if (row := self._waiting.pop(task_id)) is not None]
        self._under_way = set(task_ids)
        try:
            await self._store.store(rows)
        except BaseException:
            for row in rows:
                if row.task_id not in self._waiting:
                    self._waiting.put(row)
            raise
        finally:
            self._under_way = set()
        until = monotonic() + CHECKPOINT_INTERVAL_SECONDS
        for task_id in task_ids:
            self._ready.pop(task_id, None)
            self._resting[task_id] = until
            self._order.append((until, task_id))


class _Waiting:
    """The checkpoints that are to be written, one of each task, and how many bytes they are."""

    def __init__(self) -> None:
        self._rows: dict[bytes, Checkpoint] = {}
        self._bytes = 0

    def __contains__(self, task_id: bytes) -> bool:
        return task_id in self._rows

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, task_id: bytes) -> Checkpoint | None:
        """That of a task."""
        return self._rows.get(task_id)

    def put(self, row: Checkpoint, most: int | None = None) -> bool:
        """Add one in the place of its task's former one; False when that would be more than so many bytes."""
        before = self._rows.get(row.task_id)
        size = self._bytes + len(row.content) - (len(before.content) if before else 0)
        if most is not None and size > most:
            return False
        self._rows[row.task_id] = row
        self._bytes = size
        return True

    def pop(self, task_id: bytes) -> Checkpoint | None:
        """Take that of a task away."""
        row = self._rows.pop(task_id, None)
        self._bytes -= len(row.content) if row else 0
        return row
