"""Measures a live system, beside whatever else it does, and takes away what it has made."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from meshq.bench.calls import Creations, accept, concurrent_calls
from meshq.bench.events import Subscriber, after_handler
from meshq.bench.figures import Figures, spread
from meshq.bench.load import all_tasks, plain, run_to_end
from meshq.bench.pacing import sampled, submit_paced
from meshq.bench.single import offsets, round_trips, tracks
from meshq.bench.worker import running
from meshq.client import Client
from meshq.contract.errors import Conflict, DeadlineExceeded, NotFound, Reason

REASON = "measured by meshq bench"
SINGLE_CALLS = 100
EVENTS_PER_SECOND = 200.0
HEARD_WITHIN = 60.0
_WARM_UP_SHARE = 10
_EMPTY_WITHIN = 60.0
_LOOK = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured, and where.

    Attributes:
        tasks: Tasks that are accepted in bulk, and as many that run.
        calls: Calls that create one task each, and calls that wait for one task each, at most 100 of these.
        concurrency: Callers at a time.
        queue: The queue that is made for it; another one, with `-waiting` behind its name, nobody serves.
        own_worker: Whether to start a worker; without, one that serves `meshq.bench.handlers` and the
            built-in task types on the queue must be there.
    """

    tasks: int = 10_000
    calls: int = 2_000
    concurrency: int = 64
    queue: str = field(default_factory=lambda: f"bench-{secrets.token_hex(4)}")
    own_worker: bool = True

    @property
    def waiting(self) -> str:
        """The queue that nobody serves."""
        return f"{self.queue}-waiting"


async def measure(
    target: str | None, sizes: Sizes, say: Callable[[str], None], *, timeout_seconds: float
) -> dict[str, Any]:
    """Measure, and clean up however it ends.

    Args:
        target: As in `meshq.client.Client`.
        sizes: How much, and where.
        say: Told what is being done.
        timeout_seconds: Of single calls.

    Raises:
        Conflict: There is such a queue already, whose tasks must not be touched.
        MeshqError: Something failed on the way.
    """
    async with Client(target, timeout=timeout_seconds) as client:
        for queue in (sizes.queue, sizes.waiting):
            await _refuse_existing(client, queue)
        try:
            async with running(client, sizes.queue) if sizes.own_worker else contextlib.nullcontext():
                return await _all(client, sizes, say)
        finally:
            say("cleaning up")
            for queue in (sizes.queue, sizes.waiting):
                await _clear(client, queue)


async def _all(client: Client, sizes: Sizes, say: Callable[[str], None]) -> dict[str, Any]:
    say(f"warming up, in the queue {sizes.queue}")
    await run_to_end(client, plain(max(sizes.tasks // _WARM_UP_SHARE, 1), sizes.queue), sizes.queue)
    say(f"accept: {sizes.tasks:,} tasks in bulk, until the last id has come")
    accepted = await accept(client, plain(sizes.tasks, sizes.waiting))
    await client.purge_queue(sizes.waiting, REASON)
    say(f"bulk: {sizes.tasks:,} tasks, until the last one has ended")
    ran = await run_to_end(client, plain(sizes.tasks, sizes.queue), sizes.queue)
    bulk = Figures.of(len(ran.ids), await all_tasks(client, ran.ids), ran.seconds)
    say(f"calls: {sizes.calls:,} calls of one task each, {sizes.concurrency} at a time")
    calls = await concurrent_calls(client, sizes.waiting, sizes.calls, sizes.concurrency)
    await client.purge_queue(sizes.waiting, REASON)
    few = min(sizes.calls, SINGLE_CALLS)
    say(f"single: {few} tasks, one at a time")
    waits = await round_trips(client, sizes.queue, few)
    points = offsets(await tracks(client, sizes.queue, few))
    say(f"events: what a subscriber hears of {few} tasks")
    return {
        "target": client.target,
        "accept": _created(accepted),
        "bulk": bulk.summary(),
        "calls": {**_created(calls), "concurrency": sizes.concurrency, "latency_ms": spread(calls.waits)},
        "single": {"calls": few, "latency_ms": spread(waits), "points_ms": points},
        "events": {"tasks": few, "after_handler_ms": await _heard(client, sizes.queue, few)},
    }


def _created(creations: Creations) -> dict[str, Any]:
    return {"tasks": creations.tasks, "throughput_per_s": round(creations.rate, 1)}


async def _heard(client: Client, queue: str, count: int) -> Mapping[str, float]:
    """How long after their handlers a subscriber hears of tasks that come at a modest rate."""
    async with Subscriber(client, queue) as subscriber:
        ids = await submit_paced(client, count, EVENTS_PER_SECOND, queue)
        await subscriber.until(ids, HEARD_WITHIN)
    return spread(after_handler(await sampled(client, ids), subscriber.heard))


async def _refuse_existing(client: Client, queue: str) -> None:
    try:
        await client.queue(queue)
    except NotFound:
        return
    raise Conflict(f"there is a queue {queue} already", Reason.QUEUE_EXISTS)


async def _clear(client: Client, queue: str) -> None:
    """Cancel and delete the tasks of a queue, and forget the queue."""
    with contextlib.suppress(NotFound):
        await _empty(client, queue)
        await client.delete_many(queue=queue)
        await client.delete_queue(queue)


async def _empty(client: Client, queue: str) -> None:
    """Cancel what waits, and what a worker that leaves gives back."""
    try:
        async with asyncio.timeout(_EMPTY_WITHIN):
            while (await client.queue(queue)).counts.open:
                await client.purge_queue(queue, REASON)
                await asyncio.sleep(_LOOK)
    except TimeoutError:
        raise DeadlineExceeded(f"tasks of the queue {queue} are still at workers") from None
