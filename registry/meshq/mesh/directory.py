"""The processes of one component as the registry tells them, for whoever dials each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from time import monotonic
from types import MappingProxyType
from typing import Final, NoReturn

import grpc

from meshq.contract.errors import MeshqError, Unavailable
from meshq.contract.limits import STREAM_KEEPALIVE_SECONDS
from meshq.contract.status import from_rpc_error
from meshq.mesh.lifecycle import backoff, cancelled
from meshq.mesh.telemetry import logger
from meshq.v1 import registry_service_pb2, registry_service_pb2_grpc

_log = logger(__name__)

_SILENCE_SECONDS: Final = 2.5 * STREAM_KEEPALIVE_SECONDS
_MAX_BACKOFF: Final = 2.0
_KEEP_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Instance:
    """One process.

    Attributes:
        address: Where it serves gRPC, as `host:port`.
        stale: Whether its registration was lost without a goodbye; it may still be there.
    """

    component: str
    instance_id: str
    address: str
    services: tuple[str, ...] = ()
    zone: str = ""
    version: str = ""
    weight: int = 1
    stale: bool = False


class InstanceDirectory:
    """Follows `RegistryService.WatchInstances`; while the registry is away the last state stands.

    The first thing that a registry tells after a break takes nothing away at once: it may have started
    a moment ago, with an etcd that was emptied. What it lacks is kept as stale for a while.

    Attributes:
        instances: The processes by instance id; a new mapping after each change.
    """

    def __init__(self, channel: Callable[[], grpc.aio.Channel], component: str) -> None:
        self.instances: Mapping[str, Instance] = MappingProxyType({})
        self._channel = channel
        self._component = component
        self._frames = 0
        self._keep_until: dict[str, float] = {}
        self._ready = asyncio.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Follow from now on."""
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name=f"directory of {self._component}")

    async def stop(self) -> None:
        """Follow no longer; the instances stay as they are."""
        task, self._task = self._task, None
        if task is not None:
            await cancelled(task)

    async def wait_ready(self, timeout: float) -> None:  # noqa: ASYNC109
        """Return when at least one instance is known.

        Raises:
            Unavailable: None became known in time.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._ready.wait()
        except TimeoutError as error:
            raise Unavailable(f"no instance of {self._component} is registered") from error

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call back after every change of `instances`, on the loop; callbacks must not raise."""
        self._callbacks.append(callback)

    async def _follow(self) -> None:
        failures = 0
        while True:
            known = self._frames
            try:
                await self._follow_once()
            except MeshqError as error:
                failures = 1 if self._frames > known else failures + 1
                if failures == 1:
                    _log.warning("registry lost; keeping what is known", reason=error.message)
            await asyncio.sleep(backoff(failures, most=_MAX_BACKOFF))

    async def _follow_once(self) -> NoReturn:
        stub = registry_service_pb2_grpc.RegistryServiceStub(self._channel())
        call = stub.WatchInstances(registry_service_pb2.WatchInstancesRequest(component=self._component))
        first = True
        try:
            while True:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    frame = await call.read()
                if not isinstance(frame, registry_service_pb2.WatchInstancesResponse):
                    raise Unavailable("the registry ended the watch")
                self._take(frame, first=first)
                first = False
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        except TimeoutError as error:
            raise Unavailable("the registry is silent") from error
        finally:
            call.cancel()

    def _take(self, frame: registry_service_pb2.WatchInstancesResponse, *, first: bool) -> None:
        self._frames += 1
        told = {item.instance_id: _instance(item) for item in frame.instances}
        instances = {**self._kept(told, first=first), **told}
        if instances == self.instances:
            return
        self.instances = MappingProxyType(instances)
        if instances:
            self._ready.set()
        else:
            self._ready.clear()
        for callback in self._callbacks:
            callback()

    def _kept(self, told: Mapping[str, Instance], *, first: bool) -> dict[str, Instance]:
        """What was known before, and a registry that has just started may not know yet."""
        now = monotonic()
        missing = {key: item for key, item in self.instances.items() if key not in told}
        if first:
            self._keep_until = dict.fromkeys(missing, now + _KEEP_SECONDS)
        self._keep_until = {
            key: until for key, until in self._keep_until.items() if key in missing and until > now
        }
        return {key: replace(missing[key], stale=True) for key in self._keep_until}


def _instance(item: registry_service_pb2.Instance) -> Instance:
    return Instance(
        component=item.component,
        instance_id=item.instance_id,
        address=item.address,
        services=tuple(item.services),
        zone=item.zone,
        version=item.version,
        weight=item.weight,
        stale=item.state == registry_service_pb2.INSTANCE_STATE_STALE,
    )
