"""Puts the gateway together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from envoy.config.bootstrap.v3 import bootstrap_pb2

from meshq.gateway.console.server import Console
from meshq.gateway.console.sources import MeshSource
from meshq.gateway.edge.bootstrap import EdgeNode, bootstrap
from meshq.gateway.edge.descriptors import descriptor_set
from meshq.gateway.edge.listener import Edge
from meshq.gateway.edge.tls import Certificate
from meshq.gateway.envoy.binary import EnvoyMissing, find_envoy
from meshq.gateway.envoy.supervisor import EnvoySupervisor
from meshq.gateway.names import CONSOLE_METADATA, EDGE_METADATA
from meshq.gateway.settings import GatewaySettings
from meshq.mesh.contract_methods import public_services
from meshq.mesh.process import App, InstanceDirectory, Kit, StartupError

_ALL_COMPONENTS = ""


async def build(kit: Kit) -> App:
    """The gateway: Envoy, and the console beside it. Its own server describes the public services."""
    assert isinstance(kit.settings, GatewaySettings)
    settings = kit.settings
    edge = _supervisor(settings)
    source = MeshSource(kit.channel())
    known = partial(_components, kit.peers(_ALL_COMPONENTS))
    console = Console(settings.console_listen, kit.instance_id, source, edge, known)
    metadata: dict[str, Any] = {}
    return App(
        services=(),
        background=(source, console, edge, Addresses(metadata, console, edge)),
        drain=edge.drain,
        metadata=metadata,
        described=public_services(),
    )


class Addresses:
    """Writes into the registration's metadata where the edge and the console were bound."""

    def __init__(self, metadata: dict[str, Any], console: Console, edge: EnvoySupervisor) -> None:
        self._metadata = metadata
        self._console = console
        self._edge = edge

    async def start(self) -> None:
        """Write them; both are bound by now."""
        self._metadata[CONSOLE_METADATA] = self._console.address
        self._metadata[EDGE_METADATA] = self._edge.address

    async def stop(self) -> None:
        """There is nothing to end."""


def _supervisor(settings: GatewaySettings) -> EnvoySupervisor:
    try:
        program = find_envoy(settings.bin_envoy)
    except EnvoyMissing as error:
        raise StartupError(str(error)) from error
    return EnvoySupervisor(
        program,
        _bootstrap_builder(settings),
        settings.gateway_listen,
        settings.gateway_workers,
        settings.drain_timeout,
    )


def _bootstrap_builder(settings: GatewaySettings) -> Callable[[str], bootstrap_pb2.Bootstrap]:
    services = public_services()
    descriptors = descriptor_set(services).SerializeToString()
    node = EdgeNode(
        instance_id=settings.instance_id,
        zone=settings.zone,
        registry_addresses=settings.registry_addresses,
        max_connections=settings.gateway_max_connections,
    )

    def built(listen: str) -> bootstrap_pb2.Bootstrap:
        edge = Edge(
            listen=listen,
            services=services,
            descriptors=descriptors,
            origins=settings.gateway_origins,
            access_log=settings.gateway_access_log,
            certificate=_certificate(settings),
        )
        return bootstrap(node, edge)

    return built


def _certificate(settings: GatewaySettings) -> Certificate | None:
    chain, key = settings.gateway_tls_certificate, settings.gateway_tls_key
    return Certificate(chain, key) if chain and key else None


def _components(directory: InstanceDirectory) -> Iterator[str]:
    return (instance.component for instance in directory.instances.values())
