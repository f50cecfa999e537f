"""How exactly tasks start at their times while very many wait for theirs."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Iterator

from meshq.bench.figures import spread
from meshq.bench.load import PAYLOAD, TYPE, all_tasks, submit, until_ended
from meshq.client import Task, TaskSpec
from meshq.local.bench.stage import Outcome, Stage, table

QUEUE = "bench-delay"
CREATED_PER_SECOND = 2_000
"""How fast tasks are surely created: the first one comes due when all of them wait."""
DUE_PER_SECOND = 1_000
"""How fast they come due: well below what the system can do, or waiting for others would be measured."""


async def delay(stage: Stage) -> Outcome:
    """Tasks that all wait before the first one is due; by how much each starts later than it was to."""
    begun = time.time()
    first = begun + 3 + stage.backlog / CREATED_PER_SECOND
    seconds = stage.backlog / DUE_PER_SECOND
    ids = await submit(stage.client, _specs(stage.backlog, first, seconds))
    waiting = (await stage.client.queue(QUEUE)).counts.scheduled
    created = time.time()
    await asyncio.sleep(max(0.0, first + seconds - time.time()))
    await until_ended(stage.client, QUEUE, len(ids))
    tasks = await all_tasks(stage.client, ids)
    starts = [late for task in tasks if (late := _late_ms(task, created)) is not None]
    lost = len(ids) - sum(task.succeeded for task in tasks)
    early = sum(late < 0 for late in starts)
    figures = {
        "waiting": waiting,
        "measured": len(starts),
        "late_ms": spread(starts),
        "early": early,
        "lost": lost,
    }
    shown = table(
        "delay: start minus due", "waiting", "measured", "p50 ms", "p99 ms", "max ms", "too early", "lost"
    )
    times = [f"{value:.1f}" for value in spread(starts).values()]
    shown.add_row(str(waiting), str(len(starts)), *times, str(early), str(lost))
    return Outcome(figures, [shown], lost)


def _specs(count: int, first: float, seconds: float) -> Iterator[TaskSpec]:
    for number in range(count):
        # In an order that has nothing to do with that of the creation.
        place = number * 7_919 % count / count
        due = dt.datetime.fromtimestamp(first + seconds * place, dt.UTC)
        yield TaskSpec(type=TYPE, payload=PAYLOAD, queue=QUEUE, start_time=due)


def _late_ms(task: Task, created: float) -> float | None:
    """By how much it started late; None where the machine was too slow to have all tasks wait before."""
    if task.attempt_start_time is None or task.start_time is None or task.start_time.timestamp() < created:
        return None
    return (task.attempt_start_time - task.start_time).total_seconds() * 1000
