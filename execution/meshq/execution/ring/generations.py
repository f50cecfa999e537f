"""Which history of the tasks this is.

A database that came back from a copy forgets what happened since, and shards, workers and callers do not.
So it has a generation, which is another one after each return. What a shard of another generation holds is
dropped before anybody uses it, and leases of earlier generations are lost, except those that the
database itself has kept for whoever completes their tasks.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from meshq.contract.errors import MeshqError
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

UNNAMED: Final = "00000000-0000-0000-0000-000000000000"
"""The generation of a database that has never come back, and of shards that remember none."""

_LOOK_SECONDS: Final = 60.0


class Generation(NamedTuple):
    """One history.

    Attributes:
        name: A UUID.
        first_epoch: Leases of epochs before this one are of another history.
    """

    name: str = UNNAMED
    first_epoch: int = 1


class GenerationStore(Protocol):
    """Where it is kept."""

    async def load_generation(self) -> Generation:
        """The generation as it is now."""


class Generations:
    """Knows the current generation.

    Nobody should run while a database comes back. For an instance that did all the same, because nobody knew
    of it, the database is looked at once a minute, and before each new epoch of a shard.

    Args:
        store: The database.

    Attributes:
        current: The generation as last seen.
    """

    def __init__(self, store: GenerationStore) -> None:
        self.current = Generation()
        self._store = store
        self._repeater = Repeater("generation", self.run_once, _LOOK_SECONDS)

    async def start(self) -> None:
        """Look, and go on looking; raises `MeshqError` when the database does not answer."""
        await self.refresh()
        await self._repeater.start()

    async def stop(self) -> None:
        """Look no more."""
        await self._repeater.stop()

    async def run_once(self) -> None:
        """Look once."""
        try:
            await self.refresh()
        except MeshqError as error:
            _log.debug("generation not read", reason=error.message)

    async def refresh(self) -> Generation:
        """Look now; raises `MeshqError` when the database does not answer."""
        found = await self._store.load_generation()
        if found != self.current and self.current != Generation():
            _log.warning("the database has come back from a copy", generation=found.name)
        self.current = found
        return found
