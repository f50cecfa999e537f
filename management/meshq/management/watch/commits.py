"""The numbered commits of this instance, and who among the other instances wants them.

Each change gets the next number, whether somebody listens or not; a listener that was left out for a
while sees the gap in the numbers and reads what it watches from the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from meshq.management.model.task import NewTask, TaskRow, created_row
from meshq.management.watch.bus import Bus, Committed, Over

_MAX_WAITING: Final = 20_000


class Batch(NamedTuple):
    """What a listener is sent.

    Attributes:
        changes: What was committed, oldest first.
        sequence: The number of the last one; with no changes, of the last commit so far.
        changed_queues: Tenant and name of queues whose settings have changed.
    """

    changes: list[Committed]
    sequence: int
    changed_queues: Sequence[tuple[str, str]] = ()


class CommitListener:
    """One other instance.

    Attributes:
        interested: Whether commits are wanted now.
        creations: Whether new tasks are wanted as well.
        ended: Whether nothing more will come.
    """

    def __init__(self, log: CommitLog) -> None:
        self._log = log
        self._waiting: list[Committed] = []
        self._last = 0
        self._changed_queues: set[tuple[str, str]] = set()
        self.interested = False
        self.creations = False
        self._asked = False
        self.ended = False
        self._woken = asyncio.Event()

    def interest(self, *, interested: bool, creations: bool = False) -> None:
        """Whether commits are wanted; asking is answered by the latest number."""
        self.interested = interested
        self.creations = creations
        self._asked = self._asked or interested
        self._waiting.clear()
        self._woken.set()

    def end(self) -> None:
        """Nothing more will come, or nobody listens any more."""
        self.ended = True
        self._woken.set()

    def put(self, changes: Sequence[Committed], sequence: int) -> None:
        """Add changes, the last of which has the number."""
        if not self.interested:
            return
        if (self._waiting and self._last + len(changes) != sequence) or len(self._waiting) > _MAX_WAITING:
            # What was left out is seen as a gap.
            self._waiting.clear()
        self._waiting.extend(changes)
        self._last = sequence
        self._woken.set()

    def put_queues(self, keys: Sequence[tuple[str, str]]) -> None:
        """Add queues whose settings have changed; every listener hears of them, interested or not."""
        self._changed_queues.update(keys)
        self._woken.set()

    async def next(self, seconds: float) -> Batch:
        """What has gathered; after so many seconds, or when interest begins, just the number."""
        if not (self._waiting or self._asked or self._changed_queues or self.ended):
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
        changed, self._changed_queues = sorted(self._changed_queues), set()
        if self._asked:
            # Nothing is sent that was committed before the answer to the question.
            self._asked = False
            self._waiting.clear()
            return Batch([], self._log.number(self), changed)
        changes, self._waiting = self._waiting, []
        return Batch(changes, self._last if changes else self._log.number(self), changed)


class CommitLog:
    """Numbers the changes of this instance, and passes them to its own watchers and to the listeners.

    Creations count only in the numbers of listeners that want them, so that the others see no gaps.

    Attributes:
        sequence: The number of the last change.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._listeners: set[CommitListener] = set()
        self.sequence = 0
        self._creations = 0

    def number(self, listener: CommitListener) -> int:
        """The number of the last commit, as a listener counts."""
        return self.sequence + (self._creations if listener.creations else 0)

    def created(self, tasks: Sequence[NewTask]) -> None:
        """New tasks were committed."""
        self._creations += len(tasks)
        listeners = [listener for listener in self._listeners if listener.creations]
        if tasks and (listeners or self._bus.creations_wanted):
            rows = [created_row(task) for task in tasks]
            self._bus.publish_creations(rows)
            for listener in listeners:
                listener.put(rows, self.number(listener))

    def committed(self, rows: Sequence[TaskRow]) -> None:
        """Changes were committed."""
        if not rows:
            return
        self.sequence += len(rows)
        self._bus.publish_rows(rows)
        for listener in self._listeners:
            listener.put(rows, self.number(listener))

    @property
    def wanted(self) -> bool:
        """Whether anybody, here or elsewhere, wants to know what changes."""
        return self._bus.busy or any(listener.interested for listener in self._listeners)

    @property
    def rows_wanted(self) -> bool:
        """Whether anybody watches by a filter, so that every task is to be looked at."""
        return self._bus.creations_wanted or any(listener.creations for listener in self._listeners)

    def over(self, ends: Sequence[Over]) -> None:
        """Attempts have ended their tasks, which was committed while `rows_wanted` was false."""
        self.sequence += len(ends)
        self._bus.publish_over(ends)
        for listener in self._listeners:
            listener.put(ends, self.number(listener))

    def committed_unseen(self, count: int) -> None:
        """Changes were committed while nobody wanted them; they are only counted."""
        self.sequence += count

    def queues_changed(self, keys: Sequence[tuple[str, str]]) -> None:
        """Settings of queues, by tenant and name, have changed."""
        for listener in self._listeners:
            listener.put_queues(keys)

    def listen(self) -> CommitListener:
        """A new listener, not interested yet."""
        listener = CommitListener(self)
        self._listeners.add(listener)
        return listener

    def drain(self) -> None:
        """The instance stops: its listeners have to look elsewhere."""
        for listener in self._listeners:
            listener.end()

    def leave(self, listener: CommitListener) -> None:
        """The listener is gone."""
        self._listeners.discard(listener)
