"""Tasks that take time and do nothing, to see how a system behaves."""

from __future__ import annotations

import asyncio
from typing import Final, TypedDict

from meshq.worker import InvalidInput, TaskContext

MAX_SECONDS: Final = 86_400.0
MAX_STEPS: Final = 10_000


class Slept(TypedDict):
    """The result of `sleep`."""

    slept_seconds: float


class Backup(TypedDict):
    """The result of `simulate_backup`."""

    files: int
    bytes: int
    steps: int
    seconds: float


async def sleep(seconds: float = 1.0) -> Slept:
    """Sleep; a cancellation ends it at once.

    Args:
        seconds: How long, 0 to 86,400.
    """
    check_seconds("seconds", seconds)
    await asyncio.sleep(seconds)
    return {"slept_seconds": seconds}


async def simulate_backup(
    context: TaskContext,
    files: int = 100,
    file_bytes: int = 1 << 20,
    steps: int = 10,
    seconds: float = 1.0,
) -> Backup:
    """Go through the motions of a backup, with a progress report and a log line at each step.

    Args:
        context: The task at work.
        files: How many files there are, at least 1.
        file_bytes: The size of each, not negative.
        steps: In how many steps they are copied, 1 to 10,000.
        seconds: How long it takes in all, 0 to 86,400.
    """
    check_seconds("seconds", seconds)
    if files < 1:
        raise InvalidInput(f"files: must be at least 1, not {files}")
    if file_bytes < 0:
        raise InvalidInput(f"file_bytes: must not be negative, not {file_bytes}")
    if not 1 <= steps <= MAX_STEPS:
        raise InvalidInput(f"steps: must be 1 to {MAX_STEPS:,}, not {steps}")
    for step in range(1, steps + 1):
        await asyncio.sleep(seconds / steps)
        done = files * step // steps
        copied = {"files": done, "bytes": done * file_bytes}
        context.progress(step / steps, f"{done} of {files} files", copied)
        context.log(f"step {step} of {steps}: {done} of {files} files, {done * file_bytes:,} bytes")
    return {"files": files, "bytes": files * file_bytes, "steps": steps, "seconds": seconds}


def check_seconds(name: str, seconds: float, *, least: float = 0.0, most: float = MAX_SECONDS) -> None:
    """Refuse a time that is out of its range.

    Raises:
        InvalidInput: It is; the message names it.
    """
    if not least <= seconds <= most:  # Not a number is not in any range either.
        raise InvalidInput(f"{name}: must be {least:g} to {most:,.0f}, not {seconds}")
