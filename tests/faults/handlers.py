"""What the workers of a fault run do: each handler writes its start and its end to the file of executions.

Each line goes out with one write to a file that is opened for appending, so that lines of several processes
never mix, and a killed process leaves all that it has done.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

from meshq.worker import TaskContext, TaskRegistry

FILE_VARIABLE = "MESHQ_FAULT_EXECUTIONS"

registry = TaskRegistry()


class Echo(TypedDict):
    """The result of every handler: the serial number that it was given."""

    n: int


@contextmanager
def _written(context: TaskContext) -> Iterator[None]:
    _write(context, "start")
    try:
        yield
    finally:
        _write(context, "end")


def _write(context: TaskContext, what: str) -> None:
    line = {
        "t": time.time(),
        "what": what,
        "task": context.task_id,
        "attempt": context.attempt,
        "token": context.lease_token,
        "pid": os.getpid(),
    }
    os.write(_file(), (json.dumps(line) + "\n").encode())


def _file() -> int:
    global _opened  # noqa: PLW0603 - once for each process, also for those that handlers run in
    if _opened is None:
        _opened = os.open(os.environ[FILE_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    return _opened


_opened: int | None = None


@registry.task("note")
async def note(n: int, context: TaskContext) -> Echo:
    """End at once."""
    with _written(context):
        return {"n": n}


@registry.task("stumble")
async def stumble(n: int, context: TaskContext) -> Echo:
    """Fail the first time."""
    with _written(context):
        if context.attempt == 1:
            raise RuntimeError("the first attempt fails")
        return {"n": n}


@registry.task("linger")
async def linger(n: int, context: TaskContext, seconds: float = 0.05) -> Echo:
    """Take a while, so that there is somebody to kill in mid-task."""
    with _written(context):
        await asyncio.sleep(seconds)
        return {"n": n}


@registry.task("crunch", processes=True)
def crunch(n: int, context: TaskContext, seconds: float = 0.02) -> Echo:
    """Take a while in a process of its own."""
    with _written(context):
        context.wait_cancelled(seconds)
        return {"n": n}


@registry.task("kill")
async def kill(n: int, context: TaskContext) -> Echo:
    """Kill the worker, with all that it runs."""
    _write(context, "start")
    os.killpg(0, signal.SIGKILL)
    return {"n": n}
