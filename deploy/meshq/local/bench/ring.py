"""What a change of the ring costs: a fourth shard is added, and drained and removed again, under load.

A backlog is made before, and tasks are created for as long as it takes; when they ended says how fast it went
on meanwhile, and for how long nothing did.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from meshq.bench.load import FRAME, all_tasks, ended_so_far, plain, submit, until_ended
from meshq.client import Client
from meshq.contract.errors import PreconditionFailed
from meshq.local.bench.stage import Outcome, Stage, table
from meshq.local.ports import free_port
from meshq.local.servers import Valkey

QUEUE = "bench-ring"
NEW = "shard-new"
SECONDS = 10.0
"""The least that a phase lasts."""
REMOVED_WITHIN = 120.0
_PAUSE = 0.1


@dataclass(slots=True)
class Load:
    """Creates tasks without end, but not more than the system keeps up with.

    Attributes:
        backlog: So many are open at most.
        ids: Those that were accepted.
    """

    client: Client
    backlog: int
    ids: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            if len(self.ids) - await ended_so_far(self.client, QUEUE) > self.backlog - FRAME:
                await asyncio.sleep(_PAUSE)
            else:
                self.ids += await submit(self.client, plain(FRAME, QUEUE))


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the run.

    Attributes:
        name: What happened in it.
        begin: When, in seconds since 1970.
        end: Until when.
        moved: The part of the keys that has another shard since, 0 to 1.
        waiting: Tasks that waited on the shard that was drained.
    """

    name: str
    begin: float
    end: float
    moved: float = 0.0
    waiting: int = 0


async def ring(stage: Stage) -> Outcome:
    """Throughput, longest stall and keys moved: on three shards, from three to four, and back."""
    server = Valkey(stage.system.data / NEW, free_port())
    await asyncio.to_thread(server.start)
    load = Load(stage.client, stage.tasks)
    await stage.client.update_queue(QUEUE, allow_missing=True)
    await stage.client.pause_queue(QUEUE, "a backlog is made", actor="bench")
    load.ids += await submit(stage.client, plain(stage.tasks, QUEUE))
    await stage.client.resume_queue(QUEUE)
    creating = asyncio.create_task(load.run())
    try:
        await asyncio.to_thread(server.wait_ready)
        await until_ended(stage.client, QUEUE, FRAME)
        phases = [
            await _steady("no change"),
            await _added(stage.client, server.address),
            await _removed(stage.client),
            await _steady("no change again"),
        ]
    finally:
        creating.cancel()
        await asyncio.gather(creating, return_exceptions=True)
        await asyncio.to_thread(server.stop)
    return await _outcome(stage.client, load.ids, phases)


async def _steady(name: str) -> Phase:
    begin = time.time()
    await asyncio.sleep(SECONDS)
    return Phase(name, begin, time.time())


async def _added(client: Client, address: str) -> Phase:
    begin = time.time()
    added = await client.add_shard(NEW, address)
    await asyncio.sleep(SECONDS)
    # All that moved went to the new one.
    return Phase("3 to 4 shards", begin, time.time(), added.share)


async def _removed(client: Client) -> Phase:
    moved = next(shard.share for shard in (await client.shards()).shards if shard.shard == NEW)
    begin = time.time()
    drained = await client.drain_shard(NEW)
    async with asyncio.timeout(REMOVED_WITHIN):
        while not await _is_removed(client):  # noqa: ASYNC110 - it asks a server
            await asyncio.sleep(_PAUSE)
    gone = time.time()
    await asyncio.sleep(max(0.0, begin + SECONDS - gone))
    name = f"4 to 3 shards, removed after {gone - begin:.1f} s"
    return Phase(name, begin, time.time(), moved, drained.tasks_to_move)


async def _is_removed(client: Client) -> bool:
    try:
        await client.remove_shard(NEW)
    except PreconditionFailed:
        return False
    return True


async def _outcome(client: Client, ids: list[str], phases: Sequence[Phase]) -> Outcome:
    await until_ended(client, QUEUE, len(ids))
    tasks = await all_tasks(client, ids)
    lost = len(ids) - sum(task.succeeded for task in tasks)
    ends = sorted(task.end_time.timestamp() for task in tasks if task.end_time is not None)
    shown = table(
        "ring: a shard more, and one less, under load",
        "phase", "tasks/s", "longest stall ms", "keys moved", "tasks to move",
    )  # fmt: skip
    figures: dict[str, Any] = {"tasks": len(ids), "lost": lost}
    for phase in phases:
        rate, stall = _pace(ends, phase)
        shown.add_row(
            phase.name, f"{rate:,.0f}", f"{stall * 1000:,.0f}", f"{phase.moved:.1%}", f"{phase.waiting:,}"
        )
        figures[phase.name.partition(",")[0].replace(" ", "_")] = {
            "throughput_per_s": round(rate, 1),
            "longest_stall_ms": round(stall * 1000, 1),
            "keys_moved": round(phase.moved, 4),
            "tasks_to_move": phase.waiting,
            "seconds": round(phase.end - phase.begin, 1),
        }
    return Outcome(figures, [shown], lost)


def _pace(ends: Sequence[float], phase: Phase) -> tuple[float, float]:
    """Tasks per second in a phase, and for how many seconds at most none ended."""
    inside = [end for end in ends if phase.begin <= end <= phase.end]
    marks = [phase.begin, *inside, phase.end]
    return len(inside) / (phase.end - phase.begin), max(later - earlier for earlier, later in pairwise(marks))
