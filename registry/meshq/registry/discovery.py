"""The ADS server: streams of configuration to gRPC clients and to Envoy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from time import monotonic
from typing import Any

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from meshq.mesh.lifecycle import cancelled
from meshq.registry.snapshot import Publisher
from meshq.registry.subscriptions import Subscriptions

NAME = "envoy.service.discovery.v3.AggregatedDiscoveryService"

Requests = AsyncIterator[discovery_pb2.DiscoveryRequest]


class DiscoveryServicer(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    """Serves snapshots; where they come from is not its business.

    Args:
        publisher: Has the newest snapshot.
        settle_seconds: How long a client that knows something already is kept waiting after the start.
            Right after a start this process may know less than its clients, when etcd was emptied and
            the other processes are about to register again.
    """

    def __init__(self, publisher: Publisher, settle_seconds: float) -> None:
        self._publisher = publisher
        self._settled = monotonic() + settle_seconds

    async def StreamAggregatedResources(  # noqa: N802
        self, request_iterator: Requests, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """One client, for as long as it stays."""
        subscriptions = Subscriptions()
        with self._publisher.changes.listening() as woken:
            reader = asyncio.create_task(_read(request_iterator, subscriptions, woken))
            try:
                ended = False
                while not ended:
                    ended = reader.done()
                    woken.clear()
                    self._publisher.changes.check_open()
                    await self._send_due(subscriptions, context)
                    if not ended:
                        await self._pause(subscriptions, woken)
                await reader
            finally:
                await cancelled(reader)

    async def _send_due(
        self, subscriptions: Subscriptions, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        snapshot = self._publisher.snapshot
        if snapshot is not None and self._may_know_enough(subscriptions):
            for response in subscriptions.due(snapshot):
                await context.write(response)

    async def _pause(self, subscriptions: Subscriptions, woken: asyncio.Event) -> None:
        """Until there is something new, or this process has been there for long enough."""
        settled = self._may_know_enough(subscriptions)
        with suppress(TimeoutError):
            async with asyncio.timeout(None if settled else max(self._settled - monotonic(), 0)):
                await woken.wait()

    def _may_know_enough(self, subscriptions: Subscriptions) -> bool:
        return not subscriptions.returning or monotonic() >= self._settled


async def _read(requests: Requests, subscriptions: Subscriptions, woken: asyncio.Event) -> None:
    try:
        async for request in requests:
            subscriptions.take(request)
            woken.set()
    finally:
        woken.set()
