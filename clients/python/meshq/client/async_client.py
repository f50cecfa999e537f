"""The asyncio client."""
# ruff: noqa: ASYNC109 - a timeout here is a gRPC deadline: it travels to the server.

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio

from meshq.client import conversion, operations, waiting
from meshq.client.async_bulk import Bulk, IngestCall
from meshq.client.channel import CHANNEL_OPTIONS, resolve_target
from meshq.client.ingest import DEFAULT_WINDOW, Ingest
from meshq.client.models import (
    UNSET,
    Created,
    Found,
    Instance,
    Page,
    Queue,
    Ring,
    Service,
    Task,
    TaskEvent,
    TaskFilter,
    TaskOptions,
    TaskSpec,
    TaskView,
    Unset,
    Worker,
)
from meshq.client.operations import Operation
from meshq.client.retries import Attempts, RetryPolicy, is_resumable, never
from meshq.client.values import JsonValue
from meshq.client.watching import Watched
from meshq.contract.errors import InvalidRequest, MeshqError
from meshq.contract.status import from_rpc_error
from meshq.v1.task_service_pb2 import IngestTasksResponse, WatchTaskRequest, WatchTaskResponse

Result = TypeVar("Result")
Item = TypeVar("Item")


class Client:
    """Creates tasks and says what becomes of them, with asyncio.

    One client holds one channel, is safe to share within its event loop, and is closed by `close` or
    `async with`. Every method raises the errors of `meshq.contract.errors`. Calls that are safe to repeat
    are repeated when the server is unavailable or asks for patience, within their timeout; writes always
    carry a request id, so that repeating them makes nothing twice.

    Args:
        target: `host:port` or a gRPC target such as `xds:///meshq`; by default the environment's
            `MESHQ_TARGET`, or `localhost:8080`.
        timeout: Seconds that a call may take, its repetitions included, where the method is given none.
        retry: How calls are repeated.
        channel: A channel to use instead of one of its own; it is not closed with the client.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        timeout: float = 30.0,
        retry: RetryPolicy | None = None,
        channel: grpc.aio.Channel | None = None,
    ) -> None:
        self.target = resolve_target(target)
        self._timeout = timeout
        self._retry = retry or RetryPolicy()
        self._given_channel = channel
        self._channel = channel
        self._methods: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled. A closed client opens again when used."""
        channel, self._channel = self._channel, self._given_channel
        self._methods.clear()
        if channel is not None and channel is not self._given_channel:
            await channel.close()

    # Tasks

    async def create(
        self,
        type: str,  # noqa: A002 - the field's name
        payload: JsonValue | Unset = UNSET,
        *,
        request_id: str | None = None,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Task:
        """Create a task and return it once it is stored durably, without waiting for a worker.

        Args:
            type: The task type, which selects the handler.
            payload: The input as a JSON value.
            request_id: Makes creations with the same id one; a fresh id if None.
            timeout: Seconds for the call, repetitions included.
            options: Queue, data instead of a payload, headers and the like: see `TaskOptions`.
        """
        spec = TaskSpec(type=type, payload=payload, **options)
        return await self._perform(operations.create_task(spec, request_id), timeout)

    async def create_many(
        self,
        specs: Iterable[TaskSpec] | AsyncIterable[TaskSpec],
        *,
        window: int = DEFAULT_WINDOW,
        timeout: float | None = None,
    ) -> AsyncIterator[Created]:
        """Create many tasks over one stream and yield what became of each, in order.

        A task that is refused is a result with an error; it does not keep the others out. When the stream
        breaks, a new one is opened and what was not answered is sent again, which makes nothing twice.

        Args:
            specs: The tasks; an asynchronous source may be endless.
            window: Frames of up to 1,000 tasks that are under way at a time.
            timeout: Seconds without any answer after which failures are no longer retried.
        """
        ingest = Ingest(window)
        bulk = Bulk(ingest, specs)
        attempts = self._attempts(timeout)
        async with bulk:
            while not bulk.finished:
                try:
                    async for answer in bulk.exchange(self._open_ingest()):
                        attempts.progressed()
                        for created in ingest.answered(answer):
                            yield created
                        bulk.made_room()
                except MeshqError as error:
                    await asyncio.sleep(attempts.delay_after(error))
            for created in ingest.leftover():
                yield created

    async def run(
        self,
        type: str | None = None,  # noqa: A002 - the field's name
        payload: JsonValue | Unset = UNSET,
        *,
        task_id: str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        check: bool = False,
        **options: Unpack[TaskOptions],
    ) -> Task:
        """Create a task, or take an existing one by its id, and wait for its end.

        Args:
            type: The task type; exactly one of type and task_id is given.
            payload: The input as a JSON value.
            task_id: A task that exists.
            request_id: As in `create`.
            timeout: Seconds to wait for the end; None waits for ever.
            check: Whether a task that ends without success raises TaskFailed.
            options: As in `create`.

        Returns:
            The task as it ended; its `result` or `error` says how.

        Raises:
            DeadlineExceeded: The task is still open; it goes on, and `metadata["task_id"]` is its id.
            TaskFailed: With `check`, the task ended as FAILED, CANCELLED or EXPIRED.
        """
        if (type is None) == (task_id is None):
            raise InvalidRequest.field("task_id", "must be given, or else a type, but not both")
        if type is None:
            return await self._follow(waiting.wait_for(task_id or "", timeout, check))
        spec = TaskSpec(type=type, payload=payload, **options)
        return await self._follow(waiting.run(spec, request_id, timeout, check))

    async def get(self, task_id: str, *, view: TaskView | None = None, timeout: float | None = None) -> Task:
        """Read one task; the FULL view unless told otherwise."""
        return await self._perform(operations.get_task(task_id, view), timeout)

    async def get_many(
        self, task_ids: Iterable[str], *, view: TaskView | None = None, timeout: float | None = None
    ) -> Found:
        """Read up to 1,000 tasks by id; the BASIC view unless told otherwise."""
        return await self._perform(operations.batch_get_tasks(task_ids, view), timeout)

    def list(self, *, timeout: float | None = None, **wanted: Unpack[TaskFilter]) -> AsyncIterator[Task]:
        """Iterate over tasks, the newest first, reading page by page.

        Args:
            timeout: Seconds for each page.
            wanted: Which tasks: see `TaskFilter`; all by default.
        """
        return self._items(lambda token: operations.list_tasks(token, wanted), timeout)

    async def list_page(
        self, page_token: str = "", *, timeout: float | None = None, **wanted: Unpack[TaskFilter]
    ) -> Page[Task]:
        """Read one page of tasks, for those who keep the token themselves."""
        return await self._perform(operations.list_tasks(page_token, wanted), timeout)

    async def watch(self, task_id: str, *, timeout: float | None = None) -> AsyncIterator[TaskEvent]:
        """Iterate over what happens to a task: the task itself at each change, progress, and output.

        The first event is the task as it stands, and the last one the task as it ended. A stream that
        breaks is resumed; progress and output of the gap are lost, states are not.

        Args:
            task_id: The task.
            timeout: Seconds without any word from the server after which resuming is given up.
        """
        watched = Watched()
        attempts = self._attempts(timeout, is_resumable)
        while not watched.ended:
            try:
                async for message in self._watch(task_id):
                    attempts.progressed()
                    event = conversion.event(message)
                    if event is not None and watched.is_news(event):
                        yield event
            except MeshqError as error:
                await asyncio.sleep(attempts.delay_after(error))

    async def cancel(self, task_id: str, reason: str = "", *, timeout: float | None = None) -> Task:
        """Ask for a task to end, and return it as it stands; watch it to see it end."""
        return await self._perform(operations.cancel_task(task_id, reason), timeout)

    async def delete(self, task_id: str, *, force: bool = False, timeout: float | None = None) -> Task:
        """Remove a task that has ended, and return what it was.

        Args:
            task_id: The task.
            force: Whether an open task is cancelled first, and waited for.
            timeout: Seconds for the call.
        """
        return await self._perform(operations.delete_task(task_id, force=force), timeout)

    # Queues, workers and the mesh

    def queues(self, *, timeout: float | None = None) -> AsyncIterator[Queue]:
        """Iterate over the queues, by name."""
        return self._items(operations.list_queues, timeout)

    async def queue(self, name: str, *, timeout: float | None = None) -> Queue:
        """Read one queue."""
        return await self._perform(operations.get_queue(name), timeout)

    def workers(self, *, timeout: float | None = None) -> AsyncIterator[Worker]:
        """Iterate over the connected workers, by id."""
        return self._items(operations.list_workers, timeout)

    async def worker(self, worker_id: str, *, timeout: float | None = None) -> Worker:
        """Read one worker."""
        return await self._perform(operations.get_worker(worker_id), timeout)

    async def services(self, *, timeout: float | None = None) -> tuple[Service, ...]:
        """Read the gRPC services of the mesh."""
        return await self._perform(operations.list_services(), timeout)

    async def instances(self, component: str = "", *, timeout: float | None = None) -> tuple[Instance, ...]:
        """Read the processes of the mesh, of one component or of all."""
        return await self._perform(operations.list_instances(component), timeout)

    async def shards(self, *, timeout: float | None = None) -> Ring:
        """Read the ring of shards."""
        return await self._perform(operations.list_shards(), timeout)

    # How calls are made

    async def _perform(self, operation: Operation[Result], timeout: float | None) -> Result:
        limit = (self._timeout if timeout is None else timeout) + operation.wait
        attempts = Attempts(self._retry, limit, mends=None if operation.safe else never)
        call = self._method("unary_unary", operation.method, operation.answer.FromString)
        while True:
            try:
                answer = await call(operation.request, timeout=attempts.remaining())
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
            else:
                return operation.convert(answer)
            await asyncio.sleep(attempts.delay_after(failure))

    async def _follow(self, steps: waiting.Steps) -> Task:
        operation = next(steps)
        while True:
            task = await self._perform(operation, None)
            try:
                operation = steps.send(task)
            except StopIteration as end:
                ended: Task = end.value
                return ended

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

    async def _watch(self, task_id: str) -> AsyncIterator[WatchTaskResponse]:
        open_watch = self._method("unary_stream", operations.WATCH_TASK, WatchTaskResponse.FromString)
        call: grpc.aio.UnaryStreamCall[WatchTaskRequest, WatchTaskResponse]
        call = open_watch(operations.watch_request(task_id))
        try:
            async for message in call:
                yield message
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()

    def _open_ingest(self) -> IngestCall:
        open_stream = self._method("stream_stream", operations.INGEST_TASKS, IngestTasksResponse.FromString)
        call: IngestCall = open_stream()
        return call

    def _attempts(self, timeout: float | None, mends: Callable[[MeshqError], bool] | None = None) -> Attempts:
        return Attempts(self._retry, self._timeout if timeout is None else timeout, mends=mends)

    def _method(self, kind: str, method: str, parse: Callable[[bytes], Any]) -> Any:
        """The callable of a method; the channel is opened here, because it belongs to the running loop."""
        call = self._methods.get(method)
        if call is None:
            if self._channel is None:
                self._channel = grpc.aio.insecure_channel(self.target, options=CHANNEL_OPTIONS)
            make = getattr(self._channel, kind)
            call = self._methods[method] = make(
                method,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=parse,
            )
        return call
