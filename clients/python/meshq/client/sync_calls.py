"""How the synchronous client makes calls: one channel, repetitions, series of calls, and watches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message

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


class SyncCalls:
    """A channel and the ways to call over it; what is called, others say."""

    def __init__(
        self,
        target: str | None = None,
        *,
        timeout: float = 30.0,
        retry: CallRetries | None = None,
        channel: grpc.Channel | None = None,
    ) -> None:
        self.target = resolve_target(target)
        self._timeout = timeout
        self._retry = retry or CallRetries()
        self._owned = channel is None
        self._channel = channel or grpc.insecure_channel(self.target, options=CHANNEL_OPTIONS)
        self._methods: dict[str, Any] = {}
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel; calls under way are cancelled, and not repeated."""
        if self._owned:
            # First, for whoever hears of the cancellation.
            self._closed.set()
            self._channel.close()

    def _perform(self, operation: Operation[Result], timeout: float | None = None) -> Result:
        limit = (self._timeout if timeout is None else timeout) + operation.wait
        attempts = Attempts(self._retry, limit, mends=None if operation.safe else never)
        call = self._method("unary_unary", operation.method, operation.answer)
        while True:
            try:
                return operation.convert(self._begun(call, operation.request, timeout=attempts.remaining()))
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
            except MeshqError as error:
                failure = error
            self._pause(attempts, failure)

    def _follow(self, steps: Steps[Result], timeout: float | None = None) -> Result:
        """Make one call after the other; the timeout is that of each."""
        answer: Any = None
        while True:
            try:
                operation = steps.send(answer)
            except StopIteration as end:
                result: Result = end.value
                return result
            answer = self._perform(operation, timeout)

    def _items(
        self, page_at: Callable[[str], Operation[Page[Item]]], timeout: float | None
    ) -> Iterator[Item]:
        token = ""
        while True:
            page = self._perform(page_at(token), timeout)
            yield from page.items
            token = page.next_token
            if not token:
                return

    def _watched(self, watch: Watch[Item], timeout: float | None) -> Iterator[Item]:
        attempts = self._attempts(timeout, watch.mends)
        while not watch.ended:
            try:
                for message in self._stream(watch):
                    attempts.progressed()
                    yield from watch.read(message)
            except MeshqError as error:
                self._pause(attempts, error)

    def _stream(self, watch: Watch[Any]) -> Iterator[Message]:
        call = self._begun(self._method("unary_stream", watch.method, watch.answer), watch.request())
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()
        if not watch.ended:
            raise Unavailable("the stream ended before the watch did")

    def _open_ingest(self, frames: Iterator[IngestTasksRequest]) -> Any:
        return self._begun(self._method("stream_stream", INGEST_TASKS, IngestTasksResponse), frames)

    def _open_run(self, frames: Iterator[RunTasksRequest]) -> Any:
        return self._begun(self._method("stream_stream", RUN_TASKS, RunTasksResponse), frames)

    def _begun(self, call: Any, *arguments: Any, **named: Any) -> Any:
        """What a call gives; raises `MeshqError` where the channel is closed, perhaps by its owner."""
        try:
            return call(*arguments, **named)
        except ValueError as error:
            self._closed.set()
            raise CallCancelled("the channel is closed") from error

    def _pause(self, attempts: Attempts, failure: MeshqError) -> None:
        """Wait for the next try.

        Raises:
            MeshqError: There is none: the failure is final, or the client was closed.
        """
        if self._closed.wait(attempts.delay_after(failure)):
            raise CallCancelled("the client was closed") from failure

    def _attempts(self, timeout: float | None, mends: Callable[[MeshqError], bool] | None = None) -> Attempts:
        return Attempts(self._retry, self._timeout if timeout is None else timeout, mends=mends)

    def _method(self, kind: str, method: str, answer: type[Message]) -> Any:
        call = self._methods.get(method)
        if call is None:
            make = getattr(self._channel, kind)
            call = self._methods[method] = make(
                method,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=answer.FromString,
            )
        return call
