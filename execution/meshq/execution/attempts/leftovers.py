"""Forgets the checkpoints of tasks that are not open any more, page by page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from time import time
from typing import Final, Protocol

_PAGE: Final = 1_000
_FIRST: Final = bytes(16)
_AGE_SECONDS: Final = 3_600.0


class Store(Protocol):
    """Where checkpoints are kept."""

    async def old(self, after: bytes, before_ms: int, limit: int) -> list[bytes]:
        """A page of tasks, behind one, whose checkpoints have not changed since a time."""

    async def delete(self, task_ids: Sequence[bytes]) -> None:
        """Forget the checkpoints of tasks."""


class Leftovers:
    """See the module.

    Args:
        store: The checkpoints.
        open_among: Which of some tasks are open.

    Attributes:
        age_seconds: For how long a checkpoint is left alone.
    """

    def __init__(
        self, store: Store, open_among: Callable[[Sequence[bytes]], Awaitable[Collection[bytes]]]
    ) -> None:
        self.age_seconds = _AGE_SECONDS
        self._store = store
        self._open_among = open_among
        self._after = _FIRST

    async def run_once(self) -> None:
        """Look at the next page."""
        page = await self._store.old(self._after, int((time() - self.age_seconds) * 1000), _PAGE)
        self._after = page[-1] if page else _FIRST
        if page:
            still_open = await self._open_among(page)
            over = [task_id for task_id in page if task_id not in still_open]
            if over:
                await self._store.delete(over)
