"""Keeps out what was leased before the database came back from a copy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

from meshq.execution.model import Lease

Named = tuple[bytes, int, int, int]
"""Task, attempt, epoch and number of a lease."""


class Fence:
    """Tells leases of another history.

    The attempt that such a lease names may be another one by now, so a result of it must not be recorded.
    Leases that were kept for whoever completes their tasks came back with the database.

    Args:
        first_epoch: The first epoch of this history.
        deferred: Which of some leases were kept.
    """

    def __init__(
        self,
        first_epoch: Callable[[], int],
        deferred: Callable[[Sequence[Lease]], Awaitable[Collection[Named]]],
    ) -> None:
        self._first_epoch = first_epoch
        self._deferred = deferred

    def concerns(self, leases: Iterable[Lease]) -> bool:
        """Whether some of the leases are old enough to look at."""
        first = self._first_epoch()
        return any(lease.epoch < first for lease in leases)

    async def outside(self, leases: Iterable[Lease]) -> set[Lease]:
        """Those that are lost; raises `MeshqError` when that cannot be known now."""
        first = self._first_epoch()
        older = [lease for lease in leases if lease.epoch < first]
        kept = await self._deferred(older) if older else ()
        return {lease for lease in older if lease[:4] not in kept}
