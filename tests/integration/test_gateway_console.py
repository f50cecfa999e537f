# ruff: noqa: N802 - servicers have the names of the contract
"""The console over HTTP, asking real servers that are slow, fail, or go away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from meshq.contract.errors import Reason, Unavailable
from meshq.gateway.console.server import Console
from meshq.gateway.console.sources import MeshSource
from meshq.gateway.envoy.supervisor import EnvoyState
from meshq.mesh.channels import open_channel
from meshq.mesh.server import CannotListen, ServedService, start_server
from meshq.v1 import (
    queue_service_pb2,
    queue_service_pb2_grpc,
    registry_service_pb2,
    registry_service_pb2_grpc,
    ring_service_pb2,
    ring_service_pb2_grpc,
)

ALL = ["meshq.gateway", "meshq.registry", "meshq.management", "meshq.execution"]


class Registry(registry_service_pb2_grpc.RegistryServiceServicer):
    """Knows one process, whose admin port answers nobody."""

    async def ListInstances(self, _request: Any, _context: Any) -> Any:
        instance = registry_service_pb2.Instance(
            component="meshq.execution", instance_id="execution-1", admin_address="127.0.0.1:1"
        )
        return registry_service_pb2.ListInstancesResponse(instances=[instance])

    async def ListServices(self, _request: Any, _context: Any) -> Any:
        return registry_service_pb2.ListServicesResponse()

    async def WatchInstances(self, _request: Any, _context: Any) -> Any:
        yield registry_service_pb2.WatchInstancesResponse()


class Queues(queue_service_pb2_grpc.QueueServiceServicer):
    """Has one queue, and counts who asks."""

    def __init__(self) -> None:
        self.asked = 0
        self.broken = False

    async def ListQueues(self, _request: Any, _context: Any) -> Any:
        self.asked += 1
        if self.broken:
            raise Unavailable("PostgreSQL does not answer.", Reason.LEDGER_UNAVAILABLE)
        queue = queue_service_pb2.Queue(queue=f"mail-{self.asked}", complete=True)
        return queue_service_pb2.ListQueuesResponse(queues=[queue])

    async def GetQueue(self, _request: Any, _context: Any) -> Any:
        return queue_service_pb2.Queue()


class Ring(ring_service_pb2_grpc.RingServiceServicer):
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.answering = asyncio.Event()
        self.answering.set()

    async def ListShards(self, _request: Any, _context: Any) -> Any:
        await self.answering.wait()
        shard = ring_service_pb2.Shard(shard="shard-1", state=ring_service_pb2.SHARD_STATE_ACTIVE)
        return ring_service_pb2.ListShardsResponse(shards=[shard])


class Edge:
    """An Envoy that serves."""

    address = "127.0.0.1:8080"

    async def state(self) -> EnvoyState:
        return EnvoyState(live=True, routes=True, active_calls=0, restarts=0)

    async def metrics(self) -> str:
        return "# TYPE envoy_calls counter\nenvoy_calls{} 3\n"


class Stand:
    """The console with what it asks."""

    def __init__(self) -> None:
        self.queues = Queues()  # type: ignore[abstract]
        self.ring = Ring()  # type: ignore[abstract]
        self.console: Console
        self.http: aiohttp.ClientSession

    def services(self) -> list[ServedService]:
        add = queue_service_pb2_grpc.add_QueueServiceServicer_to_server
        add_ring = ring_service_pb2_grpc.add_RingServiceServicer_to_server
        add_registry = registry_service_pb2_grpc.add_RegistryServiceServicer_to_server
        return [
            ServedService("meshq.v1.QueueService", lambda server: add(self.queues, server)),
            ServedService("meshq.v1.RingService", lambda server: add_ring(self.ring, server)),
            ServedService("meshq.v1.RegistryService", lambda server: add_registry(Registry(), server)),
        ]

    async def get(self, path: str) -> tuple[int, str]:
        async with self.http.get(f"http://{self.console.address}{path}") as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    built = Stand()
    server, port = await start_server(built.services())
    async with open_channel(f"127.0.0.1:{port}") as channel, aiohttp.ClientSession() as http:
        source = MeshSource(channel)
        built.http = http
        built.console = Console("127.0.0.1:0", "gateway-1", source, Edge(), lambda: ALL)
        await built.console.start()
        await built.console.start()
        yield built
        built.ring.answering.set()
        await built.console.stop()
        await built.console.stop()
        await source.stop()
    await server.stop(None)


async def fresh(stand: Stand, path: str, expected: str) -> str:
    """Ask until an answer has it."""
    async with asyncio.timeout(15):
        while True:
            _, text = await stand.get(path)
            if expected in text:
                return text
            await asyncio.sleep(0.05)


async def test_many_who_look_ask_the_mesh_once(stand: Stand) -> None:
    pages = await asyncio.gather(*(stand.get("/") for _ in range(20)))
    assert {status for status, _ in pages} == {200}
    assert all("mail-1" in text and "shard-1" in text for _, text in pages)
    assert stand.queues.asked == 1


async def test_the_page_becomes_current_again(stand: Stand) -> None:
    await stand.get("/")
    assert "mail-2" in await fresh(stand, "/console/status", "mail-2")


async def test_a_part_that_fails_keeps_what_it_said_and_the_others_go_on(stand: Stand) -> None:
    await stand.get("/")
    stand.queues.broken = True
    text = await fresh(stand, "/", "The queues are not available.")
    assert "PostgreSQL does not answer." in text
    assert "What follows is" in text
    assert "mail-1" in text
    assert "shard-1" in text
    # The processes are there, so clients may still be sent here.
    status, body = await stand.get("/healthz")
    assert (status, '"status": "degraded"' in body) == (200, True)


async def test_nobody_waits_for_a_part_that_is_silent_once_something_is_known(stand: Stand) -> None:
    await stand.get("/")
    stand.ring.answering.clear()
    text = await fresh(stand, "/", "The shards are not available.")
    assert "No answer within" in text
    began = time.monotonic()
    assert (await stand.get("/healthz"))[0] == 200
    assert time.monotonic() - began < 3


async def test_a_part_that_never_answered_is_empty(stand: Stand) -> None:
    _, text = await stand.get("/")
    assert "The workers are not available." in text
    assert "No worker is connected" not in text


async def test_metrics_name_who_cannot_be_reached(stand: Stand) -> None:
    status, text = await stand.get("/metrics")
    assert status == 200
    assert 'meshq_instance_reached{component="meshq.gateway",instance="gateway-1"} 1' in text
    assert 'meshq_instance_reached{component="meshq.execution",instance="execution-1"} 0' in text
    assert 'envoy_calls{component="meshq.gateway",instance="gateway-1"} 3' in text


async def test_answers_are_safe_to_show(stand: Stand) -> None:
    async with stand.http.get(f"http://{stand.console.address}/") as answer:
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["server"] == "meshq"
    for path in ("/console/page.html", "/console/..%2fserver.py", "/nothing"):
        assert (await stand.get(path))[0] == 404
    async with stand.http.post(f"http://{stand.console.address}/") as answer:
        assert (answer.status, (await answer.json())["code"]) == (405, 405)


async def test_an_address_that_is_taken(stand: Stand) -> None:
    async with open_channel("127.0.0.1:1") as channel:
        second = Console(stand.console.address, "gateway-2", MeshSource(channel), Edge(), list)
        with pytest.raises(CannotListen, match="cannot listen on"):
            await second.start()
        await second.stop()
