"""How the asyncio client makes calls: one channel, repetitions, series of calls, and watches."""
# ruff: noqa: ASYNC109 - a timeout here is a gRPC deadline: it travels to the server.

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from meshq.client.async_bulk import StreamCall
from meshq.client.channel import CHANNEL_OPTIONS, resolve_target
from meshq.client.models import Page
from meshq.client.operations import INGEST_TASKS, RUN_TASKS, Operation, Steps
from meshq.client.retries import Attempts, CallRetries, never
from meshq.client.watching import Watch
from meshq.contract.errors import CallCancelled, MeshqError, Unavailable
from meshq.contract.status import from_rpc_error
from meshq.v1.task_service_pb2 import (
    IngestTasksRequest,
    IngestTasksResponse,
    RunTasksRequest,
    RunTasksResponse,
)

Result = TypeVar("Result")
Item = TypeVar("Item")


class AsyncCalls:
    """A channel and the ways to call over it; what is called, others say."""

    def __init__(
        self,
        target: str | None = None,
        *,
        timeout: float = 30.0,
        retry: CallRetries | None = None,
        channel: grpc.aio.Channel | None = None,
    ) -> None:
        self.target = resolve_target(target)
        self._timeout = timeout
        self._retry = retry or CallRetries()
        self._given_channel = channel
        self._channel = channel
        self._methods: dict[str, Any] = {}
        self._closings = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled, and not repeated.

        A closed client opens again when used.
        """
        channel, self._channel = self._channel, self._given_channel
        self._methods.clear()
        if channel is not None and channel is not self._given_channel:
            self._closings += 1
            await channel.close()

    async def _perform(self, operation: Operation[Result], timeout: float | None = None) -> Result:
        limit = (self._timeout if timeout is None else timeout) + operation.wait
        attempts = Attempts(self._retry, limit, mends=None if operation.safe else never)
        call = self._method("unary_unary", operation.method, operation.answer)
        closings = self._closings
        while True:
            try:
                pending = self._begun(call, operation.request, timeout=attempts.remaining())
                return operation.convert(await pending)
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
            except MeshqError as error:
                failure = error
            await self._pause(attempts, failure, closings)

    async def _follow(self, steps: Steps[Result], timeout: float | None = None) -> Result:
        """Make one call after the other; the timeout is that of each."""
        answer: Any = None
        while True:
            try:
                operation = steps.send(answer)
            except StopIteration as end:
                result: Result = end.value
                return result
            answer = await self._perform(operation, timeout)

    async def _items(
        self, page_at: Callable[[str], Operation[Page[Item]]], timeout: float | None
    ) -> AsyncIterator[Item]:
        token = ""
        while True:
            page = await self._perform(page_at(token), timeout)
            for item in page.items:
                yield item
            token = page.next_token
            if not token:
                return

    async def _watched(self, watch: Watch[Item], timeout: float | None) -> AsyncIterator[Item]:
        attempts = self._attempts(timeout, watch.mends)
        closings = self._closings
        while not watch.ended:
            try:
                async for message in self._stream(watch):
                    attempts.progressed()
                    for event in watch.read(message):
                        yield event
            except MeshqError as error:
                await self._pause(attempts, error, closings)

    async def _stream(self, watch: Watch[Any]) -> AsyncIterator[Message]:
        open_stream = self._method("unary_stream", watch.method, watch.answer)
        call: grpc.aio.UnaryStreamCall[Message, Message] = self._begun(open_stream, watch.request())
        try:
            async for message in call:
                yield message
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()
        if not watch.ended:
            raise Unavailable("the stream ended before the watch did")

    def _open_ingest(self) -> StreamCall[IngestTasksRequest, IngestTasksResponse]:
        open_stream = self._method("stream_stream", INGEST_TASKS, IngestTasksResponse)
        call: StreamCall[IngestTasksRequest, IngestTasksResponse] = self._begun(open_stream)
        return call

    def _open_run(self) -> StreamCall[RunTasksRequest, RunTasksResponse]:
        open_stream = self._method("stream_stream", RUN_TASKS, RunTasksResponse)
        call: StreamCall[RunTasksRequest, RunTasksResponse] = self._begun(open_stream)
        return call

    def _begun(self, call: Any, *arguments: Any, **named: Any) -> Any:
        """A call under way; raises `MeshqError` where the channel is closed, perhaps by its owner."""
        try:
            return call(*arguments, **named)
        except grpc.aio.UsageError as error:
            self._closings += 1
            raise CallCancelled("the channel is closed") from error

    async def _pause(self, attempts: Attempts, failure: MeshqError, closings: int) -> None:
        """Wait for the next try.

        Args:
            attempts: The tries of the call.
            failure: How the last one ended.
            closings: How often the client had been closed when the call began.

        Raises:
            MeshqError: There is none: the failure is final, or the client was closed meanwhile.
        """
        delay = attempts.delay_after(failure)
        if self._closings == closings:
            await asyncio.sleep(delay)
        if self._closings != closings:
            raise CallCancelled("the client was closed") from failure

    def _attempts(self, timeout: float | None, mends: Callable[[MeshqError], bool] | None = None) -> Attempts:
        return Attempts(self._retry, self._timeout if timeout is None else timeout, mends=mends)

    def _method(self, kind: str, method: str, answer: type[Message]) -> Any:
        """The callable of a method; the channel is opened here, because it belongs to the running loop."""
        call = self._methods.get(method)
        if call is None:
            if self._channel is None:
                self._channel = grpc.aio.insecure_channel(self.target, options=CHANNEL_OPTIONS)
            make = getattr(self._channel, kind)
            call = self._methods[method] = make(
                method,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=answer.FromString,
            )
        return call
