"""Asks an instance for its health, to tell a lost registration from a lost process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshq.registry.directory import Instance

_TIMEOUT = 2.0
_NO_HEALTH_SERVICE = grpc.StatusCode.UNIMPLEMENTED


class HealthProbe:
    """Calls `grpc.health.v1.Health/Check` of an instance.

    Args:
        channel: Gives the channel to an address.
    """

    def __init__(self, channel: Callable[[str], grpc.aio.Channel]) -> None:
        self._channel = channel

    async def __call__(self, instance: Instance) -> bool:
        """Whether the instance answers for the service that it registered.

        Asking for a service by name tells it from another process that got its port.
        """
        service = instance.services[0] if instance.services else ""
        stub: Any = health_pb2_grpc.HealthStub(self._channel(instance.address))
        try:
            response = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            return error.code() is _NO_HEALTH_SERVICE
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)
