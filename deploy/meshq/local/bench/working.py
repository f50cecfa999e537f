"""What a Python worker can do by itself: one worker, and a server that costs next to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from meshq.bench import handlers
from meshq.bench.figures import ranged
from meshq.local.bench.feeder import Feeder
from meshq.local.bench.stage import Outcome, Stage, table

SPIN_MS = 2.0
"""What the handlers compute whose scaling over cores is looked at."""
_WARM_UP_SHARE = 10
_LEAST = 20


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of handler.

    Attributes:
        name: What it is called in the figures.
        kind: The task type.
        payload: The input; None for none.
        processes: Processes for handlers that want one.
        share: The part of the tasks of a run that it gets, because it is slower than others.
    """

    name: str
    kind: str
    payload: Any = None
    processes: int = 1
    share: float = 1.0


CASES = (
    Case("noop", handlers.NOOP),
    Case("noop_1_process", handlers.NOOP_PROCESS, share=0.2),
    Case("noop_2_processes", handlers.NOOP_PROCESS, processes=2, share=0.2),
    Case("spin_1_process", handlers.SPIN, SPIN_MS, share=0.02),
    Case("spin_2_processes", handlers.SPIN, SPIN_MS, processes=2, share=0.02),
)


async def worker(stage: Stage) -> Outcome:
    """No-op tasks per second of one worker process, and how handlers in processes scale."""
    figures: dict[str, Any] = {}
    shown = table("worker: one worker alone", "handlers", "tasks/s", "lowest", "highest", "CPU µs/task")
    for case in CASES:
        rates, cost = await _rates(case, max(int(stage.tasks * case.share), _LEAST), stage.repeat)
        figures[case.name] = {**ranged("throughput_per_s", rates), "cpu_us_per_task": round(cost)}
        numbers = (statistics.median(rates), min(rates), max(rates), cost)
        shown.add_row(case.name.replace("_", " "), *(f"{number:,.0f}" for number in numbers))
    one, two = (figures[f"spin_{text}"]["throughput_per_s"] for text in ("1_process", "2_processes"))
    figures["process_scaling"] = round(two / one, 2)
    return Outcome(figures, [shown])


async def _rates(case: Case, count: int, repeat: int) -> tuple[Sequence[float], float]:
    """Tasks per second of several runs, and the worker's CPU per task in microseconds."""
    async with Feeder() as feeder, _running(feeder.target, case.processes) as process:
        await feeder.feed(case.kind, case.payload, max(count // _WARM_UP_SHARE, _LEAST))
        before = _cpu(process)
        rates = [count / await feeder.feed(case.kind, case.payload, count) for _ in range(repeat)]
        return rates, (_cpu(process) - before) * 1e6 / (count * repeat)


@contextlib.asynccontextmanager
async def _running(target: str, processes: int) -> AsyncIterator[psutil.Process]:
    """A worker that serves the handlers for measuring."""
    words = ("--target", target, "--tasks", handlers.__name__, "--processes", str(processes))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshq.worker", *words, "--log-level", "error", "--drain-timeout", "1")
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()


def _cpu(process: psutil.Process) -> float:
    """The seconds of CPU that a process and all that it has started have taken so far."""
    return sum(sum(one.cpu_times()[:2]) for one in [process, *process.children(recursive=True)])
