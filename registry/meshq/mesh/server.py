"""The gRPC server of a process: its services, health of each, and reflection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from meshq.mesh.channels import SERVER_OPTIONS
from meshq.mesh.interceptors import CallInterceptor
from meshq.mesh.reflection import add_reflection

HEALTH = health.SERVICE_NAME


@dataclass(frozen=True)
class ServedService:
    """A service that a process serves.

    Attributes:
        name: The full name, such as `meshq.v1.TaskService`.
        register: Adds the servicer to a server.
    """

    name: str
    register: Callable[[grpc.aio.Server], None]


class CannotListen(Exception):
    """The address cannot be bound; the message names it."""


def build_server(
    services: Sequence[ServedService],
    health_servicer: health.aio.HealthServicer,
    interceptor: CallInterceptor,
    described: Iterable[str] | None = None,
) -> grpc.aio.Server:
    """A server that is not started yet.

    Args:
        services: What it serves beside health and reflection.
        health_servicer: Answers for the health of all.
        interceptor: Stands around every call.
        described: What reflection lists; the services unless given.
    """
    server = grpc.aio.server(interceptors=[interceptor], options=SERVER_OPTIONS)
    for service in services:
        service.register(server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = described if described is not None else [service.name for service in services]
    add_reflection(server, [*names, HEALTH])
    return server


def listen(server: grpc.aio.Server, address: str) -> int:
    """Bind the address and return the port.

    Raises:
        CannotListen: Somebody else has it, or it is not of this machine.
    """
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise CannotListen(f"cannot listen on {address}") from error
    if port == 0:
        raise CannotListen(f"cannot listen on {address}")
    return port


async def set_serving(health_servicer: health.aio.HealthServicer, services: Iterable[str]) -> None:
    """Say that the process as a whole and each of its services are healthy."""
    for name in ("", HEALTH, *services):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)


async def start_server(
    services: Sequence[ServedService], listen_on: str = "127.0.0.1:0"
) -> tuple[grpc.aio.Server, int]:
    """Serve at once, without a process around: for tests.

    Returns:
        The running server and its port.
    """
    health_servicer = health.aio.HealthServicer()
    server = build_server(services, health_servicer, CallInterceptor())
    port = listen(server, listen_on)
    await server.start()
    await set_serving(health_servicer, [service.name for service in services])
    return server, port
