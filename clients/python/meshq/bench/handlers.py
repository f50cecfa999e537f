"""Handlers for measuring: `python -m meshq.worker --tasks meshq.bench.handlers --queues ...`.

| Type | Runs | Result |
|---|---|---|
| `bench_clock` | in a thread | when it ran, in seconds since 1970 |
| `bench_noop` | in the event loop | none |
| `bench_noop_process` | in a process | none |
| `bench_spin` | in a process, for the milliseconds of processor time that it is given | none |
"""

from __future__ import annotations

import time

from meshq.worker import TaskRegistry

CLOCK = "bench_clock"
NOOP = "bench_noop"
NOOP_PROCESS = "bench_noop_process"
SPIN = "bench_spin"


def clock(_sent: float) -> float:
    """The time, more exactly than in milliseconds, as a task has it.

    Args:
        _sent: When the task was submitted, which whoever reads the task wants to know.
    """
    return time.time()


async def noop() -> None:
    """Nothing."""


def noop_process() -> None:
    """Nothing, elsewhere."""


def spin(milliseconds: float) -> None:
    """Keep a core busy.

    Args:
        milliseconds: For how long, in time of the processor.
    """
    end = time.process_time() + milliseconds / 1000
    while time.process_time() < end:
        pass


registry = TaskRegistry()
registry.add(CLOCK, clock)
registry.add(NOOP, noop)
registry.add(NOOP_PROCESS, noop_process, processes=True)
registry.add(SPIN, spin, processes=True)
