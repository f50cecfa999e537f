"""The Dispatch stream to one execution instance.

A few frames are under way at a time. Frames without an answer when the stream breaks go back to the
outbox as repeats; items that the instance refuses stay in the ledger and are found by the sweeper.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import grpc
from prometheus_client import Counter

from meshq.internal.v1 import dispatch_service_pb2, dispatch_service_pb2_grpc
from meshq.management.conversion.dispatch import dispatch_frame
from meshq.management.dispatch.outbox import Outbox
from meshq.management.model.task import Sendable
from meshq.management.stubs.fleet import StreamLost, together
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_UNDER_WAY: Final = 4
_ANSWER_SECONDS: Final = 15.0
_CHECK_SECONDS: Final = 3.0
_RETIRE_SECONDS: Final = 5.0

_SENT: Final = Counter("meshq_dispatch_sent", "Attempts sent to execution.")
_REJECTED: Final = Counter("meshq_dispatch_rejected", "Attempts that execution did not enqueue.", ["reason"])


class _Frame(NamedTuple):
    items: list[Sendable]
    sent_at: float


class DispatchLink:
    """See `meshq.management.stubs.fleet.Link`.

    Args:
        channel: To the instance.
        outbox: What is to be sent.
        compare: Called when the instance wants everything compared.
        met: Called when a stream is opened; the instance may be another one than before.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        outbox: Outbox,
        compare: Callable[[], None],
        met: Callable[[], None],
    ) -> None:
        self._stub = dispatch_service_pb2_grpc.DispatchServiceStub(channel)
        self._outbox = outbox
        self._compare = compare
        self._met = met
        self._unanswered: OrderedDict[int, _Frame] = OrderedDict()
        self._answered = asyncio.Event()
        self._retiring = asyncio.Event()
        self._clock = asyncio.get_running_loop().time

    async def run(self) -> None:
        """Send what is to be sent until the stream is lost."""
        call: Any = self._stub.Dispatch()
        self._met()
        try:
            await together(self._send(call), self._receive(call), self._watch())
        finally:
            call.cancel()
            self._give_back()

    async def retire(self) -> None:
        """Send nothing more; wait for a moment for what is under way."""
        self._retiring.set()
        deadline = self._clock() + _RETIRE_SECONDS
        while self._unanswered and (left := deadline - self._clock()) > 0:
            self._answered.clear()
            try:
                async with asyncio.timeout(left):
                    await self._answered.wait()
            except TimeoutError:
                return

    async def _send(self, call: Any) -> None:
        number = 0
        while True:
            while len(self._unanswered) >= _UNDER_WAY:
                self._answered.clear()
                await self._answered.wait()
            items = await self._next()
            self._unanswered[number] = _Frame(items, self._clock())
            await call.write(dispatch_frame(number, items))
            _SENT.inc(len(items))
            number += 1

    async def _next(self) -> list[Sendable]:
        if self._retiring.is_set():
            await asyncio.Event().wait()
        items = await self._outbox.take()
        if self._retiring.is_set():
            self._outbox.put_back(items)
            await asyncio.Event().wait()
        return items

    async def _receive(self, call: Any) -> None:
        while True:
            response = await call.read()
            if response is grpc.aio.EOF:
                raise StreamLost(f"ended: {await call.details()}")
            if response.HasField("frame"):
                self._answer(response)
            if response.compare:
                self._compare()

    def _answer(self, response: dispatch_service_pb2.DispatchResponse) -> None:
        self._unanswered.pop(response.frame, None)
        self._answered.set()
        for item in response.rejected:
            _REJECTED.labels(dispatch_service_pb2.RejectReason.Name(item.reason)).inc()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            oldest = next(iter(self._unanswered.values()), None)
            if oldest and self._clock() - oldest.sent_at > _ANSWER_SECONDS:
                raise StreamLost(f"a frame was not answered within {_ANSWER_SECONDS:.0f} s")

    def _give_back(self) -> None:
        items = [item for frame in self._unanswered.values() for item in frame.items]
        self._unanswered.clear()
        self._answered.set()
        self._outbox.put_back(items)
