"""What very many waiting tasks cost: throughput beside and within them, the shards' memory, listing."""

from __future__ import annotations

import statistics
import time
from typing import Any

from rich.table import Table

from meshq.bench.figures import ranged, spread
from meshq.bench.load import PAYLOAD, ended_so_far, plain, submit, until_ended
from meshq.client import ListOptions
from meshq.client.values import to_value
from meshq.local.bench.shards import used_memory
from meshq.local.bench.stage import Outcome, Stage, bulk_run, table, until_ready

BACKLOG_QUEUE = "bench-backlog"
LISTS = 200
_LISTINGS: dict[str, ListOptions] = {
    "all": {"page_size": 100},
    "queue": {"page_size": 100, "queue": BACKLOG_QUEUE},
}


async def backlog(stage: Stage) -> Outcome:
    """Throughput of a queue on the empty system, beside very many waiting tasks, and of these themselves."""
    await stage.client.update_queue(BACKLOG_QUEUE, allow_missing=True)
    await stage.client.pause_queue(BACKLOG_QUEUE, "a backlog is made", actor="bench")
    empty = await _rates(stage)
    memory = await used_memory(stage.system.shards.values())
    begun = time.perf_counter()
    count = len(await submit(stage.client, plain(stage.many, BACKLOG_QUEUE)))
    created = count / (time.perf_counter() - begun)
    # Being accepted does not wait for being dispatched.
    await until_ready(stage.client, lambda ready: ready >= count)
    each = (await used_memory(stage.system.shards.values()) - memory) / count
    lists = {name: spread(await _first_pages(stage, wanted)) for name, wanted in _LISTINGS.items()}
    beside = await _rates(stage)
    within = await _within(stage)
    await stage.client.purge_queue(BACKLOG_QUEUE, "measured")
    figures = {
        "waiting": count,
        "created_per_s": round(created, 1),
        **ranged("empty_per_s", empty),
        **ranged("beside_per_s", beside),
        "within_per_s": round(within, 1),
        "ratio": round(statistics.median(beside) / statistics.median(empty), 3),
        "within_ratio": round(within / statistics.median(empty), 3),
        "shard_bytes_per_task": round(each),
        "shard_bytes_beyond_payload": round(each - to_value(PAYLOAD).ByteSize()),
        "list_ms": lists,
    }
    return Outcome(figures, _shown(figures))


async def _rates(stage: Stage) -> list[float]:
    return [(await bulk_run(stage, plain(stage.tasks))).figures.throughput for _ in range(stage.repeat)]


async def _first_pages(stage: Stage, wanted: ListOptions) -> list[float]:
    waits = []
    for _ in range(LISTS):
        begun = time.perf_counter()
        await stage.client.list_page(**wanted)
        waits.append((time.perf_counter() - begun) * 1000)
    return waits


async def _within(stage: Stage) -> float:
    """How fast the backlog itself is worked off, until as many have ended as a bulk run has."""
    ended = await ended_so_far(stage.client, BACKLOG_QUEUE)
    begun = time.perf_counter()
    await stage.client.resume_queue(BACKLOG_QUEUE)
    await until_ended(stage.client, BACKLOG_QUEUE, ended + min(stage.tasks, stage.many // 2))
    done = await ended_so_far(stage.client, BACKLOG_QUEUE) - ended
    return done / (time.perf_counter() - begun)


def _shown(figures: dict[str, Any]) -> list[Table]:
    rates = table(f"backlog: throughput and {figures['waiting']:,} waiting tasks", "", "tasks/s", "ratio")
    rates.add_row("without them", f"{figures['empty_per_s']:,.0f}", "")
    rates.add_row("beside them", f"{figures['beside_per_s']:,.0f}", f"{figures['ratio']:.2f}")
    rates.add_row("of themselves", f"{figures['within_per_s']:,.0f}", f"{figures['within_ratio']:.2f}")
    sizes = table("backlog: memory of the shards", "", "bytes a task")
    sizes.add_row("in all", f"{figures['shard_bytes_per_task']:,}")
    sizes.add_row("beyond the payload", f"{figures['shard_bytes_beyond_payload']:,}")
    lists = table("backlog: the first page of 100", "of", "p50 ms", "p99 ms", "max ms")
    for name, times in figures["list_ms"].items():
        lists.add_row(name, *(f"{value:.1f}" for value in times.values()))
    return [rates, sizes, lists]
