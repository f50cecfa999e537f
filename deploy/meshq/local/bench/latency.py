"""How long tasks take on a system that is not at its limit: one at a time, and at half of what it can do."""

from __future__ import annotations

import statistics
import time
from typing import Any, NamedTuple

from rich.table import Table

from meshq.bench.figures import spread, typical
from meshq.bench.load import ended_so_far, plain, until_ended
from meshq.bench.pacing import sampled, start_delays, submit_paced
from meshq.bench.single import POINTS, hops, offsets, round_trips, tracks
from meshq.local.bench.database import recorded
from meshq.local.bench.shards import ShardClock, times_of
from meshq.local.bench.stage import (
    Outcome,
    Stage,
    bulk_run,
    cost_figures,
    cost_table,
    costs,
    cpu_per_task,
    cpu_seconds,
    table,
)

SINGLE_QUEUE = "bench-single"
HALF_QUEUE = "bench-half"
SINGLE_CALLS = 300
HALF_SECONDS = 20.0
CAPACITY_TASKS = 30_000
"""Tasks in bulk that show what the system can do."""


async def single(stage: Stage) -> Outcome:
    """Calls that create one task and return its outcome, and where the time goes."""
    calls = min(SINGLE_CALLS, stage.calls)
    await round_trips(stage.client, SINGLE_QUEUE, calls // 10)
    runs = [spread(await round_trips(stage.client, SINGLE_QUEUE, calls)) for _ in range(stage.repeat)]
    with ShardClock(stage.system.shards.values()) as clock:
        found = await tracks(stage.client, SINGLE_QUEUE, calls)
    times = clock.times()
    durable = recorded(stage.system, [track.task.task_id for track in found])
    for track in found:
        track.times.update(times_of(track.task.task_id, times))
        track.times["recorded"] = durable[track.task.task_id]
    points = offsets(found)
    figures = {
        "calls": calls,
        "latency_ms": typical(runs),
        "latency_p50_range": [min(run["p50"] for run in runs), max(run["p50"] for run in runs)],
        "points_ms": points,
        "hops_ms": dict(hops(points)),
    }
    shown = table("single: create, run, outcome", "run", "calls", "p50 ms", "p99 ms", "max ms")
    for number, run in enumerate(runs, 1):
        shown.add_row(str(number), str(calls), *(f"{value:.1f}" for value in run.values()))
    return Outcome(figures, [shown, _way(points)])


def _way(points: dict[str, dict[str, float]]) -> Table:
    shown = table("single: milliseconds after the submission", "point", "p50 ms", "p99 ms", "max ms")
    for point, of in sorted(points.items(), key=lambda item: item[1]["p50"]):
        shown.add_row(POINTS[point], *(f"{value:.2f}" for value in of.values()))
    return shown


async def half(stage: Stage) -> Outcome:
    """Tasks at a steady rate, from the submission at the client to the handler.

    At the rate of the stage, and at half of what this system does on this machine.
    """
    asked = await _at_rate(stage, stage.rate)
    capacity = (await bulk_run(stage, plain(min(stage.tasks, CAPACITY_TASKS)))).figures.throughput
    own = await _at_rate(stage, capacity / 2)
    shown = table("half: submission to start", "tasks/s", "p50 ms", "p99 ms", "max ms")
    for one in (asked, own):
        for rate, run in zip(one.rates, one.runs, strict=True):
            shown.add_row(f"{rate:,.0f}", *(f"{value:.1f}" for value in run.values()))
    figures = {**_steady_figures(asked), **cost_figures(asked.by_process), "own": _steady_figures(own)}
    lost = asked.lost + own.lost
    return Outcome({**figures, "lost": lost}, [shown, cost_table("half", asked.by_process)], lost)


class _Steady(NamedTuple):
    """Runs at a rate: what was reached, the delays of each, what a task costs by process."""

    rates: list[float]
    runs: list[dict[str, float]]
    by_process: dict[str, float]
    lost: int


async def _at_rate(stage: Stage, rate: float) -> _Steady:
    count = int(rate * HALF_SECONDS)
    runs, used, rates, lost = [], [], [], 0
    await _steady(stage, count // 10, rate)
    for _ in range(stage.repeat):
        before = cpu_seconds(stage.system)
        ids, seconds = await _steady(stage, count, rate)
        used.append(cpu_per_task(stage.system, before, len(ids)))
        tasks = await sampled(stage.client, ids)
        runs.append(spread(start_delays(tasks)))
        rates.append(len(ids) / seconds)
        lost += sum(not task.succeeded for task in tasks)
    return _Steady(rates, runs, costs(used), lost)


def _steady_figures(steady: _Steady) -> dict[str, Any]:
    return {
        "rate_per_s": round(statistics.median(steady.rates), 1),
        "start_ms": typical(steady.runs),
        "start_p99_range": [min(run["p99"] for run in steady.runs), max(run["p99"] for run in steady.runs)],
    }


async def _steady(stage: Stage, count: int, rate: float) -> tuple[list[str], float]:
    """Tasks at a rate, to their ends; their ids, and the seconds that creating them took."""
    finished = await ended_so_far(stage.client, HALF_QUEUE)
    begun = time.perf_counter()
    ids = await submit_paced(stage.client, count, rate, HALF_QUEUE)
    seconds = time.perf_counter() - begun
    await until_ended(stage.client, HALF_QUEUE, finished + len(ids))
    return ids, seconds
