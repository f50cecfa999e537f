"""Many tasks at a time: creating them, waiting for their ends, and reading what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from meshq.client import Client, Task, TaskSpec, TaskView
from meshq.contract.errors import NotFound

FRAME = 1_000
TYPE = "word_count"
PAYLOAD = "the quick brown fox jumps over the lazy dog"
GIVE_UP_AFTER = 300.0


def plain(count: int, queue: str = "default") -> Iterator[TaskSpec]:
    """Many small tasks."""
    return (TaskSpec(type=TYPE, payload=PAYLOAD, queue=queue) for _ in range(count))


async def submit(client: Client, specs: Iterable[TaskSpec]) -> list[str]:
    """Create many tasks; the ids of those that were accepted."""
    return [created.task_id async for created in client.create_many(specs) if created.task_id]


async def ended_so_far(client: Client, queue: str) -> int:
    """How many tasks of a queue have ended, by the ledger's counters."""
    try:
        counts = (await client.queue(queue)).counts
    except NotFound:
        return 0
    return counts.succeeded + counts.failed + counts.cancelled + counts.expired


async def until_ended(client: Client, queue: str, count: int, seconds: float = GIVE_UP_AFTER) -> None:
    """Wait until so many tasks of a queue have ended."""
    async with asyncio.timeout(seconds):
        while await ended_so_far(client, queue) < count:  # noqa: ASYNC110 - it asks a server
            await asyncio.sleep(0.05)


async def all_tasks(client: Client, ids: list[str]) -> list[Task]:
    """What the ledger says of each task."""
    tasks: list[Task] = []
    for start in range(0, len(ids), FRAME):
        tasks += (await client.get_many(ids[start : start + FRAME], view=TaskView.BASIC)).tasks
    return tasks
