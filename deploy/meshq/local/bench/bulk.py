"""Bulk throughput to the last recorded outcome."""

from __future__ import annotations

from rich.table import Table

from meshq.bench.figures import ranged
from meshq.bench.load import plain
from meshq.local.bench.stage import (
    BulkRun,
    Outcome,
    Stage,
    bulk_run,
    cost_figures,
    cost_table,
    costs,
    table,
)


async def bulk(stage: Stage) -> Outcome:
    """Many small tasks in frames, from the first submission to the last recorded outcome."""
    runs = [await bulk_run(stage, plain(stage.tasks)) for _ in range(stage.repeat)]
    ordered = sorted(runs, key=lambda run: run.figures.throughput)
    median = ordered[len(ordered) // 2]
    by_process = costs([run.cpu for run in runs])
    lost = sum(run.figures.lost for run in runs)
    figures = {
        "tasks": median.figures.tasks,
        **ranged("throughput_per_s", [run.figures.throughput for run in runs]),
        "latency_ms": {"p50": round(median.figures.p50, 1), "p99": round(median.figures.p99, 1)},
        **cost_figures(by_process),
        "lost": lost,
    }
    return Outcome(figures, [_runs(runs), cost_table("bulk", by_process)], lost)


def _runs(runs: list[BulkRun]) -> Table:
    shown = table(
        "bulk: submit to last recorded outcome", "run", "tasks", "tasks/s", "p50 ms", "p99 ms", "lost"
    )
    for number, run in enumerate(runs, 1):
        one = run.figures
        cells = (number, one.tasks, f"{one.throughput:,.0f}", f"{one.p50:.0f}", f"{one.p99:.0f}", one.lost)
        shown.add_row(*map(str, cells))
    return shown
