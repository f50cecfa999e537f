"""What there is to do for all: one look at the ledger, every few seconds, for everybody who keeps it.

Most of the time there is nothing, and who keeps the ledger does nothing but this. Only the instance in
office looks; at its first look after another one was it begins at once.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple, Protocol

from meshq.contract.errors import MeshqError
from meshq.mesh.election import Incumbent
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

LONGEST_INTERVAL: Final = 5.0
_PATIENCE: Final = 1.5
Office = Incumbent
"""The right to keep the ledger."""


class Outlook(NamedTuple):
    """What one look has shown.

    Attributes:
        term: The term of the office.
        sweep_ms: When somebody last asked for a comparison of everything.
        open: Whether any task is open.
        cancelling: Whether any task is to be cancelled.
        deadline_ms: When the first task runs out of time, of those whose time the ledger keeps.
        due_ms: When the next task is due that the promoter has not seen.
        deletions: Whether execution has to hear of deletions.
        strayed: Whether tasks have ended whose day of leaving had no partition.
    """

    term: int
    sweep_ms: int
    open: bool
    cancelling: bool
    deadline_ms: int | None
    due_ms: int | None
    deletions: bool
    strayed: bool


class Looker(Protocol):
    """The ledger."""

    async def outlook(self, office: str, due_after_ms: int) -> Outlook:
        """What there is to do; of tasks that wait for a time those whose time is behind one."""


class Lookout:
    """See the module.

    Args:
        store: The ledger.
        office: Whether this instance looks.
        interval: Seconds between two looks.

    Attributes:
        due_after_ms: The promoter has seen what is due until then.
    """

    def __init__(self, store: Looker, office: Office, interval: float) -> None:
        self._store = store
        self._office = office
        self._interval = min(interval, LONGEST_INTERVAL)
        self._looked = -LONGEST_INTERVAL
        self._listeners: list[Callable[[Outlook], None]] = []
        self._repeater = Repeater("lookout", self._run_once, self._interval)
        self.due_after_ms = 0
        self.start = self._repeater.start
        self.stop = self._repeater.stop

    @property
    def term(self) -> int:
        """The term of this instance in office; 0 while it is not."""
        return self._office.term if self._office.leads else 0

    def on_look(self, listener: Callable[[Outlook], None]) -> None:
        """Call back after each look; listeners must not raise."""
        self._listeners.append(listener)

    def office_changed(self) -> None:
        """Look at once: perhaps this instance is in office now."""
        self._looked = -LONGEST_INTERVAL
        self._repeater.wake()

    async def look(self) -> Outlook | None:
        """What there is to do now, for this instance; None while it is not in office.

        Raises:
            MeshqError: The ledger does not answer.
        """
        if not self.term:
            return None
        asked = monotonic()
        found = await self._store.outlook(self._office.name, self.due_after_ms)
        self._looked = asked
        if found.term != self.term:
            self._office.doubt()
            return None
        for listener in self._listeners:
            listener(found)
        return found

    async def _run_once(self) -> float | None:
        # The sweeper looks as well, at the beginning of each pass; this is for when a pass takes long.
        early = self._looked + self._interval * _PATIENCE - monotonic()
        if early > 0:
            return early
        try:
            await self.look()
        except MeshqError as error:
            _log.info("not looked what there is to do", reason=error.message)
        return None
