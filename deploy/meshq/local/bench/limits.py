"""What limits cost where they are never reached: throughput beside that of an unlimited queue.

Machines are noisy, so the queues take turns, and each run is compared with the unlimited one of its own
round. The CPU that a task takes in all processes tells the cost also where others use the machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from meshq.bench.load import PAYLOAD, TYPE
from meshq.client import QueueSettings, RateLimit, TaskSpec
from meshq.local.bench.stage import Outcome, Stage, bulk_run, table

QUEUES: dict[str, QueueSettings] = {
    "bench-unlimited": {},
    # What the keys themselves cost: they make a task more than a plain one.
    "bench-unlimited-with-key": {},
    "bench-running": {"max_running": 1_000_000},
    "bench-running-per-key": {"max_running_per_key": 1_000_000},
    "bench-rate": {"rate": RateLimit(1_000_000)},
    "bench-rate-per-key": {"rate_per_key": RateLimit(1_000_000)},
}
UNLIMITED = "bench-unlimited"
KEYS = 100


async def limits(stage: Stage) -> Outcome:
    """Bulk runs through queues with limits that are never reached, as parts of the unlimited one's rate."""
    for queue, settings in QUEUES.items():
        await stage.client.update_queue(queue, allow_missing=True, **settings)
    rates: dict[str, list[float]] = {queue: [] for queue in QUEUES}
    costs: dict[str, list[float]] = {queue: [] for queue in QUEUES}
    lost = 0
    for number in range(stage.repeat):
        for queue in _turned(list(QUEUES), number):
            run = await bulk_run(stage, _specs(stage.tasks, queue), queue)
            rates[queue].append(run.figures.throughput)
            costs[queue].append(sum(run.cpu.values()))
            lost += run.figures.lost
    ratios = {
        queue: [mine / free for mine, free in zip(rates[queue], rates[UNLIMITED], strict=True)]
        for queue in QUEUES
    }
    shown = table(
        "limits that are never reached", "limit", "tasks/s", "ratio", "lowest", "highest", "µs/task"
    )
    figures: dict[str, Any] = {"lost": lost}
    for queue in QUEUES:
        name = queue.removeprefix("bench-")
        rate, ratio = statistics.median(rates[queue]), statistics.median(ratios[queue])
        low, high, cost = min(ratios[queue]), max(ratios[queue]), statistics.median(costs[queue])
        figures[name] = {
            "throughput_per_s": round(rate, 1),
            "ratio": round(ratio, 3),
            "ratio_range": [round(low, 3), round(high, 3)],
            "cpu_us_per_task": round(cost),
        }
        shown.add_row(name, f"{rate:,.0f}", f"{ratio:.2f}", f"{low:.2f}", f"{high:.2f}", f"{cost:.0f}")
    return Outcome(figures, [shown], lost)


def _specs(count: int, queue: str) -> Iterator[TaskSpec]:
    keyed = queue.endswith("-key")
    return (
        TaskSpec(type=TYPE, payload=PAYLOAD, queue=queue, limit_key=f"key-{number % KEYS}" if keyed else None)
        for number in range(count)
    )


def _turned(queues: list[str], by: int) -> list[str]:
    by %= len(queues)
    return queues[by:] + queues[:by]
