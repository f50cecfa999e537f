"""Everything is restarted, one process after the other, under load."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable

from faults.history import Answered, CallFailed, Sent
from faults.table import Fault, Scene, add
from faults.workload import PLAIN

from meshq.client import Client
from meshq.contract.errors import MeshqError

_ROUNDS = 2
_SERIALS = itertools.count(20_000_000)


class Caller:
    """A client with nothing but the defaults, which makes one call after the other."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.calls = 0
        self.slowest = 0.0

    async def call(self) -> None:
        """Go on until it is cancelled; what fails is noted."""
        async with Client(self._scene.system.edge) as client:
            while True:
                task_id = await self._timed("create", self._create(client))
                if task_id is not None:
                    await self._timed("get", client.get(task_id))
                await self._timed("count", client.count(queue=PLAIN))
                await self._timed("queue", client.queue(PLAIN))
                await asyncio.sleep(0.05)

    async def _timed(self, name: str, call: Awaitable[object]) -> str | None:
        begun = time.monotonic()
        result: object = None
        try:
            result = await call
        except MeshqError as error:
            self._scene.history.add(CallFailed(time.time(), name, repr(error)))
        self.calls += 1
        self.slowest = max(self.slowest, time.monotonic() - begun)
        return result if isinstance(result, str) else None

    async def _create(self, client: Client) -> str:
        serial = next(_SERIALS)
        self._scene.history.add(Sent(time.time(), serial, "plain"))
        task = await client.create("note", {"n": serial}, queue=PLAIN, max_attempts=50)
        self._scene.history.add(Answered(time.time(), serial, task.task_id))
        return task.task_id


async def restart_everything(scene: Scene) -> None:
    """In order, as an upgrade does it, twice in a row; no call of a client with the default retries fails."""
    caller = Caller(scene)
    calling = asyncio.create_task(caller.call())
    for _ in range(_ROUNDS):
        for name in scene.system.processes:
            await scene.system.restart(name)
            await scene.accepted(20)
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    scene.history.mark(
        f"measured: {caller.calls} calls with default retries, the slowest {caller.slowest:.1f} s"
    )


add(Fault("rolling-restart-twice", restart_everything, alone=True))
