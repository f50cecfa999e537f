"""Forgetting keys that nobody uses any more.

A unique key that nobody holds, and the counter of a chain without tasks, are in nobody's way, but there
would be ever more of them. One instance looks through all of them for ever, a page at a time, so slowly
that it costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.management.lookout import Lookout
from meshq.management.model.chains import ChainKey
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_PASS_PAUSE: Final = 300.0
_PAGE_PAUSE: Final = 0.2
_MARGIN_MS: Final = 60_000
"""By how much the clocks of instances may differ."""
_FIRST: Final = ChainKey("", "", "")


class KeyStore(Protocol):
    """The keys in the ledger."""

    async def forget_unique_keys(self, after: ChainKey, before_ms: int, limit: int) -> ChainKey | None:
        """Remove those of the next keys that nobody holds; windows count as over that ended before a time.

        Returns:
            The last key that was looked at; None when there was none.
        """

    async def forget_chains(self, after: ChainKey, limit: int) -> ChainKey | None:
        """Remove those of the next counters whose chains have no open tasks; returns as the other."""


class KeyForgetter:
    """See the module."""

    def __init__(self, store: KeyStore, lookout: Lookout, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._lookout = lookout
        self._now_ms = now_ms
        self._after = _FIRST
        self._unique = True
        self._repeater = Repeater("forgotten keys", self.run_once, _PASS_PAUSE)
        self.start = self._repeater.start
        self.stop = self._repeater.stop

    async def run_once(self) -> float | None:
        """Look through one page; returns the seconds until the next one."""
        if not self._lookout.term:
            self._after = _FIRST
            return None
        try:
            last = await self._page()
        except MeshqError as error:
            _log.info("keys not looked through", reason=error.message)
            return None
        if last is not None:
            self._after = last
            return _PAGE_PAUSE
        self._after = _FIRST
        self._unique = not self._unique
        return None if self._unique else 0.0

    def _page(self) -> Awaitable[ChainKey | None]:
        if self._unique:
            before_ms = self._now_ms() - _MARGIN_MS
            return self._store.forget_unique_keys(self._after, before_ms, MAX_FRAME_ITEMS)
        return self._store.forget_chains(self._after, MAX_FRAME_ITEMS)
