"""Channels whose peer is gone without a word: no call waits for it for longer than a lease lasts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from faults import loss
from faults.link import HALF_OPEN, SILENT, Link, Trouble
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshq.client.channel import CHANNEL_OPTIONS
from meshq.mesh.channels import MeshChannel, open_channel
from meshq.mesh.server import start_server

pytestmark = pytest.mark.slow

LEASE_SECONDS = 15.0
REQUEST = health_pb2.HealthCheckRequest()

Open = Callable[[str], MeshChannel]


def of_a_client(target: str) -> MeshChannel:
    return MeshChannel(grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS))


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    """A network to a server that can be broken."""
    server, port = await start_server([])
    async with Link("server", f"127.0.0.1:{port}") as link:
        yield link
    await server.stop(None)


@pytest.fixture(params=[open_channel, of_a_client], ids=["mesh", "client"])
async def channel(request: pytest.FixtureRequest, link: Link) -> AsyncIterator[MeshChannel]:
    """A channel to the server, as components make it and as clients do."""
    make: Open = request.param
    async with make(link.address) as channel:
        await channel.channel_ready()
        yield channel


async def ends_unavailable(reading: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(reading, LEASE_SECONDS)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def answered(stub: Any) -> Any:
    """The status; connections that were begun while bytes were lost may still fail."""
    async with asyncio.timeout(30):
        while True:
            try:
                return (await stub.Check(REQUEST, wait_for_ready=True)).status
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(SILENT, id="silent"),
        pytest.param(HALF_OPEN, id="half-open", marks=pytest.mark.skipif(not loss.AVAILABLE, reason="Linux")),
    ],
)
async def test_a_stream_and_a_call_end_soon(channel: MeshChannel, link: Link, trouble: Trouble) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    call = stub.Watch(REQUEST)
    assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
    link.impose(trouble)
    await asyncio.gather(ends_unavailable(call.read()), ends_unavailable(stub.Check(REQUEST, timeout=60)))
    link.heal()
    assert await answered(stub) == health_pb2.HealthCheckResponse.SERVING
