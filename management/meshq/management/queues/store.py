"""What the use cases want from the storage of queues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from meshq.management.model.queues import Limits, QueueSettings
from meshq.management.model.task import TaskRow

QueueKey: TypeAlias = tuple[str, str]
"""A tenant and the name of one of its queues."""

Decision: TypeAlias = Callable[[QueueSettings | None], QueueSettings | None]
"""From what a queue is set to, None where there is no such queue, to what it is to be set to, None where
nothing changes. May raise what the caller is to be told."""


class QueueChange(NamedTuple):
    """A queue whose settings have changed, or that was deleted.

    Attributes:
        settings: The default ones of a queue that was deleted, but with the version of its deletion.
        configured: Whether execution was ever told of its settings, so that it has to hear of all changes.
    """

    tenant: str
    name: str
    settings: QueueSettings
    configured: bool
    deleted: bool

    @property
    def key(self) -> QueueKey:
        """Which queue."""
        return self.tenant, self.name


class QueueRow(NamedTuple):
    """A queue with what it is set to and its counters; rates per second."""

    tenant: str
    name: str
    create_ms: int
    settings: QueueSettings
    created: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    arrival_rate: float
    completion_rate: float

    @property
    def open(self) -> int:
        """How many tasks were accepted and have not ended."""
        return max(self.created - self.succeeded - self.failed - self.cancelled - self.expired, 0)


class Held(NamedTuple):
    """How many tasks of a queue are on no shard.

    Attributes:
        waiting: Those that wait for other tasks.
        later: Those that are due so much later that they wait in the ledger.
    """

    waiting: int
    later: int


def concerns_dispatch(settings: QueueSettings) -> bool:
    """Whether execution has to know of settings."""
    return settings.pause is not None or settings.limits != Limits()


class Codec(NamedTuple):
    """How settings are stored; version and time of the change stand beside them."""

    encode: Callable[[QueueSettings], bytes]
    decode: Callable[[bytes], QueueSettings]


class Changes(Protocol):
    """The part of the storage that the book follows."""

    async def changes(self, after: int, limit: int) -> list[QueueChange]:
        """Changes behind a version, in their order. No change with a lower version comes later."""


class QueueStore(Changes, Protocol):
    """The storage. Every method raises `Unavailable` with LEDGER_UNAVAILABLE while it does not answer."""

    async def change(self, key: QueueKey, decide: Decision, now_ms: int) -> bool:
        """Set a queue to what is decided from what it is set to; whether that is another thing."""

    async def delete(self, key: QueueKey, now_ms: int) -> bool:
        """Delete a queue with its counters if it has no open task; whether it had none."""

    async def revive(self, keys: Sequence[QueueKey], now_ms: int) -> None:
        """Make those deleted queues again that have counters, and so tasks."""

    async def purge(self, rows: Sequence[TaskRow], reason: str, now_ms: int) -> list[TaskRow]:
        """Write CANCELLING where tasks still are what these rows say; returns those that were changed."""

    async def page(self, tenant: str, after: str, limit: int, now_ms: int) -> list[QueueRow]:
        """Queues behind a name, by name."""

    async def named(self, tenant: str, names: Sequence[str], now_ms: int) -> list[QueueRow]:
        """Those queues of these names that exist, by name."""

    async def held(self, tenant: str, names: Sequence[str], later_ms: int) -> dict[str, Held]:
        """What queues have that is on no shard; `later_ms` is when tasks are due that wait in the ledger."""

    async def open_counts(self, keys: Sequence[QueueKey]) -> dict[QueueKey, int]:
        """How many open tasks queues have, by the counters."""
