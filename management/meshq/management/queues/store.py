"""What the use cases want from the storage of queues."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from meshq.management.model.queues import QueueSettings

QueueKey: TypeAlias = tuple[str, str]
"""A tenant and the name of one of its queues."""


class QueueChange(NamedTuple):
    """A queue whose settings have changed, or that was deleted.

    Attributes:
        version: The number of the change, over all queues.
        update_ms: When.
        configured: Whether execution was ever told of its settings.
        settings: As the codec encodes them; None where there are none.
    """

    tenant: str
    name: str
    version: int
    update_ms: int
    configured: bool
    deleted: bool
    settings: bytes | None

    @property
    def key(self) -> QueueKey:
        """Which queue."""
        return self.tenant, self.name


class Codec(NamedTuple):
    """How settings are stored."""

    encode: Callable[[QueueSettings], bytes]
    decode: Callable[[bytes], QueueSettings]
    """Without version and time of the change, which stand beside them."""


class QueueStore(Protocol):
    """The storage. Every method raises `Unavailable` with LEDGER_UNAVAILABLE while it does not answer."""

    async def changes(self, after: int, limit: int) -> list[QueueChange]:
        """Changes behind a version, in their order. No change with a lower version comes later."""
