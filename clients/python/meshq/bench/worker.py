"""A worker of the measurement's own, in a process of its own, on the machine of whoever measures."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from meshq.bench import handlers
from meshq.client import Client
from meshq.contract.errors import NotFound, Unavailable

CONNECTED_WITHIN = 30.0
_LOOK = 0.05
_DRAIN_SECONDS = 5


@contextlib.asynccontextmanager
async def running(client: Client, queue: str) -> AsyncIterator[None]:
    """Have a queue served by a worker that knows the built-in task types and those for measuring.

    Raises:
        Unavailable: The worker does not get through to the servers.
    """
    words = ("--target", client.target, "--id", queue, "--queues", queue, "--log-level", "error")
    modules = ("--tasks", "meshq.tasks", "--tasks", handlers.__name__)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshq.worker", *words, *modules),
        *("--drain-timeout", str(_DRAIN_SECONDS)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        # Ctrl-C is for whoever measures, who still needs the worker to clean up.
        start_new_session=True,
    )
    try:
        await _connected(client, queue, process)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _connected(client: Client, worker_id: str, process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CONNECTED_WITHIN):
            while process.returncode is None:
                with contextlib.suppress(NotFound):
                    await client.worker(worker_id)
                    return
                await asyncio.sleep(_LOOK)
    raise Unavailable("the worker that was started for measuring is not connected")
