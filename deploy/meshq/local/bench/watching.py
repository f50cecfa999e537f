"""How soon a subscriber hears of an outcome, and what very many watches at once take."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import psutil

from meshq.bench.events import Subscriber, after_handler
from meshq.bench.figures import spread
from meshq.bench.load import PAYLOAD, TYPE, submit
from meshq.bench.pacing import sampled, submit_paced
from meshq.client import Client, TaskSpec
from meshq.local.bench.database import recorded
from meshq.local.bench.stage import Outcome, Stage, only_one, table
from meshq.local.plan import Kind

EVENTS_QUEUE = "bench-events"
WATCHED_QUEUE = "bench-watched"
EVENTS_PER_SECOND = 200.0
EVENTS = 2_000
OPENED_AT_A_TIME = 200
HEARD_WITHIN = 120.0


async def events(stage: Stage) -> Outcome:
    """From the ledger's commit of outcomes to a subscriber: without others, and beside very many watches."""
    async with only_one(stage.system, Kind.MANAGEMENT) as management:
        process = psutil.Process(stage.system.processes[management].pid)
        alone = await _heard(stage)
        before = process.memory_info().rss
        watches = await Watches.open(stage.client, stage.watches)
        rss = process.memory_info().rss
        beside = await _heard(stage)
        told = await watches.end()
    figures = {
        "event_ms": alone["recorded"],
        "after_handler_ms": alone["handled"],
        "watches": stage.watches,
        "event_ms_beside_watches": beside["recorded"],
        "rss_mb": round(rss / 1e6, 1),
        "bytes_per_watch": round((rss - before) / stage.watches),
        "watches_told": told,
    }
    title = "events: the ledger's commit to the event at a subscriber"
    shown = table(title, "", "p50 ms", "p99 ms", "max ms")
    for name, times in (("alone", alone), (f"beside {stage.watches:,} watches", beside)):
        shown.add_row(name, *(f"{value:.1f}" for value in times["recorded"].values()))
    sizes = table("events: watches on one management process", "watches", "RSS MB", "bytes a watch", "told")
    sizes.add_row(f"{stage.watches:,}", f"{rss / 1e6:.0f}", f"{figures['bytes_per_watch']:,}", f"{told:,}")
    return Outcome(figures, [shown, sizes], stage.watches - told)


async def _heard(stage: Stage) -> dict[str, dict[str, float]]:
    """How long after the commit, and after the handler, a subscriber hears of outcomes."""
    count = min(EVENTS, stage.tasks)
    async with Subscriber(stage.client, EVENTS_QUEUE) as subscriber:
        ids = await submit_paced(stage.client, count, EVENTS_PER_SECOND, EVENTS_QUEUE)
        await subscriber.until(ids, HEARD_WITHIN)
    durable = recorded(stage.system, ids)
    times = [(subscriber.heard[task_id] - durable[task_id]) * 1000 for task_id in ids]
    handled = after_handler(await sampled(stage.client, ids), subscriber.heard)
    return {"recorded": spread(times), "handled": spread(handled)}


class Watches:
    """A watch for each of very many tasks that nobody runs.

    Attributes:
        ids: The tasks.
    """

    def __init__(self, client: Client, ids: Sequence[str]) -> None:
        self.ids = ids
        self._client = client
        self._open = asyncio.Semaphore(OPENED_AT_A_TIME)
        self._watching: list[asyncio.Task[bool]] = []
        self._began = 0
        self._all_began = asyncio.Event()

    @classmethod
    async def open(cls, client: Client, count: int) -> Watches:
        """Make the tasks, and return when each watch has told how its task stands."""
        specs = (TaskSpec(type=TYPE, payload=PAYLOAD, queue=WATCHED_QUEUE) for _ in range(count))
        watches = cls(client, await submit(client, specs))
        watches._watching = [asyncio.create_task(watches._watch(task_id)) for task_id in watches.ids]
        async with asyncio.timeout(HEARD_WITHIN):
            await watches._all_began.wait()
        return watches

    async def end(self) -> int:
        """Cancel all tasks; how many watches were told."""
        await self._client.purge_queue(WATCHED_QUEUE, "measured")
        done, left = await asyncio.wait(self._watching, timeout=HEARD_WITHIN)
        for one in left:
            one.cancel()
        return sum(one.result() for one in done)

    async def _watch(self, task_id: str) -> bool:
        began = False
        async with contextlib.AsyncExitStack() as opening:
            await opening.enter_async_context(self._open)
            async for _ in self._client.watch(task_id):
                if not began:
                    began = True
                    await opening.aclose()
                    self._note()
        return True

    def _note(self) -> None:
        self._began += 1
        if self._began == len(self.ids):
            self._all_began.set()
