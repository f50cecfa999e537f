"""How soon a task is done while very many others wait that it does not have to wait for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from meshq.bench.figures import spread
from meshq.bench.load import PAYLOAD, TYPE, submit
from meshq.client import TaskOptions, TaskSpec
from meshq.local.bench.stage import Outcome, Stage, table

PROBES = 30
PAUSE = 0.1


async def fairness(stage: Stage) -> Outcome:
    """One key has a long backlog; each probe is the first task of another key."""
    return await _overtake(
        stage,
        "bench-fairness",
        "fairness: first task of a key, beside the backlog of another",
        TaskSpec(type=TYPE, payload=PAYLOAD, queue="bench-fairness", fairness_key="many"),
        lambda number: {"queue": "bench-fairness", "fairness_key": f"few-{number}"},
    )


async def priority(stage: Stage) -> Outcome:
    """A long backlog of the lowest priority; each probe has the highest."""
    return await _overtake(
        stage,
        "bench-priority",
        "priority: a task of priority 9, beside a backlog of priority 0",
        TaskSpec(type=TYPE, payload=PAYLOAD, queue="bench-priority", priority=0),
        lambda _: {"queue": "bench-priority", "priority": 9},
    )


async def _overtake(
    stage: Stage, queue: str, title: str, waiting: TaskSpec, probe: Callable[[int], TaskOptions]
) -> Outcome:
    client = stage.client
    await client.update_queue(queue, allow_missing=True)
    await client.pause_queue(queue, "a backlog is made", actor="bench")
    ids = await submit(client, (waiting for _ in range(stage.backlog)))
    await client.resume_queue(queue)
    await asyncio.sleep(1)
    waits = []
    for number in range(PROBES):
        begun = time.perf_counter()
        await client.run(TYPE, PAYLOAD, check=True, **probe(number))
        waits.append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(PAUSE)
    left = (await client.queue(queue)).counts.open
    await client.purge_queue(queue, "measured")
    figures = {"backlog": len(ids), "left": left, "latency_ms": spread(waits)}
    shown = table(title, "backlog", "still open behind the last probe", "p50 ms", "p99 ms", "max ms")
    shown.add_row(str(len(ids)), str(left), *(f"{value:.1f}" for value in spread(waits).values()))
    return Outcome(figures, [shown])
