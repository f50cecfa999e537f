"""Many tasks at a time: creating them, waiting for their ends, and reading what became of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from meshq.client import Client, Task, TaskSpec, TaskView
from meshq.contract.errors import NotFound

FRAME = 1_000
TYPE = "word_count"
PAYLOAD = "the quick brown fox jumps over the lazy dog"
GIVE_UP_AFTER = 300.0
_OFTEN, _SELDOM = 0.02, 0.5


def plain(count: int, queue: str = "default") -> Iterator[TaskSpec]:
    """Many small tasks."""
    return (TaskSpec(type=TYPE, payload=PAYLOAD, queue=queue) for _ in range(count))


async def submit(client: Client, specs: Iterable[TaskSpec]) -> list[str]:
    """Create many tasks; the ids of those that were accepted."""
    return [created.task_id async for created in client.create_many(specs) if created.task_id]


@dataclass(frozen=True, slots=True)
class Run:
    """Tasks that were run.

    Attributes:
        ids: Those that were accepted.
        seconds: From the first submission until the ledger said here that the last one has ended.
    """

    ids: list[str]
    seconds: float


async def run_to_end(client: Client, specs: Iterable[TaskSpec], queue: str) -> Run:
    """Create many tasks of one queue in frames and wait for the last outcome."""
    finished = await ended_so_far(client, queue)
    begun = time.perf_counter()
    ids = await submit(client, specs)
    await until_ended(client, queue, finished + len(ids))
    return Run(ids, time.perf_counter() - begun)


async def ended_so_far(client: Client, queue: str) -> int:
    """How many tasks of a queue have ended, by the ledger's counters."""
    try:
        counts = (await client.queue(queue)).counts
    except NotFound:
        return 0
    return counts.succeeded + counts.failed + counts.cancelled + counts.expired


async def until_ended(client: Client, queue: str, count: int, seconds: float = GIVE_UP_AFTER) -> None:
    """Wait until so many tasks of a queue have ended, by the ledger.

    Looking costs the servers something, so that it is done seldom at first, and often near the end.
    """
    async with asyncio.timeout(seconds):
        pause = _OFTEN
        looked, ended = time.perf_counter(), await ended_so_far(client, queue)
        while ended < count:
            await asyncio.sleep(pause)
            before, at = ended, looked
            looked, ended = time.perf_counter(), await ended_so_far(client, queue)
            pause = _next_look(count - ended, (ended - before) / (looked - at))


def _next_look(left: int, rate: float) -> float:
    """Seconds until the next look: half of what it may still take."""
    return min(max(left / rate / 2, _OFTEN), _SELDOM) if rate > 0 else _OFTEN


async def all_tasks(client: Client, ids: list[str]) -> list[Task]:
    """What the ledger says of each task."""
    tasks: list[Task] = []
    for start in range(0, len(ids), FRAME):
        tasks += (await client.get_many(ids[start : start + FRAME], view=TaskView.BASIC)).tasks
    return tasks
