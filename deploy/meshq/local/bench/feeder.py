"""A gRPC server that plays execution for one worker: it has tasks without end, and forgets their results."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from meshq.client.values import fill_value
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.local.ports import LOOPBACK
from meshq.v1 import worker_service_pb2 as pb

FEEDING_WITHIN = 300.0
_HEARTBEAT_SECONDS = 5
_LEASE_SECONDS = 16
_Frames = AsyncIterator[bytes]


class Feeder:
    """Serves one session: `async with Feeder() as feeder: ...`.

    Attributes:
        target: Where it serves.
    """

    def __init__(self) -> None:
        self.target = ""
        self._server = grpc.aio.server()
        self._waiting: deque[pb.Assignment] = deque()
        self._credit = 0
        self._assigned = 0
        self._answered = 0
        self._acks: list[bytes] = []
        self._to_send = asyncio.Event()
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        handler: Any = grpc.stream_stream_rpc_method_handler(self._connect)
        service = grpc.method_handlers_generic_handler("meshq.v1.WorkerService", {"Connect": handler})
        self._server.add_generic_rpc_handlers((service,))
        self.target = f"{LOOPBACK}:{self._server.add_insecure_port(f'{LOOPBACK}:0')}"
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.stop(0)

    async def feed(self, kind: str, payload: Any, count: int) -> float:
        """Have so many tasks run.

        Returns:
            The seconds from the first assignment to the last result.
        """
        tasks = deque(_assignment(kind, payload, self._answered + number) for number in range(count))
        awaited = self._answered + count
        async with asyncio.timeout(FEEDING_WITHIN):
            await self._until(lambda: self._credit > 0)
            begun = time.perf_counter()
            self._waiting = tasks
            self._to_send.set()
            await self._until(lambda: self._answered >= awaited)
        return time.perf_counter() - begun

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()

    async def _connect(self, requests: _Frames, _context: Any) -> _Frames:
        self._credit = self._assigned = 0
        await anext(requests)
        yield _welcome().SerializeToString()
        reading = asyncio.create_task(self._read(requests))
        try:
            while not reading.done():
                while (frame := self._next_frame()) is not None:
                    yield frame.SerializeToString()
                self._to_send.clear()
                await self._to_send.wait()
        finally:
            reading.cancel()

    def _next_frame(self) -> pb.ConnectResponse | None:
        if self._acks:
            acks = [pb.ResultAck(lease_token=token, status=pb.RESULT_STATUS_ACCEPTED) for token in self._acks]
            self._acks = []
            return pb.ConnectResponse(results_ack=pb.ResultsAck(acks=acks))
        count = min(self._credit - self._assigned, len(self._waiting), MAX_FRAME_ITEMS)
        if count <= 0:
            return None
        self._assigned += count
        assignments = [self._waiting.popleft() for _ in range(count)]
        return pb.ConnectResponse(assign=pb.Assign(assignments=assignments))

    async def _read(self, requests: _Frames) -> None:
        async for body in requests:
            frame = pb.ConnectRequest.FromString(body)
            match frame.WhichOneof("frame"):
                case "credits":
                    self._credit = frame.credits.total
                case "results":
                    self._acks += [result.lease_token for result in frame.results.results]
                    self._answered += len(frame.results.results)
                case _:
                    continue
            self._news.set()
            self._to_send.set()
        self._to_send.set()


def _welcome() -> pb.ConnectResponse:
    welcome = pb.Welcome(session_id="bench", max_frame_items=MAX_FRAME_ITEMS, instance_id="bench")
    welcome.lease_ttl.FromSeconds(_LEASE_SECONDS)
    welcome.heartbeat_interval.FromSeconds(_HEARTBEAT_SECONDS)
    welcome.delivery_timeout.FromSeconds(_HEARTBEAT_SECONDS)
    return pb.ConnectResponse(welcome=welcome)


def _assignment(kind: str, payload: Any, number: int) -> pb.Assignment:
    assignment = pb.Assignment(lease_token=b"%016d" % number, attempt=1)
    assignment.task.task_id = f"00000000-0000-7000-8000-{number:012x}"
    assignment.task.type = kind
    if payload is not None:
        fill_value(assignment.task.payload, payload)
    return assignment
