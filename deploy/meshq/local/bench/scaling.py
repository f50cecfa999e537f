"""What a task costs with more instances and more shards, on systems of its own.

Cores are few here, so more instances cannot be faster; but neither may each task cost more. What processes
take at rest is taken off, and shown by itself: it does not grow with the tasks.

Instances that share the cores get less at a time each, and work in smaller frames. On machines of their own
each would have a whole load. So one client and one worker play as well: they keep a few instances as busy as
these can be, and whatever the others add to a task shows.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from meshq.bench.load import ended_so_far, plain, submit, until_ended
from meshq.client import Client
from meshq.local.bench.report.page import by_kind
from meshq.local.bench.stage import Outcome, Stage, cpu_seconds, table
from meshq.local.plan import Kind, ProcessPlan, Size, SystemPlan, make_plan
from meshq.local.settings import LocalSettings
from meshq.local.system import System

PAIR: Final = (Size(1, 1, workers=2), Size(2, 2, workers=2))
"""One of each, and two of each; otherwise the same."""
COUNTS: Final = (1, 2, 4, 8)
INSTANCES: Final = tuple(Size(count, count, workers=count) for count in COUNTS)
"""With a client and a worker for each pair."""
ONE_LOAD: Final = tuple(Size(count, count) for count in COUNTS)
"""With one for all of them."""
SHARDS: Final = tuple(Size(shards=count) for count in (3, 8, 16))
MOST_TASKS: Final = 10_000
"""Of a run: what a task costs shows with few."""
TURNS: Final = 9
"""A run takes a second, and two of the same differ by a tenth: so many say which of two systems is faster."""
WARM_UP: Final = 2_000
_REST_SECONDS: Final = 2.0
_SHOWN: Final = (Kind.MANAGEMENT, Kind.EXECUTION, Kind.POSTGRES, Kind.SHARD, Kind.WORKER, Kind.GATEWAY)


@dataclass(frozen=True, slots=True)
class Cost:
    """One run on a system of some size.

    Attributes:
        rate: Tasks per second.
        cpu: Microseconds of CPU per task by kind of process, without what these take at rest.
        rest: What all processes take at rest, in percent of a core.
        lost: Tasks that did not end as they should.
    """

    rate: float
    cpu: Mapping[str, float]
    rest: float
    lost: int

    @property
    def all(self) -> float:
        """Microseconds of CPU per task."""
        return sum(self.cpu.values())


def lean(data: Path, edge: int, ports: Mapping[str, int], settings: LocalSettings, size: Size) -> SystemPlan:
    """The usual system, with so few connections of each instance that one PostgreSQL serves eight."""
    plan = make_plan(data, edge, ports, settings, size)
    return replace(plan, processes=tuple(map(_lean, plan.processes)))


def _lean(plan: ProcessPlan) -> ProcessPlan:
    if plan.kind is not Kind.MANAGEMENT:
        return plan
    return replace(plan, environment={**plan.environment, "MESHQ_LEDGER_READERS": "1"})


async def scaling(stage: Stage) -> Outcome:
    """Two of each against one of each in turns, and what a task costs on systems of several sizes."""
    tasks = min(stage.tasks, MOST_TASKS)
    one, two = await _in_turns(PAIR, tasks, max(stage.repeat, TURNS))
    ratios = [theirs.rate / mine.rate for mine, theirs in zip(one, two, strict=True)]
    # Some sizes are in several tables.
    alone = {size: await _alone(size, tasks, stage.repeat) for size in {*INSTANCES, *ONE_LOAD, *SHARDS}}
    instances = {size.management: alone[size] for size in INSTANCES}
    one_load = {size.management: alone[size] for size in ONE_LOAD}
    shards = {size.shards: alone[size] for size in SHARDS}
    pair = {1: _median(one), 2: _median(two)}
    lost = sum(cost.lost for cost in [*one, *two, *alone.values()])
    figures = {
        "two_against_one": {
            "ratio": round(statistics.median(ratios), 3),
            "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
            **_figures(pair),
        },
        "instances": _figures(instances),
        "one_load": _figures(one_load),
        "shards": _figures(shards),
        "lost": lost,
    }
    shown = [
        _table(
            f"two of each against one, in turns: {statistics.median(ratios):.2f} times", "instances", pair
        ),
        _table("management and execution, so many of each, all of them busy", "instances", instances),
        _table("management and execution, so many of each, one client and worker", "instances", one_load),
        _table("shards", "shards", shards),
    ]
    return Outcome(figures, shown, lost)


async def _in_turns(sizes: Sequence[Size], tasks: int, rounds: int) -> list[list[Cost]]:
    """Runs on systems that are up at the same time, one after the other."""
    async with AsyncExitStack() as stack:
        systems = [await _started(stack, size) for size in sizes]
        turns = [[await _run(system, tasks) for system in systems] for _ in range(rounds)]
    return [list(costs) for costs in zip(*turns, strict=True)]


async def _alone(size: Size, tasks: int, repeat: int) -> Cost:
    async with AsyncExitStack() as stack:
        system = await _started(stack, size)
        return _median([await _run(system, tasks) for _ in range(repeat)])


async def _started(stack: AsyncExitStack, size: Size) -> System:
    system = await stack.enter_async_context(System(ephemeral=True, port=0, size=size, planner=lean))
    await _run(system, WARM_UP)
    return system


async def _run(system: System, tasks: int) -> Cost:
    """Submit tasks over as many streams as there are workers; wait for the last outcome."""
    streams = sum(process.kind is Kind.WORKER for process in system.processes.values())
    async with Client(system.edge, timeout=60) as client:
        resting = cpu_seconds(system)
        await asyncio.sleep(_REST_SECONDS)
        before, begun = cpu_seconds(system), time.perf_counter()
        finished = await ended_so_far(client, "default")
        accepted = await asyncio.gather(*(submit(client, plain(tasks // streams)) for _ in range(streams)))
        count = sum(map(len, accepted))
        await until_ended(client, "default", finished + count)
        seconds, after = time.perf_counter() - begun, cpu_seconds(system)
        counts = (await client.queue("default")).counts
    # This process is the same for all sizes, and takes most of its time to look at the others.
    names = before.keys() - {"bench"}
    rest = {name: (before[name] - resting.get(name, 0.0)) / _REST_SECONDS for name in names}
    own = {name: after[name] - before[name] - rest[name] * seconds for name in names}
    cpu = by_kind({name: max(0.0, used) * 1e6 / count for name, used in own.items()})
    lost = counts.failed + counts.cancelled + counts.expired
    return Cost(count / seconds, cpu, 100 * sum(rest.values()), lost)


def _median(costs: Sequence[Cost]) -> Cost:
    return sorted(costs, key=lambda cost: cost.all)[len(costs) // 2]


def _figures(costs: Mapping[int, Cost]) -> dict[str, Any]:
    return {
        str(count): {
            "throughput_per_s": round(cost.rate, 1),
            "cpu_us_per_task": {kind: round(us, 1) for kind, us in cost.cpu.items()},
            "all_us_per_task": round(cost.all, 1),
            "rest_percent": round(cost.rest, 1),
        }
        for count, cost in costs.items()
    }


def _table(title: str, what: str, costs: Mapping[int, Cost]) -> Table:
    kinds = [f"{kind} µs" for kind in _SHOWN]
    shown = table(title, what, "tasks/s", *kinds, "all µs", "at rest %")
    for count, cost in costs.items():
        cells = [f"{cost.cpu.get(kind, 0.0):.0f}" for kind in _SHOWN]
        shown.add_row(str(count), f"{cost.rate:,.0f}", *cells, f"{cost.all:.0f}", f"{cost.rest:.1f}")
    return shown
