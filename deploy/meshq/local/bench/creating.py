"""How fast tasks are accepted, in bulk and in calls of one task each. Nobody serves their queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from meshq.bench.calls import Creations, accept, concurrent_calls
from meshq.bench.figures import ranged, spread, typical
from meshq.bench.load import plain
from meshq.local.bench.stage import (
    Outcome,
    Stage,
    cost_figures,
    cost_table,
    costs,
    cpu_per_task,
    cpu_seconds,
    only_one,
    ready_on_shards,
    table,
    until_ready,
)
from meshq.local.plan import Kind

QUEUE = "bench-unserved"
WARM_UP_CALLS = 200


async def accepted(stage: Stage) -> Outcome:
    """Bulk submission only: until all tasks are durable, and the client has their ids."""
    return await _creations(
        stage,
        "accept: bulk submission until the last id has come",
        lambda: accept(stage.client, plain(stage.tasks, QUEUE)),
    )


async def calls(stage: Stage) -> Outcome:
    """Calls of one task each by concurrent callers, through the gateway, to one management process."""
    async with only_one(stage.system, Kind.MANAGEMENT):
        await concurrent_calls(stage.client, QUEUE, WARM_UP_CALLS, stage.concurrency)
        return await _creations(
            stage,
            f"calls: {stage.concurrency} callers at a time, one task per call, one management process",
            lambda: concurrent_calls(stage.client, QUEUE, stage.calls, stage.concurrency),
        )


async def _creations(stage: Stage, title: str, create: Callable[[], Awaitable[Creations]]) -> Outcome:
    runs: list[Creations] = []
    used = []
    others = await ready_on_shards(stage.client)
    for _ in range(stage.repeat):
        before = cpu_seconds(stage.system)
        runs.append(await create())
        used.append(cpu_per_task(stage.system, before, runs[-1].tasks))
        await stage.client.purge_queue(QUEUE, "measured")
        # Shards are told of it later, which is not to disturb the next run.
        await until_ready(stage.client, lambda ready: ready <= others)
    by_process = costs(used)
    figures = {
        "tasks": runs[0].tasks,
        **ranged("throughput_per_s", [run.rate for run in runs]),
        **_latency(runs),
        **cost_figures(by_process),
    }
    shown = table(title, "run", "tasks", "tasks/s", "p50 ms", "p99 ms")
    for number, run in enumerate(runs, 1):
        latency = [f"{spread(run.waits)[name]:.1f}" if run.waits else "" for name in ("p50", "p99")]
        shown.add_row(str(number), str(run.tasks), f"{run.rate:,.0f}", *latency)
    return Outcome(figures, [shown, cost_table(title.partition(":")[0], by_process)])


def _latency(runs: Sequence[Creations]) -> dict[str, dict[str, float]]:
    """The medians over the runs of what calls took."""
    if not runs[0].waits:
        return {}
    return {"latency_ms": typical([spread(run.waits) for run in runs])}
