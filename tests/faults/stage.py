"""The system in which faults are played: meshq as `meshq up` runs it, with the suite's own workers."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from faults import handlers
from faults.workload import QUEUES, SHORT

from meshq.local.plan import Kind, ProcessPlan, Size, SystemPlan, make_plan
from meshq.local.settings import LocalSettings
from meshq.local.system import System

TESTS = Path(__file__).parent.parent
NAMED_WORKER = "worker-1"
"""A worker with an id of its own: when it comes back it is known, and what it had is given up at once. Others
are new each time, and what they had comes back with the end of its lease."""
_SLOTS = 16
# In the short form nobody waits for the end of a usual lease.
_SHORT_TIMES = {"MESHQ_LEASE_TTL": "3", "MESHQ_HEARTBEAT_INTERVAL": "1"}


@dataclass(frozen=True)
class Setup:
    """How a system differs from the usual one. Runs with equal setups may share a system.

    Who needs more than settings makes a subclass: `shape` changes the plan of the processes, and `open` can
    start before them what they need.

    Attributes:
        size: How many of each component.
        environment: Settings of all components, such as `MESHQ_LEASE_TTL`.
    """

    size: Size = field(default_factory=lambda: Size(workers=2))
    environment: tuple[tuple[str, str], ...] = ()

    def shape(self, plan: SystemPlan) -> SystemPlan:
        """Change what is to be started; called once, after ports were chosen and before the first process."""
        return plan

    def database(self, system: System, name: str) -> str:
        """The URL under which the checker reads a database, `management` or `execution`."""
        return f"postgresql://meshq@{system.processes['postgres'].address}/{name}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[System]:
        """The system while it runs, with its data in a temporary folder."""

        def planned(
            data: Path, edge: int, ports: Mapping[str, int], settings: LocalSettings, size: Size
        ) -> SystemPlan:
            plan = make_plan(data, edge, ports, settings, size)
            processes = tuple(self._outfit(process, data) for process in plan.processes)
            return self.shape(replace(plan, processes=processes))

        system = System(ephemeral=True, port=0, size=self.size, settings=LocalSettings(), planner=planned)
        async with system:
            yield system

    def _outfit(self, process: ProcessPlan, data: Path) -> ProcessPlan:
        environment = {**process.environment, **(_SHORT_TIMES if SHORT else {}), **dict(self.environment)}
        if process.kind is not Kind.WORKER:
            return replace(process, environment=environment)
        own = {handlers.FILE_VARIABLE: str(executions_of(data)), "PYTHONPATH": _path()}
        return replace(process, command=_worker(process.name), environment={**environment, **own})


def executions_of(data: Path) -> Path:
    """The file that the handlers of a system write."""
    return data / "executions.jsonl"


def _path() -> str:
    return os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH", "")]))


def _worker(name: str) -> tuple[str, ...]:
    words = {
        "target": "xds:///meshq",
        "tasks": "faults.handlers",
        "queues": ",".join(QUEUES),
        "slots": str(_SLOTS),
        "processes": "1",
        "drain-timeout": "5",
    }
    if name == NAMED_WORKER:
        words["id"] = "the-named-one"
    return (
        sys.executable,
        "-m",
        "meshq.worker",
        *(word for option, value in words.items() for word in (f"--{option}", value)),
    )
