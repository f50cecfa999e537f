"""How much memory processes take while something happens."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

import psutil

from meshq.local.system import System

_EVERY = 1.0
_MIB = 1 << 20


class Memory:
    """Looks at every process of a system once a second.

    What processes share with each other, such as PostgreSQL's buffers, is not counted.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._begun = time.monotonic()
        self._looks: dict[str, list[tuple[float, int]]] = defaultdict(list)

    async def watch(self) -> None:
        """Go on until it is cancelled."""
        while True:
            for name, process in self._system.processes.items():
                if process.pid is not None and (size := own_bytes(process.pid)):
                    self._looks[name].append((time.monotonic() - self._begun, size))
            await asyncio.sleep(_EVERY)

    def most(self, name: str, begin: float, end: float) -> float:
        """The most MiB that a process took between two parts (0 to 1) of the time."""
        looks = self._looks[name]
        whole = time.monotonic() - self._begun
        found = [size for at, size in looks if begin <= at / whole <= end]
        return max(found, default=0) / _MIB

    def report(self) -> list[str]:
        """For each process the most of the first half and of the second, in MiB."""
        return [
            f"{name} {self.most(name, 0, 0.5):.0f} then {self.most(name, 0.5, 1):.0f}" for name in self._looks
        ]

    def grown(self, factor: float, slack_mib: float) -> list[str]:
        """Processes that took more in the second half than that of what they took in the first."""
        return [
            name
            for name in self._looks
            if (first := self.most(name, 0, 0.5)) and self.most(name, 0.5, 1) > factor * first + slack_mib
        ]


def own_bytes(pid: int) -> int:
    """What a process and its children have for themselves; 0 when it is gone."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(one.memory_info().rss - one.memory_info().shared for one in family)
    except psutil.Error:
        return 0
