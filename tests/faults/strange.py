"""Workers that do what no worker should: they speak the protocol by hand, through the edge."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from faults.table import Scene
from faults.workload import PLAIN

from meshq.v1 import task_pb2, worker_service_pb2_grpc
from meshq.v1 import worker_service_pb2 as pb

_BEAT = 1.0


@dataclass
class Strange:
    """A worker of the queue of plain tasks that leaves each decision to `take`.

    Attributes:
        scene: Where it works.
        name: Its worker id.
        credit: How many tasks it asks for.
        acknowledges: Whether it says that deliveries have arrived.
        tokens: What it was given, with the tasks.
        lost: Leases that it was told to have lost.
        answers: What became of its results, by token: statuses in their order.
    """

    scene: Scene
    name: str
    take: Callable[[Strange, dict[bytes, task_pb2.Task]], Awaitable[None]]
    credit: int = 100
    acknowledges: bool = True
    tokens: dict[bytes, task_pb2.Task] = field(default_factory=dict)
    lost: set[bytes] = field(default_factory=set)
    answers: dict[bytes, list[int]] = field(default_factory=dict)

    async def work(self) -> None:
        """Go on until it is cancelled, with a new session whenever one has ended."""
        async with grpc.aio.insecure_channel(self.scene.system.edge) as channel:
            while True:
                with suppress(grpc.RpcError, asyncio.InvalidStateError):
                    await self._session(worker_service_pb2_grpc.WorkerServiceStub(channel).Connect())
                await asyncio.sleep(_BEAT / 4)

    async def _session(self, call: Any) -> None:
        self._call, self._writing = call, asyncio.Lock()
        hello = pb.Hello(
            protocol_version=1, worker_id=self.name, instance_key=os.urandom(8), task_types=["note"],
            queues=[PLAIN], slots=self.credit, capabilities=["cancel"],
        )  # fmt: skip
        await self.send(hello=hello)
        await self.send(credits=pb.Credits(total=self.credit))
        beat = asyncio.create_task(self._beat())
        try:
            async for frame in call:
                await self._read(frame)
        finally:
            beat.cancel()
            call.cancel()

    async def send(self, **frame: Any) -> None:
        """Send a frame; a stream takes one write at a time."""
        async with self._writing:
            await self._call.write(pb.ConnectRequest(**frame))

    async def report(self, *tokens: bytes) -> None:
        """Report successes, each with the number in its task."""
        results = [pb.TaskResult(lease_token=token, success=_echo(self.tokens[token])) for token in tokens]
        await self.send(results=pb.Results(results=results))

    async def _beat(self) -> None:
        with suppress(grpc.RpcError, asyncio.InvalidStateError):
            while True:
                await asyncio.sleep(_BEAT)
                await self.send(heartbeat=pb.Heartbeat())

    async def _read(self, frame: pb.ConnectResponse) -> None:
        if frame.HasField("assign"):
            fresh = {item.lease_token: item.task for item in frame.assign.assignments}
            self.tokens |= fresh
            if self.acknowledges:
                await self.send(received=pb.Received(lease_tokens=list(fresh)))
            await self.take(self, fresh)
        for ack in frame.results_ack.acks:
            self.answers.setdefault(ack.lease_token, []).append(ack.status)
        self.lost |= set(frame.lease_lost.lease_tokens)


def _echo(task: task_pb2.Task) -> pb.Success:
    success = pb.Success()
    success.result.struct_value.fields["n"].number_value = task.payload.struct_value.fields["n"].number_value
    return success


async def at_work(scene: Scene, *workers: Strange, seconds: float) -> None:
    """Let strange workers work beside the usual ones for a while, and then vanish."""
    working = [asyncio.create_task(worker.work()) for worker in workers]
    await asyncio.sleep(seconds)
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)


def garbage(chance: random.Random) -> bytes:
    """Some bytes."""
    return chance.randbytes(chance.randrange(1, 200))
