"""Following one task from a snapshot to its end.

The subscription comes before the snapshot, so that nothing falls between them, and events that are not
newer than what was shown are dropped. What a stream between instances loses is found by reading the
watched rows again: after every gap, and every ten seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Final, TypeAlias

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS, STREAM_KEEPALIVE_SECONDS
from meshq.management.ledger import Ledger, one_task, task_missing
from meshq.management.model.reports import Finish
from meshq.management.model.states import newer
from meshq.management.model.task import TaskId, TaskRow
from meshq.management.watch.bus import Bus, Event, Gone, Listener, News, Over, Subscription
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_REREAD_SECONDS: Final = 10.0

Step: TypeAlias = TaskRow | News | None
"""A state, the first one with the specification; news; or None when nothing happened for a while."""


class Watchers:
    """Serves watches.

    Args:
        ledger: Where snapshots come from.
        bus: Where events come from.
        keepalive: Seconds after which a silent watch says that it lives.
    """

    def __init__(self, ledger: Ledger, bus: Bus, *, keepalive: float = STREAM_KEEPALIVE_SECONDS) -> None:
        self._ledger = ledger
        self._bus = bus
        self._keepalive = keepalive
        self._rereading = Repeater("watched tasks", self.reread, _REREAD_SECONDS)
        self._reading = Repeater("ended tasks", self._read_unread, _REREAD_SECONDS)
        bus.on_unread(self._reading.wake)

    async def start(self) -> None:
        """Begin to read what watchers have to be told."""
        await self._rereading.start()
        await self._reading.start()

    async def stop(self) -> None:
        """Read nothing more."""
        await self._rereading.stop()
        await self._reading.stop()

    def gap(self) -> None:
        """Something may have been missed: read the watched rows again, now."""
        self._rereading.wake()

    async def reread(self) -> None:
        """Read the rows of all watched tasks and publish them."""
        await self._read(self._bus.watched)

    async def _read_unread(self) -> None:
        # What comes while this reads is read together, next.
        await self._read(self._bus.take_unread())

    async def _read(self, task_ids: Sequence[TaskId]) -> None:
        for start in range(0, len(task_ids), MAX_FRAME_ITEMS):
            page = task_ids[start : start + MAX_FRAME_ITEMS]
            try:
                rows = await self._ledger.get_tasks(page, full=False)
            except MeshqError as error:
                _log.info("watched tasks not read", reason=error.message)
                return
            self._bus.publish_rows(list(rows.values()))
            self._bus.publish_gone([task_id for task_id in page if task_id not in rows])

    async def watch(self, task_id: TaskId) -> AsyncIterator[Step]:
        """The task as it stands, then what happens, up to and including its end.

        Raises:
            NotFound: There is no such task, or it was deleted meanwhile.
            Aborted: The caller is too slow.
        """
        with self._bus.subscribe(task_id, news=True) as subscription:
            row = await one_task(self._ledger, task_id, full=True)
            yield row
            while not row.ended:
                event = await subscription.next(self._keepalive)
                if isinstance(event, TaskRow):
                    if not newer(event.attempt, event.state, row.attempt, row.state):
                        continue
                    row = completed(event, row)
                    yield row
                else:
                    yield _still_there(event)

    async def ended(self, task_id: TaskId, seconds: float) -> TaskRow:
        """The task when it has ended, or as it stands when the time is over, with its specification.

        Raises:
            NotFound: There is no such task, or it was deleted meanwhile.
        """
        with self._bus.subscribe(task_id, news=False) as subscription:
            row = await one_task(self._ledger, task_id, full=True)
            return await self.end_of(subscription, row, seconds)

    def expect(self, *task_ids: TaskId) -> AbstractContextManager[Subscription]:
        """Hear of tasks that are about to be created, so that what becomes of them need not be read."""
        return self._bus.subscribe(*task_ids, news=False)

    def attach(self, listener: Listener) -> AbstractContextManager[None]:
        """Let somebody hear of tasks that come and go meanwhile; see `follow` and `leave`."""
        return self._bus.attach(listener)

    def follow(self, listener: Listener, task_ids: Iterable[TaskId]) -> None:
        """Let who is attached hear of more tasks."""
        self._bus.add(listener, task_ids)

    def leave(self, listener: Listener, task_ids: Iterable[TaskId]) -> None:
        """Let it hear of tasks no more."""
        self._bus.remove(listener, task_ids)

    async def some_ended(
        self, task_ids: Sequence[TaskId], *, any_is_enough: bool, seconds: float
    ) -> dict[TaskId, TaskRow]:
        """Tasks when any or all of them have ended, or as they stand when the time is over.

        Without their specifications, and without those that are not there.
        """
        ids = list(dict.fromkeys(task_ids))
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        with self._bus.subscribe(*ids, news=False, rows=False) as subscription:
            rows = await self._ledger.get_tasks(ids, full=False)
            going = {task_id for task_id, row in rows.items() if not row.ended}
            unread: set[TaskId] = set()
            enough = any_is_enough and len(going) < len(rows)
            while going and not enough and (left := deadline - clock()) > 0:
                event = await subscription.next(left)
                if isinstance(event, Gone):
                    rows.pop(event.task_id, None)
                    going.discard(event.task_id)
                elif isinstance(event, TaskRow) and event.task_id in rows:
                    rows[event.task_id] = later(event, rows[event.task_id])
                    if event.ended:
                        going.discard(event.task_id)
                        enough = any_is_enough
                elif isinstance(event, Over) and event.task_id in going:
                    if event.end is None:
                        unread.add(event.task_id)
                    else:
                        rows[event.task_id] = with_end(rows[event.task_id], event.end, event.max_attempts)
                    going.discard(event.task_id)
                    enough = any_is_enough
        return rows | await self._ledger.get_tasks(list(unread), full=False) if unread else rows

    async def end_of(self, subscription: Subscription, row: TaskRow, seconds: float) -> TaskRow:
        """As `ended`, of a task whose subscription is older than the row.

        Raises:
            NotFound: It was deleted meanwhile.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while not row.ended and (left := deadline - clock()) > 0:
            event = await subscription.next(left)
            if isinstance(event, TaskRow) and newer(event.attempt, event.state, row.attempt, row.state):
                row = completed(event, row)
            elif isinstance(event, Gone):
                # Somebody has deleted it, or it was looked for when it was not stored yet.
                row = await one_task(self._ledger, event.task_id, full=True)
        return row


def later(event: TaskRow, known: TaskRow) -> TaskRow:
    """The newer one of both, with all that is known."""
    if newer(event.attempt, event.state, known.attempt, known.state):
        return completed(event, known)
    return known


def completed(event: TaskRow, known: TaskRow) -> TaskRow:
    """An event with what the snapshot knows and events do not carry."""
    ready_ms = event.ready_ms or known.ready_ms
    return event._replace(max_attempts=known.max_attempts, ready_ms=ready_ms, spec=known.spec)


def with_end(known: TaskRow, end: Finish, max_attempts: int) -> TaskRow:
    """A task of which its creation and its end say everything."""
    _, attempt, state, start_ms, end_ms, worker_id, error_type, error_message = end
    how = (start_ms, end_ms, worker_id, error_type or None, error_message or None)
    return TaskRow._make((*known[:4], state, attempt, max_attempts, known.ready_ms, *how, *known[13:]))


def _still_there(event: Event | None) -> News | None:
    if isinstance(event, Gone):
        raise task_missing(event.task_id, "Meanwhile somebody has deleted task {}.")
    return event if isinstance(event, News) else None
