"""Creating tasks: in bulk, and in calls of one task each by many callers at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from meshq.bench.load import PAYLOAD, TYPE, submit
from meshq.client import Client, TaskSpec


@dataclass(frozen=True, slots=True)
class Creations:
    """Tasks that were created.

    Attributes:
        tasks: How many were accepted.
        seconds: From the first submission to the last answer.
        waits: How long each call took, in milliseconds; empty for bulk.
    """

    tasks: int
    seconds: float
    waits: tuple[float, ...] = ()

    @property
    def rate(self) -> float:
        """Tasks accepted per second."""
        return self.tasks / self.seconds if self.seconds > 0 else 0.0


async def accept(client: Client, specs: Iterable[TaskSpec]) -> Creations:
    """Create tasks over one bulk stream, until the last of them is durable and has its id."""
    begun = time.perf_counter()
    ids = await submit(client, specs)
    return Creations(len(ids), time.perf_counter() - begun)


async def concurrent_calls(client: Client, queue: str, count: int, concurrency: int) -> Creations:
    """Create tasks one per call, by so many callers that each wait for the answer before the next call."""
    waits: list[float] = []
    numbers = iter(range(count))
    begun = time.perf_counter()
    await asyncio.gather(*(_caller(client, queue, numbers, waits) for _ in range(concurrency)))
    return Creations(len(waits), time.perf_counter() - begun, tuple(waits))


async def _caller(client: Client, queue: str, numbers: Iterator[int], waits: list[float]) -> None:
    for _ in numbers:
        begun = time.perf_counter()
        await client.create(TYPE, PAYLOAD, queue=queue)
        waits.append((time.perf_counter() - begun) * 1000)
