"""A system that somebody else runs: what it says of itself, and how it is stopped."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from meshq.local.datadir import holder_of
from meshq.local.errors import LocalError, NotRunning
from meshq.local.state import SystemState

_ORDERLY = 90.0
_FORCED = 10.0
_LOOK_EVERY = 0.05


def state_of(data: Path) -> SystemState:
    """What runs on the data; raise NotRunning if nothing does."""
    if holder_of(data) is None:
        raise NotRunning(f"No meshq runs on {data}.")
    return SystemState.read(data)


def stop(data: Path) -> None:
    """Stop what runs on the data and return when no process is left; raise NotRunning if nothing does."""
    state = state_of(data)
    _signal(holder_of(data), signal.SIGTERM)
    if not _within(_ORDERLY, lambda: holder_of(data) is None):
        # Its guard and the kernel kill the processes of a supervisor that is killed.
        _signal(holder_of(data), signal.SIGKILL)
        _within(_FORCED, lambda: holder_of(data) is None)
    pids = [process.pid for process in state.processes if process.pid]
    if not _within(_FORCED, lambda: not any(map(_exists, pids))):
        left = ", ".join(str(pid) for pid in pids if _exists(pid))
        raise LocalError(f"Some processes did not end: {left}.")


def wait_for_leftovers(pids: Iterable[int], seconds: float) -> None:
    """Give the processes of a supervisor that was killed the moment they need to follow it."""
    pids = tuple(pids)
    _within(seconds, lambda: not any(map(_exists, pids)))


def _signal(pid: int | None, number: signal.Signals) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # somebody else's by now
    return True


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY)
    return True
