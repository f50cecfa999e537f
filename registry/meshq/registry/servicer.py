"""The public `RegistryService`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import grpc

from meshq.contract.errors import InvalidRequest, Unavailable
from meshq.contract.limits import MAX_NAME_LENGTH, STREAM_KEEPALIVE_SECONDS
from meshq.registry.changes import Changes
from meshq.registry.directory import Directory, Instance
from meshq.v1 import registry_service_pb2 as pb
from meshq.v1 import registry_service_pb2_grpc

NAME = "meshq.v1.RegistryService"
_MARGIN = 2.0


class RegistryServicer(registry_service_pb2_grpc.RegistryServiceServicer):
    """Tells what the directory knows.

    Args:
        directory: What is told.
        listed: Set when the directory knows something.
        changes: Notified after each change of the directory.
    """

    def __init__(self, directory: Directory, listed: asyncio.Event, changes: Changes) -> None:
        self._directory = directory
        self._listed = listed
        self._changes = changes

    async def ListServices(  # noqa: N802
        self,
        request: pb.ListServicesRequest,  # noqa: ARG002
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> pb.ListServicesResponse:
        """The services with the number of their instances."""
        self._check_listed()
        counts = Counter(name for item in self._directory.instances() for name in item.services)
        return pb.ListServicesResponse(
            services=[
                pb.Service(service=name, component=component, instances=counts[name])
                for name, component in self._directory.services().items()
            ]
        )

    async def ListInstances(  # noqa: N802
        self,
        request: pb.ListInstancesRequest,
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> pb.ListInstancesResponse:
        """The instances as they stand."""
        component = _component(request.component)
        self._check_listed()
        return pb.ListInstancesResponse(instances=self._instances(component))

    async def WatchInstances(  # noqa: N802
        self,
        request: pb.WatchInstancesRequest,
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> AsyncIterator[pb.WatchInstancesResponse]:
        """The instances now and after each change; in between signs of life."""
        component = _component(request.component)
        with self._changes.listening() as changed:
            if not self._listed.is_set():
                await _quiet_wait(changed)
                self._check_listed()
            while True:
                changed.clear()
                self._changes.check_open()
                yield pb.WatchInstancesResponse(
                    instances=self._instances(component), sequence=self._directory.sequence
                )
                await _quiet_wait(changed)

    def _instances(self, component: str) -> Iterator[pb.Instance]:
        return (_message(item) for item in self._directory.instances(component))

    def _check_listed(self) -> None:
        if not self._listed.is_set():
            raise Unavailable("the registry has not reached etcd yet", retry_delay=1.0)


async def _quiet_wait(changed: asyncio.Event) -> None:
    """Wait for a change, but not longer than a stream may be silent."""
    with suppress(TimeoutError):
        async with asyncio.timeout(STREAM_KEEPALIVE_SECONDS - _MARGIN):
            await changed.wait()


def _component(given: str) -> str:
    if len(given) > MAX_NAME_LENGTH:
        rule = f"must be at most {MAX_NAME_LENGTH} characters, not {len(given)}"
        raise InvalidRequest.field("component", rule)
    return given


def _message(item: Instance) -> pb.Instance:
    message = pb.Instance(
        component=item.component,
        instance_id=item.instance_id,
        address=item.address,
        admin_address=item.admin,
        services=item.services,
        zone=item.zone,
        version=item.version,
        weight=item.weight,
        leader=item.leader and not item.stale,
        state=pb.INSTANCE_STATE_STALE if item.stale else pb.INSTANCE_STATE_ACTIVE,
    )
    message.register_time.FromMilliseconds(int(item.register_time * 1_000))
    return message
