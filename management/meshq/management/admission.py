"""Whether queues take tasks: not while they are drained, nor when they are full.

Open tasks are counted about once a second, and only those of queues that have a limit; between two
counts, what is taken here is added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol

from meshq.contract.errors import MeshqError, Overloaded, PreconditionFailed, Reason
from meshq.management.model.claims import Verdict
from meshq.management.model.queues import QueueSettings
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_COUNT_SECONDS: Final = 1.0
_RETRY_DELAY: Final = 5.0

Key = tuple[str, str]
"""Tenant and queue."""


class Settings(Protocol):
    """What queues are set to."""

    @property
    def bounded(self) -> frozenset[Key]:
        """Those that take only so many open tasks."""

    def settings(self, tenant: str, queue: str) -> QueueSettings:
        """What one is set to."""


class Counts(Protocol):
    """The counters of queues."""

    async def open_counts(self, keys: Sequence[Key]) -> dict[Key, int]:
        """How many tasks of each queue are open."""


class Admission:
    """See the module."""

    def __init__(self, book: Settings, counts: Counts) -> None:
        self._book = book
        self._counts = counts
        self._counted: dict[Key, int] = {}
        self._taken: Counter[Key] = Counter()
        self._repeater = Repeater("admission", self.count, _COUNT_SECONDS)
        self.settings = book.settings
        self.stop = self._repeater.stop

    async def start(self) -> None:
        """Count before anything is taken: an instance that starts knows nothing of what others took."""
        await self.count()
        await self._repeater.start()

    def refusal(self, tenant: str, queue: str, settings: QueueSettings) -> Verdict | None:
        """Why the queue takes no task now; if it takes one, that is counted."""
        if settings.drain:
            return Verdict.DRAINING
        if settings.max_open_tasks:
            key = tenant, queue
            if self._counted.get(key, 0) + self._taken[key] >= settings.max_open_tasks:
                return Verdict.FULL
            self._taken[key] += 1
        return None

    async def count(self) -> None:
        """Look how many tasks are open in the queues that have a limit."""
        wanted = sorted(self._book.bounded)
        before = self._taken.copy()
        try:
            self._counted = await self._counts.open_counts(wanted) if wanted else {}
        except MeshqError as error:
            _log.info("open tasks of queues not counted", reason=error.message)
        else:
            self._taken -= before


def refused(verdict: Verdict, queue: str = "") -> MeshqError:
    """What a caller hears whose task is not taken; names the queue where the caller did not."""
    what = f"Queue {queue}" if queue else "The queue"
    if verdict == Verdict.DRAINING:
        return PreconditionFailed(f"{what} is draining and takes no new tasks.", Reason.QUEUE_DRAINING)
    return Overloaded(
        f"{what} has as many open tasks as its settings allow.", Reason.QUEUE_FULL, retry_delay=_RETRY_DELAY
    )
