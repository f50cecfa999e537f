"""One task at a time on a system that does nothing else: how long it takes, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from meshq.bench.events import MIDDLE_OF_MS, Subscriber
from meshq.bench.figures import spread
from meshq.bench.handlers import CLOCK
from meshq.client import Client, Task

POINTS: Mapping[str, str] = {
    "arrived": "at management",
    "accepted": "durable: CreateTask is answered",
    "queued": "queued on its shard",
    "leased": "leased to the worker",
    "received": "received by the worker",
    "handled": "the handler runs",
    "returned": "execution has the result",
    "recorded": "the outcome is durable in the ledger",
    "settled": "the lease is gone from the shard",
    "event": "a subscriber hears of the outcome",
}
"""What a task comes by, and in which words; dispatch does not wait for the answer of `accepted`."""
_HEARD_WITHIN = 30.0


@dataclass(frozen=True, slots=True)
class Track:
    """The way of one task.

    Attributes:
        task: The task as it ended.
        sent: When the call began, in seconds since 1970.
        times: When it came by each of `POINTS`, as far as that is known.
    """

    task: Task
    sent: float
    times: dict[str, float] = field(default_factory=dict)


async def round_trips(client: Client, queue: str, calls: int) -> list[float]:
    """Calls that create a task and return its outcome, one after the other; milliseconds of each."""
    waits = []
    for _ in range(calls):
        begun = time.perf_counter()
        await client.run(CLOCK, time.time(), queue=queue, check=True)
        waits.append((time.perf_counter() - begun) * 1000)
    return waits


async def tracks(client: Client, queue: str, calls: int) -> list[Track]:
    """Create tasks, each when the end of the one before was heard of, and note the time at each point."""
    found = []
    async with Subscriber(client, queue) as subscriber:
        for _ in range(calls):
            sent = time.time()
            created = await client.create(CLOCK, sent, queue=queue)
            accepted = time.time()
            await subscriber.until([created.task_id], _HEARD_WITHIN)
            task = await client.get(created.task_id)
            own = {"accepted": accepted, "event": subscriber.heard[task.task_id]}
            found.append(Track(task, sent, _stamps(task) | own))
    return found


def offsets(found: Sequence[Track]) -> dict[str, dict[str, float]]:
    """How long after its submission a task came by each point, in milliseconds, as far as that is known."""
    return {point: spread(_offsets(found, point)) for point in POINTS if any(_offsets(found, point))}


def hops(medians: Mapping[str, Mapping[str, float]]) -> list[tuple[str, float]]:
    """What was passed between one point and the next, in milliseconds, in the order of time.

    Args:
        medians: As `offsets` has them. `accepted` is left out: its answer travels while the task goes on.
    """
    passed = sorted(
        (of["p50"], point) for point, of in medians.items() if point not in {"accepted", "settled"}
    )
    befores = [0.0, *(at for at, _ in passed)]
    return [(point, round(at - before, 2)) for before, (at, point) in zip(befores, passed, strict=False)]


def _offsets(found: Iterable[Track], point: str) -> list[float]:
    return [(track.times[point] - track.sent) * 1000 for track in found if point in track.times]


def _stamps(task: Task) -> dict[str, float]:
    """The times that the task itself has, and the one that its handler told."""
    stamps = {
        "arrived": task.create_time,
        "received": task.attempt_start_time,
        "returned": task.end_time,
    }
    times = {point: time.timestamp() + MIDDLE_OF_MS for point, time in stamps.items() if time is not None}
    return times | ({"handled": task.result} if isinstance(task.result, float) else {})
