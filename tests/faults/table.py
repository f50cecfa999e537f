"""What a fault is, and the table of all faults."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from faults.history import History
from faults.stage import Setup
from faults.workload import SHORT, Load

from meshq.local.system import System


@dataclass
class Scene:
    """What a fault has to work with.

    Attributes:
        system: The system, under load.
        load: The load; it goes on until the fault is over, and for as many tasks as it has to send.
        chance: Decides whatever is left to chance, from the seed of the run.
        setup: The setup of the system.
        short: Whether long times are to be shortened.
    """

    system: System
    load: Load
    chance: random.Random
    setup: Setup
    short: bool = SHORT

    @property
    def history(self) -> History:
        """Where marks are noted: `scene.history.mark("the proxy is cut")`."""
        return self.load.history

    def seconds(self, full: float, short: float) -> float:
        """A time that shrinks in the short form."""
        return short if self.short else full

    async def accepted(self, more: int) -> None:
        """Wait until so many more tasks are accepted."""
        await self.load.reaches(len(self.load.accepted) + more)

    def heal(self) -> None:
        """Note that the cause is gone: the time to recovery begins here, else where the fault returns."""
        self.history.mark(HEALED)


HEALED = "healed"
Act = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """One row of the report.

    Attributes:
        name: Lower case words with hyphens; `-k` selects by it.
        act: Breaks something and mends it again, if it does not mend itself.
        setup: The system it needs.
        tasks: How many to send at least, as a multiple of the usual number.
        rate: Tasks per second, as a multiple of the usual rate.
        calls_fail: Whether calls may fail in spite of the client's retries.
        exempt: Promises of the checker (its words, such as "limit") that documentation exempts; rather none.
        often: Whether it is one of the few that are played for every change.
        alone: Whether it leaves a system that others should not be played in.
        settle: Seconds in which everything has to have ended when the load is over.
        least_accepted: Tasks that must have been accepted.
        soak: Whether it may come in a soak, in its short form, on a system that has the usual setup.
        least_again: Runs of handlers that must have been repeated: with fewer, the fault hit nobody.
    """

    name: str
    act: Act
    setup: Setup = field(default_factory=Setup)
    tasks: float = 1.0
    rate: float = 1.0
    calls_fail: bool = False
    exempt: frozenset[str] = frozenset()
    often: bool = False
    alone: bool = False
    settle: float = 180.0
    least_accepted: int = 0
    soak: bool = True
    least_again: int = 0


FAULTS: dict[str, Fault] = {}


def add(fault: Fault) -> None:
    """Put a fault into the table."""
    if fault.name in FAULTS:
        raise ValueError(f"there is a fault {fault.name} already")
    FAULTS[fault.name] = fault
