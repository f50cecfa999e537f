"""`ProgressService`: news of running tasks for management's watchers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from meshq.contract.errors import MeshqError
from meshq.contract.limits import STREAM_KEEPALIVE_SECONDS
from meshq.execution.news import Listener, NewsRoom
from meshq.internal.v1 import progress_service_pb2 as pb
from meshq.internal.v1.progress_service_pb2_grpc import ProgressServiceServicer

NAME: Final = "meshq.internal.v1.ProgressService"
_SIGN_OF_LIFE_SECONDS: Final = STREAM_KEEPALIVE_SECONDS * 0.75

Context = grpc.aio.ServicerContext[Any, Any]


class ProgressServicer(ProgressServiceServicer):
    """See the module.

    Args:
        news: Where news come from.
    """

    def __init__(self, news: NewsRoom) -> None:
        self._news = news
        self._listeners: set[Listener] = set()

    def drain(self) -> None:
        """End all streams."""
        for listener in self._listeners:
            listener.close()

    async def StreamProgress(  # noqa: N802
        self,
        request_iterator: AsyncIterator[pb.StreamProgressRequest],
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[pb.StreamProgressResponse]:
        """Send news of the tasks that the listener watches."""
        listener = Listener()
        self._listeners.add(listener)
        reader = asyncio.create_task(self._read(listener, request_iterator), name="progress")
        try:
            while not listener.closed:
                yield pb.StreamProgressResponse(news=await listener.next(_SIGN_OF_LIFE_SECONDS))
        finally:
            self._listeners.discard(listener)
            self._news.leave(listener)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, listener: Listener, requests: AsyncIterator[pb.StreamProgressRequest]) -> None:
        try:
            async for request in requests:
                self._news.unwatch(listener, request.unwatch_task_ids)
                self._news.watch(listener, request.watch_task_ids)
        except (MeshqError, grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            pass
        finally:
            listener.close()
