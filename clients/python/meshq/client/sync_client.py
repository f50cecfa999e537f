"""The synchronous client."""

from __future__ import annotations

import queue as queues_of_threads
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc

from meshq.client import conversion, operations, waiting
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
from meshq.contract.errors import InvalidRequest, MeshqError, Unavailable
from meshq.contract.status import from_rpc_error
from meshq.v1.task_service_pb2 import IngestTasksRequest, IngestTasksResponse, WatchTaskResponse

Result = TypeVar("Result")
Item = TypeVar("Item")


class SyncClient:
    """Creates tasks and says what becomes of them, without asyncio.

    The methods and their errors are those of `Client`. One client may be shared by threads; it must not
    cross a fork.

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
        channel: grpc.Channel | None = None,
    ) -> None:
        self.target = resolve_target(target)
        self._timeout = timeout
        self._retry = retry or RetryPolicy()
        self._owned = channel is None
        self._channel = channel or grpc.insecure_channel(self.target, options=CHANNEL_OPTIONS)
        self._methods: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        if self._owned:
            self._channel.close()

    # Tasks

    def create(
        self,
        type: str,  # noqa: A002 - the field's name
        payload: JsonValue | Unset = UNSET,
        *,
        request_id: str | None = None,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Task:
        """Create a task and return it once it is stored durably; as `Client.create`."""
        spec = TaskSpec(type=type, payload=payload, **options)
        return self._perform(operations.create_task(spec, request_id), timeout)

    def create_many(
        self, specs: Iterable[TaskSpec], *, window: int = DEFAULT_WINDOW, timeout: float | None = None
    ) -> Iterator[Created]:
        """Create many tasks over one stream and yield what became of each, in order.

        As `Client.create_many`, but frames are only sent full, so that a slow source delays its results.
        """
        ingest = Ingest(window)
        source = iter(specs)
        attempts = self._attempts(timeout)
        while not ingest.finished:
            try:
                for answer in self._exchange(ingest, source):
                    attempts.progressed()
                    yield from ingest.answered(answer)
            except MeshqError as error:
                time.sleep(attempts.delay_after(error))
        yield from ingest.leftover()

    def run(
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
        """Create a task, or take an existing one by its id, and wait for its end; as `Client.run`."""
        if (type is None) == (task_id is None):
            raise InvalidRequest.field("task_id", "must be given, or else a type, but not both")
        if type is None:
            return self._follow(waiting.wait_for(task_id or "", timeout, check))
        spec = TaskSpec(type=type, payload=payload, **options)
        return self._follow(waiting.run(spec, request_id, timeout, check))

    def get(self, task_id: str, *, view: TaskView | None = None, timeout: float | None = None) -> Task:
        """Read one task; the FULL view unless told otherwise."""
        return self._perform(operations.get_task(task_id, view), timeout)

    def get_many(
        self, task_ids: Iterable[str], *, view: TaskView | None = None, timeout: float | None = None
    ) -> Found:
        """Read up to 1,000 tasks by id; the BASIC view unless told otherwise."""
        return self._perform(operations.batch_get_tasks(task_ids, view), timeout)

    def list(self, *, timeout: float | None = None, **wanted: Unpack[TaskFilter]) -> Iterator[Task]:
        """Iterate over tasks, the newest first, reading page by page; as `Client.list`."""
        return self._items(lambda token: operations.list_tasks(token, wanted), timeout)

    def list_page(
        self, page_token: str = "", *, timeout: float | None = None, **wanted: Unpack[TaskFilter]
    ) -> Page[Task]:
        """Read one page of tasks, for those who keep the token themselves."""
        return self._perform(operations.list_tasks(page_token, wanted), timeout)

    def watch(self, task_id: str, *, timeout: float | None = None) -> Iterator[TaskEvent]:
        """Iterate over what happens to a task until it has ended; as `Client.watch`."""
        watched = Watched()
        attempts = self._attempts(timeout, is_resumable)
        while not watched.ended:
            try:
                for message in self._watch(task_id):
                    attempts.progressed()
                    event = conversion.event(message)
                    if event is not None and watched.is_news(event):
                        yield event
            except MeshqError as error:
                time.sleep(attempts.delay_after(error))

    def cancel(self, task_id: str, reason: str = "", *, timeout: float | None = None) -> Task:
        """Ask for a task to end, and return it as it stands; watch it to see it end."""
        return self._perform(operations.cancel_task(task_id, reason), timeout)

    def delete(self, task_id: str, *, force: bool = False, timeout: float | None = None) -> Task:
        """Remove a task that has ended, and return what it was; as `Client.delete`."""
        return self._perform(operations.delete_task(task_id, force=force), timeout)

    # Queues, workers and the mesh

    def queues(self, *, timeout: float | None = None) -> Iterator[Queue]:
        """Iterate over the queues, by name."""
        return self._items(operations.list_queues, timeout)

    def queue(self, name: str, *, timeout: float | None = None) -> Queue:
        """Read one queue."""
        return self._perform(operations.get_queue(name), timeout)

    def workers(self, *, timeout: float | None = None) -> Iterator[Worker]:
        """Iterate over the connected workers, by id."""
        return self._items(operations.list_workers, timeout)

    def worker(self, worker_id: str, *, timeout: float | None = None) -> Worker:
        """Read one worker."""
        return self._perform(operations.get_worker(worker_id), timeout)

    def services(self, *, timeout: float | None = None) -> tuple[Service, ...]:
        """Read the gRPC services of the mesh."""
        return self._perform(operations.list_services(), timeout)

    def instances(self, component: str = "", *, timeout: float | None = None) -> tuple[Instance, ...]:
        """Read the processes of the mesh, of one component or of all."""
        return self._perform(operations.list_instances(component), timeout)

    def shards(self, *, timeout: float | None = None) -> Ring:
        """Read the ring of shards."""
        return self._perform(operations.list_shards(), timeout)

    # How calls are made

    def _perform(self, operation: Operation[Result], timeout: float | None) -> Result:
        limit = (self._timeout if timeout is None else timeout) + operation.wait
        attempts = Attempts(self._retry, limit, mends=None if operation.safe else never)
        call = self._method("unary_unary", operation.method, operation.answer.FromString)
        while True:
            try:
                answer = call(operation.request, timeout=attempts.remaining())
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
            else:
                return operation.convert(answer)
            time.sleep(attempts.delay_after(failure))

    def _follow(self, steps: waiting.Steps) -> Task:
        operation = next(steps)
        while True:
            task = self._perform(operation, None)
            try:
                operation = steps.send(task)
            except StopIteration as end:
                ended: Task = end.value
                return ended

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

    def _watch(self, task_id: str) -> Iterator[WatchTaskResponse]:
        open_watch = self._method("unary_stream", operations.WATCH_TASK, WatchTaskResponse.FromString)
        call = open_watch(operations.watch_request(task_id))
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()

    def _exchange(self, ingest: Ingest, source: Iterator[TaskSpec]) -> Iterator[IngestTasksResponse]:
        """Send over one stream what is unanswered and what is new, and yield the answers."""
        outgoing: queues_of_threads.SimpleQueue[IngestTasksRequest | None] = queues_of_threads.SimpleQueue()
        for frame in ingest.unanswered:
            outgoing.put(frame.request)
        open_stream = self._method("stream_stream", operations.INGEST_TASKS, IngestTasksResponse.FromString)
        call = open_stream(iter(outgoing.get, None))
        try:
            while _fill(ingest, source, outgoing):
                answer = next(call, None)
                if answer is None:
                    raise Unavailable("the stream ended before every frame was answered")
                yield answer
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        finally:
            outgoing.put(None)
            call.cancel()

    def _attempts(self, timeout: float | None, mends: Callable[[MeshqError], bool] | None = None) -> Attempts:
        return Attempts(self._retry, self._timeout if timeout is None else timeout, mends=mends)

    def _method(self, kind: str, method: str, parse: Callable[[bytes], Any]) -> Any:
        call = self._methods.get(method)
        if call is None:
            make = getattr(self._channel, kind)
            call = self._methods[method] = make(
                method,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=parse,
            )
        return call


def _fill(
    ingest: Ingest,
    source: Iterator[TaskSpec],
    outgoing: queues_of_threads.SimpleQueue[IngestTasksRequest | None],
) -> bool:
    """Bring frames under way until the window is full; False when all was answered."""
    while not ingest.full:
        spec = next(source, None)
        if spec is None:
            ingest.end()
            break
        ingest.add(spec)
        while (frame := ingest.take_full()) is not None:
            outgoing.put(frame.request)
    while (frame := ingest.take()) is not None:
        outgoing.put(frame.request)
    return not ingest.finished
