"""What running handlers say, from one execution instance."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc

from meshq.contract.limits import MAX_FRAME_ITEMS, STREAM_KEEPALIVE_SECONDS
from meshq.internal.v1 import progress_service_pb2, progress_service_pb2_grpc
from meshq.management.model.task import TaskId
from meshq.management.stubs.fleet import StreamLost, together
from meshq.management.watch.bus import Bus, News

_SILENCE_SECONDS: Final = 2.5 * STREAM_KEEPALIVE_SECONDS


class ProgressLink:
    """See `meshq.management.stubs.fleet.Link`.

    Args:
        channel: To the instance.
        own_id: This instance.
        bus: Who watches here.
    """

    def __init__(self, channel: grpc.aio.Channel, own_id: str, bus: Bus) -> None:
        self._stub = progress_service_pb2_grpc.ProgressServiceStub(channel)
        self._own_id = own_id
        self._bus = bus
        self._told: set[TaskId] = set()
        self._touched: set[TaskId] = set()
        self._changed = asyncio.Event()

    def news_wanted_changed(self, task_id: TaskId) -> None:
        """The news of a task is wanted now, or no longer."""
        self._touched.add(task_id)
        self._changed.set()

    async def run(self) -> None:
        """Tell what is watched and pass the news on, until the stream is lost."""
        self._told.clear()
        self._touched = set(self._bus.news_wanted)
        call: Any = self._stub.StreamProgress()
        try:
            await call.write(progress_service_pb2.StreamProgressRequest(instance_id=self._own_id))
            await together(self._tell(call), self._receive(call))
        finally:
            call.cancel()

    async def retire(self) -> None:
        """Nothing is under way."""

    async def _tell(self, call: Any) -> None:
        while True:
            self._changed.clear()
            while self._touched:
                await call.write(self._frame())
            await self._changed.wait()

    def _frame(self) -> progress_service_pb2.StreamProgressRequest:
        """Up to a frame of differences between what is watched and what the instance was told."""
        request = progress_service_pb2.StreamProgressRequest()
        for _ in range(min(len(self._touched), MAX_FRAME_ITEMS)):
            task_id = self._touched.pop()
            wanted = self._bus.wants_news(task_id)
            if wanted and task_id not in self._told:
                self._told.add(task_id)
                request.watch_task_ids.append(task_id)
            elif not wanted and task_id in self._told:
                self._told.discard(task_id)
                request.unwatch_task_ids.append(task_id)
        return request

    async def _receive(self, call: Any) -> None:
        while True:
            async with asyncio.timeout(_SILENCE_SECONDS):
                response = await call.read()
            if response is grpc.aio.EOF:
                raise StreamLost(f"ended: {await call.details()}")
            self._bus.publish_news([_news(item) for item in response.news])


def _news(item: progress_service_pb2.TaskNews) -> News:
    message = item.output if item.WhichOneof("news") == "output" else item.progress
    return News(item.task_id, message, item.ByteSize())
