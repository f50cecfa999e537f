"""What every scenario works with: the system, a client, the CPU that is used, and tables."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import psutil
from rich.table import Table

from meshq.bench.figures import Figures
from meshq.bench.load import all_tasks, run_to_end
from meshq.client import Client, TaskSpec
from meshq.local.plan import Kind
from meshq.local.system import System

ON_SHARDS_WITHIN = 300.0
_LOOK = 0.2


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a scenario plays.

    Attributes:
        client: Connected to the system.
        system: A fresh one, warmed up.
        tasks: Tasks in each bulk run.
        repeat: How often a run is repeated.
        backlog: Tasks that wait in the scenarios that are about waiting.
        many: Tasks in the scenarios that are about very many.
        calls: Calls in the scenarios that make calls.
        concurrency: Callers at a time.
        rate: Tasks per second of a system that has more to give.
        watches: Watches at a time.
        seconds: How long the idle system is looked at.
    """

    client: Client
    system: System
    tasks: int
    repeat: int
    backlog: int
    many: int = 1_000_000
    calls: int = 5_000
    concurrency: int = 64
    rate: float = 6_000.0
    watches: int = 5_000
    seconds: float = 60.0


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
    run = await run_to_end(stage.client, specs, queue)
    cpu = cpu_per_task(stage.system, before, len(run.ids))
    return BulkRun(Figures.of(len(run.ids), await all_tasks(stage.client, run.ids), run.seconds), cpu)


def cpu_per_task(system: System, before: Mapping[str, float], tasks: int) -> dict[str, float]:
    """Microseconds of CPU per task by process since `before`, which `cpu_seconds` returned."""
    after = cpu_seconds(system)
    return {name: (after[name] - before.get(name, 0.0)) * 1e6 / max(tasks, 1) for name in after}


def cpu_seconds(system: System) -> dict[str, float]:
    """CPU time so far of every process of the system, what it has started included, and of this one."""
    used: dict[str, float] = defaultdict(float)
    for name, process in system.processes.items():
        if process.pid is not None:
            top = psutil.Process(process.pid)
            used[name] = sum(_cpu(one) for one in [top, *top.children(recursive=True)])
    used["bench"] = sum(os.times()[:2])
    return used


def costs(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median over runs of the microseconds of CPU per task, by process, the highest first."""
    medians = {name: statistics.median(run.get(name, 0.0) for run in runs) for name in runs[0]}
    return {name: round(cost, 1) for name, cost in sorted(medians.items(), key=lambda item: -item[1])}


def cost_figures(by_process: Mapping[str, float]) -> dict[str, Any]:
    """The CPU of a scenario for programs."""
    return {"cpu_us_per_task": round(sum(by_process.values())), "cpu_us_by_process": dict(by_process)}


def cost_table(title: str, by_process: Mapping[str, float]) -> Table:
    """The CPU of a scenario for people; microseconds per task are seconds per million."""
    shown = table(f"{title}: CPU per task, median of the runs", "process", "µs")
    for name, cost in by_process.items():
        shown.add_row(name, f"{cost:.0f}")
    shown.add_row("all", f"{sum(by_process.values()):.0f}")
    return shown


async def ready_on_shards(client: Client) -> int:
    """How many tasks are ready on the shards, of all queues."""
    return sum(shard.ready for shard in (await client.shards()).shards)


async def until_ready(client: Client, wanted: Callable[[int], bool]) -> None:
    """Wait until as many tasks are ready on the shards as is wanted."""
    async with asyncio.timeout(ON_SHARDS_WITHIN):
        while not wanted(await ready_on_shards(client)):  # noqa: ASYNC110 - it asks a server
            await asyncio.sleep(_LOOK)


@contextlib.asynccontextmanager
async def only_one(system: System, kind: Kind) -> AsyncIterator[str]:
    """Stop all processes of a kind but one, whose name this is, and start them again at the end."""
    one, *others = [name for name, process in system.processes.items() if process.kind is kind]
    for name in others:
        await system.stop_process(name)
    try:
        yield one
    finally:
        for name in others:
            await system.start_process(name)


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
