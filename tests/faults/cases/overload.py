"""More work than can be done, for a long time."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from typing import Any

import grpc
import grpc.aio
from faults.history import Answered, Sent
from faults.memory import Memory
from faults.stage import Setup
from faults.table import Fault, Scene, add
from faults.workload import PLAIN

from meshq.contract.errors import MeshqError, Overloaded
from meshq.contract.status import from_rpc_error
from meshq.local.plan import Size
from meshq.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc

_MOST_OPEN = 3_000
_FLOOD = 20_000.0
_BATCH = 50
_TICK = 0.02
_UNDER_WAY = 100
_SERIALS = itertools.count(30_000_000)
_GROWTH, _SLACK_MIB = 1.25, 32.0


class Flood:
    """A client that sends batches at a pace, whatever becomes of them, and repeats nothing."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._calls: set[asyncio.Task[None]] = set()
        self.accepted = 0
        self.refusals: Counter[str] = Counter()
        self.unfit: Counter[str] = Counter()

    async def flow(self, rate: float, seconds: float) -> None:
        """Send so many tasks a second; returns when all calls are answered."""
        async with grpc.aio.insecure_channel(self._scene.system.edge) as channel:
            create = task_service_pb2_grpc.TaskServiceStub(channel).BatchCreateTasks
            begun, sent = time.monotonic(), 0
            while (passed := time.monotonic() - begun) < seconds:
                while sent + _BATCH <= passed * rate and len(self._calls) < _UNDER_WAY:
                    sent += _BATCH
                    call = asyncio.create_task(self._send(create))
                    self._calls.add(call)
                    call.add_done_callback(self._calls.discard)
                await asyncio.sleep(_TICK)
            if self._calls:
                await asyncio.wait(self._calls)

    async def _send(self, create: Any) -> None:
        serials = list(itertools.islice(_SERIALS, _BATCH))
        for serial in serials:
            self._scene.history.add(Sent(time.time(), serial, "plain"))
        request = task_service_pb2.BatchCreateTasksRequest(tasks=[_task(serial) for serial in serials])
        try:
            response = await create(request, timeout=60)
        except grpc.RpcError as error:
            self._refused(from_rpc_error(error))
            return
        for serial, result in zip(serials, response.results, strict=True):
            self._scene.history.add(Answered(time.time(), serial, result.task_id or None))
            self.accepted += bool(result.task_id)

    def _refused(self, error: MeshqError) -> None:
        """What the caller needs to know: that it is too much, of what, and when to come again."""
        fit = isinstance(error, Overloaded) and error.retry_delay is not None and error.reason is not None
        self.refusals[str(error.reason)] += 1
        if not fit:
            self.unfit[repr(error)] += 1


def _task(serial: int) -> task_pb2.Task:
    task = task_pb2.Task(type="note", queue=PLAIN, max_attempts=50)
    task.payload.struct_value.fields["n"].number_value = serial
    return task


async def overload(scene: Scene) -> None:
    """Twice the capacity: memory stays bounded, refusals say why and until when, what was accepted ends."""
    flood, memory = Flood(scene), Memory(scene.system)
    capacity = await _capacity(scene, flood)
    watching = asyncio.create_task(memory.watch())
    await flood.flow(2 * capacity, scene.seconds(300.0, 15.0))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    note = scene.history.mark
    note(f"measured: capacity {capacity:.0f}/s, {flood.accepted} accepted, refused {dict(flood.refusals)}")
    note(f"measured: MiB in the first half, then in the second: {', '.join(memory.report())}")
    assert flood.refusals, "nothing was refused"
    assert not flood.unfit, f"refusals that say too little: {flood.unfit}"
    assert not (grown := memory.grown(_GROWTH, _SLACK_MIB)), f"{grown} grow: {memory.report()}"


async def _capacity(scene: Scene, flood: Flood) -> float:
    """Tasks a second that end while there are always some to run."""
    seconds = scene.seconds(15.0, 6.0)
    before = await _ended(scene)
    begun = time.monotonic()
    await flood.flow(_FLOOD, seconds)
    return (await _ended(scene) - before) / (time.monotonic() - begun)


async def _ended(scene: Scene) -> int:
    counts = (await scene.load.client.queue(PLAIN)).counts
    return counts.succeeded + counts.failed


add(
    Fault(
        "overload",
        overload,
        Setup(Size(workers=2), (("MESHQ_MAX_OPEN_TASKS", str(_MOST_OPEN)),)),
        rate=0.25,
        calls_fail=True,
        alone=True,
        settle=600.0,
    )
)
