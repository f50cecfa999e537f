"""Asks the mesh what the console shows, over gRPC, and tolerates whatever does not answer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from meshq.contract.errors import DeadlineExceeded, MeshqError, Reason, Unavailable
from meshq.contract.limits import DEFAULT_PAGE_SIZE
from meshq.contract.status import from_rpc_error
from meshq.gateway.console.view import InstanceView, Listing, Overview, QueueView, ShardView, WorkerView
from meshq.v1 import (
    queue_service_pb2,
    queue_service_pb2_grpc,
    registry_service_pb2,
    registry_service_pb2_grpc,
    ring_service_pb2,
    ring_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)

Item = TypeVar("Item")

_CALL_SECONDS: Final = 3.5
"""Longer than the three seconds that a component takes to find that another one does not answer."""
_FRESH_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 0.7
_USABLE_SECONDS: Final = 20.0
_KEPT_SECONDS: Final = 600.0


class MeshSource:
    """Asks at most once a second, however many look at the console.

    Who looks while an answer is late gets the one before, if it is not too old: probes of `/healthz` give
    up early. What a part said last is kept while it does not answer.

    Args:
        channel: The mesh.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._registry = registry_service_pb2_grpc.RegistryServiceStub(channel)
        self._ring = ring_service_pb2_grpc.RingServiceStub(channel)
        self._queues = queue_service_pb2_grpc.QueueServiceStub(channel)
        self._workers = worker_service_pb2_grpc.WorkerServiceStub(channel)
        self._asking: asyncio.Task[Overview] | None = None
        self._last: Overview | None = None
        self._last_time = -math.inf
        self._kept: dict[str, tuple[float, Listing[Any]]] = {}

    async def overview(self) -> Overview:
        """The mesh as it is, or was a moment ago."""
        if self._last is not None and self._age() < _FRESH_SECONDS:
            return self._last
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="overview of the mesh")
        usable = self._last is not None and self._age() < _USABLE_SECONDS
        await asyncio.wait({self._asking}, timeout=_PATIENCE_SECONDS if usable else None)
        if self._asking.done() or self._last is None:
            return await self._asking
        return self._last

    async def start(self) -> None:
        """There is nothing to begin: it asks when it is asked."""

    async def stop(self) -> None:
        """Ask no longer."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _age(self) -> float:
        return time.monotonic() - self._last_time

    async def _ask(self) -> Overview:
        instances, shards, queues, workers = await asyncio.gather(
            self._tolerantly("instances", self._list_instances),
            self._tolerantly("shards", self._list_shards),
            self._tolerantly("queues", self._list_queues),
            self._tolerantly("workers", self._list_workers),
        )
        self._last_time = time.monotonic()
        self._last = Overview(instances, shards, queues, workers)
        return self._last

    async def _tolerantly(self, part: str, ask: Callable[[], Awaitable[Listing[Item]]]) -> Listing[Item]:
        try:
            listing = await ask()
        except grpc.RpcError as error:
            return self._without_answer(part, _in_words(from_rpc_error(error)))
        self._kept[part] = (time.monotonic(), listing)
        return listing

    def _without_answer(self, part: str, problem: str) -> Listing[Any]:
        then, kept = self._kept.get(part, (-math.inf, Listing()))
        age = time.monotonic() - then
        return replace(kept, problem=problem, age=age) if age < _KEPT_SECONDS else Listing(problem=problem)

    async def _list_instances(self) -> Listing[InstanceView]:
        request = registry_service_pb2.ListInstancesRequest()
        answer = await self._registry.ListInstances(request, timeout=_CALL_SECONDS)
        return Listing([_instance(item) for item in answer.instances])

    async def _list_shards(self) -> Listing[ShardView]:
        answer = await self._ring.ListShards(ring_service_pb2.ListShardsRequest(), timeout=_CALL_SECONDS)
        return Listing([_shard(item) for item in answer.shards])

    async def _list_queues(self) -> Listing[QueueView]:
        request = queue_service_pb2.ListQueuesRequest(page_size=DEFAULT_PAGE_SIZE)
        answer = await self._queues.ListQueues(request, timeout=_CALL_SECONDS)
        return Listing([_queue(item) for item in answer.queues], more=bool(answer.next_page_token))

    async def _list_workers(self) -> Listing[WorkerView]:
        request = worker_service_pb2.ListWorkersRequest(page_size=DEFAULT_PAGE_SIZE)
        answer = await self._workers.ListWorkers(request, timeout=_CALL_SECONDS)
        return Listing([_worker(item) for item in answer.workers], more=bool(answer.next_page_token))


def _in_words(error: MeshqError) -> str:
    """What people understand of an error that may be gRPC's own."""
    if isinstance(error, DeadlineExceeded):
        return f"No answer within {_CALL_SECONDS} seconds."
    if isinstance(error, Unavailable) and error.reason is Reason.COMPONENT_UNAVAILABLE:
        return "No instance answers."
    return error.message


def _instance(item: registry_service_pb2.Instance) -> InstanceView:
    return InstanceView(
        component=item.component,
        instance_id=item.instance_id,
        address=item.address,
        admin_address=item.admin_address,
        zone=item.zone,
        version=item.version,
        weight=item.weight,
        stale=item.state == registry_service_pb2.INSTANCE_STATE_STALE,
        age=_age(item.register_time),
    )


def _shard(item: ring_service_pb2.Shard) -> ShardView:
    return ShardView(
        shard=item.shard,
        address=item.address,
        state=_name(ring_service_pb2.ShardState, item.state, "SHARD_STATE_"),
        weight=item.weight,
        share=item.share,
        epoch=item.epoch,
        ready=item.ready,
        delayed=item.delayed,
        leased=item.leased,
        memory=item.used_memory_bytes,
    )


def _queue(item: queue_service_pb2.Queue) -> QueueView:
    counts = item.counts
    return QueueView(
        queue=item.queue,
        open=counts.open,
        pending=counts.pending,
        scheduled=counts.scheduled + counts.waiting,
        running=counts.running,
        succeeded=counts.succeeded,
        failed=counts.failed,
        cancelled=counts.cancelled,
        expired=counts.expired,
        arrival_rate=item.arrival_rate,
        completion_rate=item.completion_rate,
        oldest=_seconds(item.oldest_pending_age) if item.HasField("oldest_pending_age") else None,
        complete=item.complete,
    )


def _worker(item: worker_service_pb2.Worker) -> WorkerView:
    return WorkerView(
        worker_id=item.worker_id,
        mode=_name(worker_service_pb2.WorkerMode, item.mode, "WORKER_MODE_"),
        state=_name(worker_service_pb2.WorkerState, item.state, "WORKER_STATE_"),
        instance_id=item.instance_id,
        task_types=tuple(item.task_types),
        queues=tuple(item.queues),
        slots=item.slots,
        leases=item.leases,
        user_agent=item.user_agent,
        connected=_age(item.connect_time),
        seen=_age(item.last_seen_time),
    )


def _name(kind: Any, number: int, prefix: str) -> str:
    """The name of an enum's value; the number where this version does not know it."""
    try:
        name: str = kind.Name(number)
    except ValueError:
        return str(number)
    return name.removeprefix(prefix)


def _age(moment: Timestamp) -> float:
    return max(0.0, time.time() - moment.ToNanoseconds() / 1e9) if moment.seconds else 0.0


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9
