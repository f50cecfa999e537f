"""Tasks at a steady rate, which say when they were submitted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from meshq.bench.handlers import CLOCK
from meshq.bench.load import FRAME
from meshq.client import Client, Task, TaskSpec, TaskView

_SHORTEST_SLEEP = 0.001
SAMPLE = 20_000
"""So many tasks of a run are read and looked at, evenly spread over it."""


async def paced(count: int, per_second: float, queue: str) -> AsyncIterator[TaskSpec]:
    """So many tasks at a steady rate; what is late does not delay what comes after it."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for number in range(count):
        wait = begun + number / per_second - loop.time()
        if wait > _SHORTEST_SLEEP:
            await asyncio.sleep(wait)
        yield TaskSpec(type=CLOCK, payload=time.time(), queue=queue)


async def submit_paced(client: Client, count: int, per_second: float, queue: str) -> list[str]:
    """Create tasks at a steady rate over one bulk stream; the ids of those that were accepted."""
    created = client.create_many(paced(count, per_second, queue))
    return [one.task_id async for one in created if one.task_id]


async def sampled(client: Client, ids: Sequence[str]) -> list[Task]:
    """Some of the tasks with their input and result."""
    some = ids[:: max(1, len(ids) // SAMPLE)]
    tasks: list[Task] = []
    for start in range(0, len(some), FRAME):
        tasks += (await client.get_many(some[start : start + FRAME], view=TaskView.FULL)).tasks
    return tasks


def start_delays(tasks: Sequence[Task]) -> list[float]:
    """How long after its submission each task was at its handler, in milliseconds; one clock for both."""
    return [
        (task.result - task.payload) * 1000
        for task in tasks
        if isinstance(task.result, float) and isinstance(task.payload, float)
    ]
