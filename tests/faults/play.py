"""Plays one fault under load, and says what came out."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import psycopg
from faults import evidence, report
from faults.checker import Verdict, check
from faults.evidence import Evidence
from faults.history import History
from faults.stage import executions_of
from faults.table import Fault, Scene
from faults.workload import KINDS, RATE, TASKS, Kind, Load

from meshq.local.system import System

_BEFORE, _BEFORE_MOST = 0.15, 1_000
"""The part of the tasks that is accepted before the fault begins, and no more than so many."""
_FEW = 50
_READING = 30.0
_T = TypeVar("_T")


async def play(
    fault: Fault,
    system: System,
    seed: int,
    *,
    journal: Path | None = None,
    kinds: Mapping[str, Kind] = KINDS,
    tasks: int = TASKS,
    rate: float = RATE,
) -> report.Line:
    """Run the load, break things, wait until all has ended, and check.

    Args:
        fault: What to break.
        system: A system that runs.
        seed: Decides whatever is left to chance.
        journal: A file for the history.
        kinds: What to send.
        tasks: How many at least, before the fault multiplies them.
        rate: Tasks per second, likewise.

    Returns:
        The line of the report, whether the promises were kept or not.
    """
    history = History(journal)
    chance = random.Random(seed)
    management = fault.setup.database(system, "management")
    executions = executions_of(system.data)
    before = await _patiently(lambda: evidence.baseline(management, executions))
    tasks = max(int(tasks * fault.tasks), _FEW)
    load = Load(
        system.edge,
        history,
        chance,
        tasks=tasks,
        rate=rate * fault.rate,
        kinds=kinds,
        first=len(before.ids) * 10,
    )
    scene = Scene(system, load, random.Random(seed), fault.setup)
    try:
        async with load:
            await load.reaches(min(int(tasks * _BEFORE), _BEFORE_MOST))
            history.mark(report.BEGAN)
            await fault.act(scene)
            history.mark(report.OVER)
            await load.finish(fault.settle)
            await _settle(management, fault.settle)
            await load.stop_watching()
        execution = fault.setup.database(system, "execution")
        left = await _patiently(lambda: evidence.collect(management, execution, executions, before))
    finally:
        history.close()
    return _judge(fault, seed, history, left, kinds)


def _judge(
    fault: Fault, seed: int, history: History, left: Evidence, kinds: Mapping[str, Kind]
) -> report.Line:
    verdict: Verdict = check(history, left, kinds)
    for promise in fault.exempt:
        verdict.problems.pop(promise, None)
    if verdict.failed_calls and not fault.calls_fail:
        verdict.problems["failed calls"] = report.failures(history)
    if verdict.accepted < fault.least_accepted:
        verdict.problems["too few"] = [f"{verdict.accepted} tasks accepted, not {fault.least_accepted}"]
    if verdict.again < fault.least_again:
        verdict.problems["in vain"] = [
            f"{verdict.again} runs again, at least {fault.least_again} were expected"
        ]
    return report.line(fault.name, seed, history=history, left=left, verdict=verdict, kinds=kinds)


async def _settle(management: str, seconds: float) -> None:
    """Wait until nothing is open; what still is when the time is over, the checker finds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if await evidence.open_tasks(management) == 0:
                return
        except psycopg.Error:
            await asyncio.sleep(1.0)
        await asyncio.sleep(0.1)


async def _patiently(read: Callable[[], Awaitable[_T]]) -> _T:
    """Read where a server may still be on its way back."""
    deadline = time.monotonic() + _READING
    while True:
        try:
            return await read()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)
