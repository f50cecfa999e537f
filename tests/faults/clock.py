"""A system in which the clock of each process can be set on its own, while it runs."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from faults.stage import Setup

from meshq.local.plan import Kind, ProcessPlan, SystemPlan
from meshq.local.system import System

_SOURCE = Path(__file__).with_name("clock.c")
_KINDS = frozenset({Kind.MANAGEMENT, Kind.EXECUTION, Kind.SHARD})

COMPILER = shutil.which("cc")
"""Without one no clock can be set."""


@dataclass(frozen=True)
class Clocks(Setup):
    """See the module.

    Attributes:
        files: Where the clocks of the processes are set, by name.
    """

    files: dict[str, Path] = field(default_factory=dict, compare=False)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[System]:
        """The system while it runs."""
        folder = Path(tempfile.mkdtemp(prefix="meshq-clocks-"))
        try:
            _compile(folder / "clock.so")
            self.files[""] = folder
            async with super().open() as system:
                yield system
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            self.files.clear()

    def shape(self, plan: SystemPlan) -> SystemPlan:
        """Give each process its clock."""
        return replace(plan, processes=tuple(self._with_clock(process) for process in plan.processes))

    def turn(self, seconds: float, names: Collection[str]) -> None:
        """Set the clocks of processes that much ahead of the right time."""
        for name in names:
            with self.files[name].open("r+b") as file:
                file.write(struct.pack("=q", int(seconds * 1_000)))

    def _with_clock(self, process: ProcessPlan) -> ProcessPlan:
        if process.kind not in _KINDS:
            return process
        folder = self.files[""]
        clock = self.files[process.name] = folder / process.name
        clock.write_bytes(struct.pack("=q", 0))
        own = {"LD_PRELOAD": str(folder / "clock.so"), "MESHQ_FAULT_CLOCK": str(clock)}
        return replace(process, environment={**process.environment, **own})


def _compile(to: Path) -> None:
    assert COMPILER is not None
    command = [COMPILER, "-shared", "-fPIC", "-O1", "-o", str(to), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
