"""Bulk throughput to the last recorded outcome, and the latency of single calls."""

from __future__ import annotations

import statistics
import time

from rich.table import Table

from meshq.bench.figures import spread
from meshq.bench.load import PAYLOAD, TYPE, plain
from meshq.local.bench.stage import BulkRun, Outcome, Stage, bulk_run, table

SINGLE_CALLS = 200


async def bulk(stage: Stage) -> Outcome:
    """Many small tasks in frames, from the first submission to the last recorded outcome."""
    runs = [await bulk_run(stage, plain(stage.tasks)) for _ in range(stage.repeat)]
    ordered = sorted(runs, key=lambda run: run.figures.throughput)
    median = ordered[len(ordered) // 2]
    rates = [round(run.figures.throughput, 1) for run in ordered]
    figures = {
        "tasks": median.figures.tasks,
        "throughput_per_s": round(median.figures.throughput, 1),
        "throughput_range": [rates[0], rates[-1]],
        "latency_ms": {"p50": round(median.figures.p50, 1), "p99": round(median.figures.p99, 1)},
        "cpu_us_per_task": round(sum(median.cpu.values())),
        "lost": sum(run.figures.lost for run in runs),
    }
    return Outcome(figures, [_runs(runs), _costs(runs)], sum(run.figures.lost for run in runs))


async def single(stage: Stage) -> Outcome:
    """Calls that create one task and wait for its outcome, one after the other."""
    waits = []
    for _ in range(SINGLE_CALLS):
        begun = time.perf_counter()
        await stage.client.run(TYPE, PAYLOAD, check=True)
        waits.append((time.perf_counter() - begun) * 1000)
    figures = spread(waits)
    shown = table("single: create, run, outcome", "calls", "p50 ms", "p99 ms", "max ms")
    shown.add_row(str(len(waits)), *(f"{value:.1f}" for value in figures.values()))
    return Outcome({"calls": len(waits), "latency_ms": figures}, [shown])


def _runs(runs: list[BulkRun]) -> Table:
    shown = table(
        "bulk: submit to last recorded outcome", "run", "tasks", "tasks/s", "p50 ms", "p99 ms", "lost"
    )
    for number, run in enumerate(runs, 1):
        one = run.figures
        cells = (number, one.tasks, f"{one.throughput:,.0f}", f"{one.p50:.0f}", f"{one.p99:.0f}", one.lost)
        shown.add_row(*map(str, cells))
    return shown


def _costs(runs: list[BulkRun]) -> Table:
    shown = table("CPU per task, median of the runs", "process", "µs")
    medians = {name: statistics.median(run.cpu.get(name, 0.0) for run in runs) for name in runs[0].cpu}
    for name, cost in sorted(medians.items(), key=lambda item: -item[1]):
        shown.add_row(name, f"{cost:.0f}")
    shown.add_row("all", f"{sum(medians.values()):.0f}")
    return shown
