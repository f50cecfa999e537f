"""What the system takes while nothing happens, and how much memory it keeps of what has happened."""

from __future__ import annotations

import asyncio
from typing import Any

import psutil

from meshq.bench.load import plain, run_to_end
from meshq.local.bench.database import statements
from meshq.local.bench.stage import Outcome, Stage, cpu_seconds, table
from meshq.local.plan import Kind

SETTLED_AFTER = 10.0
"""Until what was done before is forgotten: partitions, tombstones and the like follow later, and seldom."""
AT_A_TIME = 100_000
OURS = (Kind.REGISTRY, Kind.MANAGEMENT, Kind.EXECUTION, Kind.GATEWAY, Kind.WORKER)
_MINUTE = 60.0
_MOST_SHOWN = 8


async def idle(stage: Stage) -> Outcome:
    """CPU by process as a share of one core, and SQL statements, of a system that nobody uses."""
    await asyncio.sleep(min(SETTLED_AFTER, stage.seconds))
    before = cpu_seconds(stage.system)
    with statements(stage.system) as found:
        await asyncio.sleep(stage.seconds)
        after = cpu_seconds(stage.system)
    shares = {name: (after[name] - before[name]) / stage.seconds * 100 for name in after if name != "bench"}
    per_minute = found.total() * _MINUTE / stage.seconds
    figures = {
        "seconds": stage.seconds,
        "cpu_percent": round(sum(shares.values()), 2),
        "cpu_percent_by_process": {name: round(share, 2) for name, share in shares.items()},
        "statements_per_minute": round(per_minute, 1),
        "statements": dict(found.most_common(_MOST_SHOWN)),
    }
    shown = table("idle: CPU as a share of one core", "process", "%")
    for name, share in sorted(shares.items(), key=lambda item: -item[1]):
        shown.add_row(name, f"{share:.2f}")
    shown.add_row("all", f"{sum(shares.values()):.2f}")
    asked = table(f"idle: {per_minute:.0f} SQL statements a minute", "statement", f"in {stage.seconds:.0f} s")
    for text, count in found.most_common(_MOST_SHOWN):
        asked.add_row(text, str(count))
    return Outcome(figures, [shown, asked])


async def memory(stage: Stage) -> Outcome:
    """The resident memory of each of our processes before, after very many tasks, and after as many again."""
    looks = [_resident(stage)]
    for _ in range(2):
        left = stage.many
        while left > 0:
            await run_to_end(stage.client, plain(min(left, AT_A_TIME)), "default")
            left -= AT_A_TIME
        looks.append(_resident(stage))
    figures: dict[str, Any] = {
        "tasks": stage.many,
        "rss_mb": {name: [round(look.get(name, 0) / 1e6, 1) for look in looks] for name in looks[-1]},
    }
    figures["highest_mb"] = max(sizes[1] for sizes in figures["rss_mb"].values())
    figures["most_growth_mb"] = round(max(last - first for _, first, last in figures["rss_mb"].values()), 1)
    shown = table("memory: resident, MB", "process", "before", f"after {stage.many:,}", "after as many again")
    for name, sizes in figures["rss_mb"].items():
        shown.add_row(name, *(f"{size:.0f}" for size in sizes))
    return Outcome(figures, [shown])


def _resident(stage: Stage) -> dict[str, int]:
    """The bytes that each process of ours has in memory, what it has started included, by name.

    Of several that are called the same it is the largest.
    """
    found: dict[str, int] = {}
    for name, process in stage.system.processes.items():
        if process.kind not in OURS or process.pid is None:
            continue
        top = psutil.Process(process.pid)
        for one in [top, *top.children(recursive=True)]:
            called = name if one == top else f"{name}: {_called(one)}"
            found[called] = max(found.get(called, 0), one.memory_info().rss)
    return found


def _called(process: psutil.Process) -> str:
    """What a child is: the module that it runs, or its program."""
    words = process.cmdline()
    return words[words.index("-m") + 1] if "-m" in words else process.name()
