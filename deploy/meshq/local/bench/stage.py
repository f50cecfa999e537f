"""What every scenario works with: the system, a client, the CPU that is used, and tables."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import psutil
from rich.table import Table

from meshq.bench.figures import Figures
from meshq.bench.load import all_tasks, ended_so_far, submit, until_ended
from meshq.client import Client, TaskSpec
from meshq.local.system import System


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a scenario plays.

    Attributes:
        client: Connected to the system.
        system: A fresh one, warmed up.
        tasks: Tasks in each bulk run.
        repeat: How often a run is repeated.
        backlog: Tasks that wait in the scenarios that are about waiting.
    """

    client: Client
    system: System
    tasks: int
    repeat: int
    backlog: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a scenario.

    Attributes:
        figures: For programs.
        tables: For people.
        lost: Tasks that did not end as they should.
    """

    figures: Mapping[str, Any]
    tables: list[Table] = field(default_factory=list)
    lost: int = 0


Scenario: TypeAlias = Callable[[Stage], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class BulkRun:
    """One bulk run and the CPU that it took.

    Attributes:
        figures: Throughput, latency and losses.
        cpu: Microseconds of CPU per task, by process; `bench` is this process, the submitting client.
    """

    figures: Figures
    cpu: Mapping[str, float]


async def bulk_run(stage: Stage, specs: Iterable[TaskSpec], queue: str = "default") -> BulkRun:
    """Submit many small tasks of one queue in frames and wait for the last outcome."""
    before = cpu_seconds(stage.system)
    finished = await ended_so_far(stage.client, queue)
    begun = time.time()
    ids = await submit(stage.client, specs)
    await until_ended(stage.client, queue, finished + len(ids))
    after = cpu_seconds(stage.system)
    tasks = await all_tasks(stage.client, ids)
    cpu = {name: (after[name] - before.get(name, 0.0)) * 1e6 / max(len(ids), 1) for name in after}
    return BulkRun(Figures.of(len(ids), tasks, begun), cpu)


def cpu_seconds(system: System) -> dict[str, float]:
    """CPU time so far of every process of the system, what it has started included, and of this one."""
    used: dict[str, float] = defaultdict(float)
    for name, process in system.processes.items():
        if process.pid is not None:
            top = psutil.Process(process.pid)
            used[name] = sum(_cpu(one) for one in [top, *top.children(recursive=True)])
    used["bench"] = sum(os.times()[:2])
    return used


def table(title: str, *headings: str) -> Table:
    """An empty table; all columns but the first hold numbers."""
    made = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        made.add_column(heading, justify="right" if number else "left")
    return made


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system
