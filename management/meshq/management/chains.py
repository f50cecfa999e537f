"""Chains: who has ended lets the next one of its ordering key go.

The end of a task and the release of the next one are two commits. Between them the process may die, so
one instance looks for ever for chains whose first task waits though nothing is before it: all the time while
there are any chains, and else with each look at the ledger that finds open tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.management.group import GroupWriter
from meshq.management.lookout import Lookout, Outlook
from meshq.management.model.chains import ChainKey
from meshq.management.model.task import DISPATCH_HORIZON_MS, Sendable, TaskRow
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_PAUSE: Final = 2.0
_LONG_PAUSE: Final = 600.0
_FIRST: Final = ChainKey("", "", "")


class ChainStore(Protocol):
    """The chains in the ledger."""

    async def release(self, keys: Sequence[ChainKey], now_ms: int) -> list[tuple[TaskRow, Sendable]]:
        """Let the first task of each chain go where it waits; returns those that go."""

    async def chains(self, after: ChainKey, limit: int) -> list[tuple[ChainKey, bool]]:
        """The next chains behind a key, each with whether its first task waits."""


class ChainReleaser:
    """Lets tasks go.

    Args:
        store: The chains.
        lookout: Says whether this instance looks for what was forgotten, and whether anything is open.
        dispatch: Gets the tasks after the commit.
        committed: Hears of them, likewise.
        now_ms: The clock.
    """

    def __init__(
        self,
        store: ChainStore,
        lookout: Lookout,
        dispatch: Callable[[Sequence[Sendable]], None],
        committed: Callable[[Sequence[TaskRow]], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._lookout = lookout
        self._dispatch = dispatch
        self._committed = committed
        self._now_ms = now_ms
        self._writer: GroupWriter[set[ChainKey], None] = GroupWriter("release", self._write, lanes=2)
        self._repeater = Repeater("chains", self.run_once, _LONG_PAUSE)
        self._after = _FIRST
        self._any = False
        lookout.on_look(self._looked)

    async def start(self) -> None:
        """Begin."""
        await self._writer.start()
        await self._repeater.start()

    async def stop(self) -> None:
        """End; what is not released yet, another instance finds."""
        await self._repeater.stop()
        await self._writer.stop()

    def release(self, keys: Iterable[ChainKey]) -> None:
        """Tasks of these chains have ended: let the next ones go, soon."""
        wanted = set(keys)
        try:
            self._writer.submit(wanted, len(wanted), 0).add_done_callback(_heed)
        except MeshqError as error:
            _log.info("release postponed", reason=error.message)

    async def run_once(self) -> float | None:
        """Look through a page of the chains; returns the seconds until the next, None when that is far."""
        if not self._lookout.term:
            self._after = _FIRST
            self._any = False
            return None
        try:
            page = await self._store.chains(self._after, MAX_FRAME_ITEMS)
            if stuck := [key for key, waits in page if waits]:
                await self._release(stuck)
        except MeshqError as error:
            _log.info("chains not looked through", reason=error.message)
            return _PAUSE
        if len(page) == MAX_FRAME_ITEMS:
            self._after = page[-1][0]
            return 0.0
        self._any = bool(page) or self._after != _FIRST
        self._after = _FIRST
        return _PAUSE if self._any else None

    def _looked(self, outlook: Outlook) -> None:
        if outlook.open and not self._any:
            self._repeater.wake()

    async def _write(self, groups: Sequence[set[ChainKey]]) -> list[None]:
        await self._release(sorted(set().union(*groups)))
        return [None] * len(groups)

    async def _release(self, keys: Sequence[ChainKey]) -> None:
        released = await self._store.release(keys, self._now_ms())
        self._committed([row for row, _ in released])
        horizon_ms = self._now_ms() + DISPATCH_HORIZON_MS
        self._dispatch([item for _, item in released if item.ready_ms <= horizon_ms])


def _heed(answer: object) -> None:
    error = None if answer.cancelled() else answer.exception()  # type: ignore[attr-defined]
    if error is not None:
        _log.info("release postponed", reason=str(error))
