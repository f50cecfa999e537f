"""Measure the whole system: bulk throughput to the last recorded outcome, latency, and CPU per task.

`make bench` runs it. Results are stored and PostgreSQL syncs to disk, as in production. Machines are noisy,
so the bulk run is repeated; the last line is the median run as one JSON object.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import psutil
from rich.console import Console
from rich.table import Table

from meshq.client import Client, Task, TaskSpec, TaskView
from meshq.local.errors import LocalError
from meshq.local.figures import Figures, percentile
from meshq.local.system import System

FRAME = 1_000
PAYLOAD = "the quick brown fox jumps over the lazy dog"
GIVE_UP_AFTER = 300.0
SINGLE_CALLS = 200


@dataclass(frozen=True, slots=True)
class BulkRun:
    """One bulk run and the CPU that it took.

    Attributes:
        figures: Throughput, latency and losses.
        cpu: Microseconds of CPU per task, by process; `bench` is this process, the submitting client.
    """

    figures: Figures
    cpu: Mapping[str, float]


async def bulk(client: Client, system: System, count: int) -> BulkRun:
    """Submit many small tasks in frames and wait for the last outcome."""
    before = cpu_seconds(system)
    finished = await ended_so_far(client)
    begun = time.time()
    specs = (TaskSpec(type="word_count", payload=PAYLOAD) for _ in range(count))
    ids = [created.task_id async for created in client.create_many(specs) if created.task_id]
    async with asyncio.timeout(GIVE_UP_AFTER):
        while await ended_so_far(client) - finished < len(ids):  # noqa: ASYNC110 - it asks a server
            await asyncio.sleep(0.05)
    after = cpu_seconds(system)
    tasks = await all_tasks(client, ids)
    cpu = {name: (after[name] - before.get(name, 0.0)) * 1e6 / count for name in after}
    return BulkRun(Figures.of(len(ids), tasks, begun), cpu)


async def ended_so_far(client: Client) -> int:
    """How many tasks of the default queue have ended, by the ledger's counters."""
    async for queue in client.queues():
        if queue.queue == "default":
            counts = queue.counts
            return counts.succeeded + counts.failed + counts.cancelled + counts.expired
    return 0


async def all_tasks(client: Client, ids: list[str]) -> list[Task]:
    """What the ledger says of each task."""
    tasks: list[Task] = []
    for start in range(0, len(ids), FRAME):
        tasks += (await client.get_many(ids[start : start + FRAME], view=TaskView.BASIC)).tasks
    return tasks


async def single_calls(client: Client) -> list[float]:
    """Milliseconds of calls that create one task and wait for its outcome, one after the other."""
    waits: list[float] = []
    for _ in range(SINGLE_CALLS):
        begun = time.perf_counter()
        await client.run("word_count", PAYLOAD, check=True)
        waits.append((time.perf_counter() - begun) * 1000)
    return sorted(waits)


def cpu_seconds(system: System) -> dict[str, float]:
    """CPU time so far of every process of the system, what it has started included, and of this one."""
    used: dict[str, float] = defaultdict(float)
    for name, process in system.processes.items():
        if process.pid is not None:
            top = psutil.Process(process.pid)
            used[name] = sum(_cpu(one) for one in [top, *top.children(recursive=True)])
    used["bench"] = sum(os.times()[:2])
    return used


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def show(console: Console, runs: list[BulkRun], singles: list[float]) -> None:
    """Print the runs as tables."""
    table = Table(title="bulk: submit to last recorded outcome", title_justify="left")
    for heading in ("run", "tasks", "tasks/s", "p50 ms", "p99 ms", "lost"):
        table.add_column(heading, justify="right")
    for number, run in enumerate(runs, 1):
        one = run.figures
        cells = (number, one.tasks, f"{one.throughput:,.0f}", f"{one.p50:.0f}", f"{one.p99:.0f}", one.lost)
        table.add_row(*map(str, cells))
    console.print(table)
    costs = Table(title="CPU per task, median of the runs", title_justify="left")
    costs.add_column("process")
    costs.add_column("µs", justify="right")
    medians = {name: statistics.median(run.cpu.get(name, 0.0) for run in runs) for name in runs[0].cpu}
    for name, cost in sorted(medians.items(), key=lambda item: -item[1]):
        costs.add_row(name, f"{cost:.0f}")
    costs.add_row("all", f"{sum(medians.values()):.0f}")
    console.print(costs)
    console.print(
        f"single calls (create, run, outcome): p50 {percentile(singles, 50):.1f} ms, "
        f"p99 {percentile(singles, 99):.1f} ms"
    )


def summary(runs: list[BulkRun], singles: list[float]) -> str:
    """The median run as one JSON object, with the range of all."""
    ordered = sorted(runs, key=lambda run: run.figures.throughput)
    median = ordered[len(ordered) // 2]
    rates = [round(run.figures.throughput, 1) for run in ordered]
    lost = sum(run.figures.lost for run in runs)
    return median.figures.line(
        lost=lost,
        throughput_range=[rates[0], rates[-1]],
        single_call_ms={
            "p50": round(percentile(singles, 50), 1),
            "p99": round(percentile(singles, 99), 1),
        },
        cpu_us_per_task=round(sum(median.cpu.values())),
    )


async def bench(console: Console, tasks: int, repeat: int, via: str) -> int:
    """Start a fresh system, measure it, stop it."""
    async with System(ephemeral=True, port=0) as system:
        os.environ.update(system.environment)
        target = "xds:///meshq" if via == "mesh" else system.edge
        async with Client(target, timeout=60) as client:
            await bulk(client, system, min(tasks, 2_000))
            runs = [await bulk(client, system, tasks) for _ in range(repeat)]
            singles = await single_calls(client)
    show(console, runs, singles)
    print(summary(runs, singles), flush=True)  # noqa: T201 - the line for programs
    return 1 if any(run.figures.lost for run in runs) else 0


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks in each bulk run")
    parser.add_argument("--repeat", type=int, default=3, help="bulk runs")
    parser.add_argument("--via", choices=("edge", "mesh"), default="edge", help="how the client comes in")
    arguments = parser.parse_args()
    try:
        return asyncio.run(bench(Console(), arguments.tasks, arguments.repeat, arguments.via))
    except LocalError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
