"""Streams of tasks with asyncio: the source is read, frames are written and answers are read at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Final, Generic, Self, TypeAlias

import grpc
import grpc.aio

from meshq.client.frames import Frames, Outcome, Request, Response
from meshq.client.models import TaskSpec
from meshq.contract.errors import InternalError, MeshqError, Unavailable
from meshq.contract.status import from_rpc_error

_WRITE_FAILED: Final = "Internal error from Core"
"""What grpc.aio says when a stream ends in the middle of a write, before it learns what the server said;
the next stream will tell."""

StreamCall: TypeAlias = "grpc.aio.StreamStreamCall[Request, Response]"
TaskSource: TypeAlias = Iterable[TaskSpec] | AsyncIterable[TaskSpec]


class Bulk(Generic[Request, Response, Outcome]):
    """Feeds a source into frames, and these over one stream after the other.

    An error of the source is raised at the end, when what came before it was answered.
    """

    def __init__(self, frames: Frames[Request, Response, Outcome], source: TaskSource) -> None:
        self._frames: Frames[Request, Response, Outcome] = frames
        self._source = source
        self._to_send = asyncio.Event()
        self._room = asyncio.Event()
        self._feeder: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._feeder = asyncio.create_task(self._feed())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._feeder is not None
        if kind is None:
            await self._feeder
        self._feeder.cancel()
        await asyncio.wait([self._feeder])

    @property
    def finished(self) -> bool:
        """Whether every task was answered and no more will come."""
        return self._frames.finished

    def made_room(self) -> None:
        """A frame was answered."""
        self._to_send.set()
        self._room.set()

    async def exchange(self, call: StreamCall[Request, Response]) -> AsyncIterator[Response]:
        """Send over one stream what is unanswered and what is new, and yield the answers."""
        writer = asyncio.create_task(self._write(call))
        try:
            async for answer in call:
                yield answer
            if not self.finished:
                raise Unavailable("the stream ended before everything was answered")
        except grpc.RpcError as error:
            raise _stream_error(error) from None
        finally:
            writer.cancel()
            call.cancel()

    async def _feed(self) -> None:
        try:
            async for spec in _each(self._source):
                if self._frames.full:
                    await self._wait_for_room()
                self._frames.add(spec)
                self._to_send.set()
        finally:
            self._frames.end()
            self._to_send.set()

    async def _wait_for_room(self) -> None:
        while self._frames.full:
            self._room.clear()
            await self._room.wait()

    async def _write(self, call: StreamCall[Request, Response]) -> None:
        # What is wrong with the stream is told by reading from it.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            for request in self._frames.restart():
                await call.write(request)
            while not self._frames.all_sent:
                self._to_send.clear()
                while (request_to_send := self._frames.take()) is not None:
                    await call.write(request_to_send)
                if not self._frames.all_sent:
                    await self._to_send.wait()
            await call.done_writing()


def _stream_error(error: grpc.RpcError) -> MeshqError:
    found = from_rpc_error(error)
    if isinstance(found, InternalError) and found.message == _WRITE_FAILED:
        return Unavailable("the stream broke while it was written to")
    return found


async def _each(source: TaskSource) -> AsyncIterator[TaskSpec]:
    if isinstance(source, AsyncIterable):
        async for spec in source:
            yield spec
        return
    for spec in source:
        yield spec
