"""What every scenario works with: the system, a client, and many tasks at a time."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import psutil
from rich.table import Table

from meshq.client import Client, Task, TaskSpec, TaskView
from meshq.contract.errors import NotFound
from meshq.local.figures import Figures, percentile
from meshq.local.system import System

FRAME = 1_000
TYPE = "word_count"
PAYLOAD = "the quick brown fox jumps over the lazy dog"
GIVE_UP_AFTER = 300.0


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


def plain(count: int, queue: str = "default") -> Iterator[TaskSpec]:
    """Many small tasks."""
    return (TaskSpec(type=TYPE, payload=PAYLOAD, queue=queue) for _ in range(count))


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


async def submit(client: Client, specs: Iterable[TaskSpec]) -> list[str]:
    """Create many tasks; the ids of those that were accepted."""
    return [created.task_id async for created in client.create_many(specs) if created.task_id]


async def ended_so_far(client: Client, queue: str) -> int:
    """How many tasks of a queue have ended, by the ledger's counters."""
    try:
        counts = (await client.queue(queue)).counts
    except NotFound:
        return 0
    return counts.succeeded + counts.failed + counts.cancelled + counts.expired


async def until_ended(client: Client, queue: str, count: int, seconds: float = GIVE_UP_AFTER) -> None:
    """Wait until so many tasks of a queue have ended."""
    async with asyncio.timeout(seconds):
        while await ended_so_far(client, queue) < count:  # noqa: ASYNC110 - it asks a server
            await asyncio.sleep(0.05)


async def all_tasks(client: Client, ids: list[str]) -> list[Task]:
    """What the ledger says of each task."""
    tasks: list[Task] = []
    for start in range(0, len(ids), FRAME):
        tasks += (await client.get_many(ids[start : start + FRAME], view=TaskView.BASIC)).tasks
    return tasks


def cpu_seconds(system: System) -> dict[str, float]:
    """CPU time so far of every process of the system, what it has started included, and of this one."""
    used: dict[str, float] = defaultdict(float)
    for name, process in system.processes.items():
        if process.pid is not None:
            top = psutil.Process(process.pid)
            used[name] = sum(_cpu(one) for one in [top, *top.children(recursive=True)])
    used["bench"] = sum(os.times()[:2])
    return used


def spread(values: Iterable[float]) -> dict[str, float]:
    """What many values in milliseconds amount to."""
    ascending = sorted(values)
    return {
        "p50": round(percentile(ascending, 50), 1),
        "p99": round(percentile(ascending, 99), 1),
        "max": round(percentile(ascending, 100), 1),
    }


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
