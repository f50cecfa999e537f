"""Which system a fault is played in."""

from __future__ import annotations

from contextlib import AsyncExitStack

from faults.stage import Setup
from faults.table import Fault
from faults.workload import SHORT

from meshq.local.system import System


class Systems:
    """Starts systems; in the short form, runs with the same setup share one as long as nothing went wrong."""

    def __init__(self) -> None:
        self._setup: Setup | None = None
        self._system: System | None = None
        self._stack = AsyncExitStack()

    async def open(self, fault: Fault) -> System:
        """A system for the fault."""
        if self._system is None or self._setup != fault.setup or fault.alone:
            await self.close()
            self._system = await self._stack.enter_async_context(fault.setup.open())
            self._setup = fault.setup
        return self._system

    async def leave(self, fault: Fault, kept: bool) -> None:
        """The fault was played; only a system that works on is kept."""
        if not SHORT or fault.alone or not kept:
            await self.close()

    async def close(self) -> None:
        """Stop what runs."""
        self._system = self._setup = None
        await self._stack.aclose()
