"""How long `meshq up` takes on data that is there."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from meshq.bench.figures import ranged
from meshq.bench.load import plain, run_to_end
from meshq.client import Client
from meshq.local.bench.stage import Outcome, Stage, table
from meshq.local.errors import StartFailed


async def start(stage: Stage) -> Outcome:
    """A second system beside the first: made, used, stopped, and then started time and again."""
    with tempfile.TemporaryDirectory(prefix="meshq-bench-") as folder:
        data = Path(folder)
        first = await _up(data)
        try:
            await _use(data, stage.tasks)
            seconds = [await _again(data) for _ in range(stage.repeat)]
        finally:
            await _meshq("down", data)
    figures = {
        "first_seconds": round(first, 2),
        **ranged("seconds", seconds, 2),
    }
    shown = table("start: `meshq up` until all is ready", "", "s")
    shown.add_row("with nothing there", f"{first:.1f}")
    for value in seconds:
        shown.add_row("on existing data", f"{value:.1f}")
    return Outcome(figures, [shown])


async def _up(data: Path) -> float:
    begun = time.perf_counter()
    await _meshq("up", data, "--detach", "--port", "0")
    return time.perf_counter() - begun


async def _again(data: Path) -> float:
    await _meshq("down", data)
    return await _up(data)


async def _use(data: Path, tasks: int) -> None:
    status = json.loads(await _meshq("status", data, "--json"))
    async with Client(status["edge"]) as client:
        await run_to_end(client, plain(tasks), "default")


async def _meshq(command: str, data: Path, *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshq.local", command, "--data", str(data), *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await process.communicate()
    if process.returncode:
        raise StartFailed(f"meshq {command}: {errors.decode(errors='replace').strip()}")
    return said.decode()
