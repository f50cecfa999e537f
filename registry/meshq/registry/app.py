"""Wires the registry: etcd -> directory -> snapshots -> streams."""

from __future__ import annotations

import secrets
from typing import cast

from envoy.service.discovery.v3 import ads_pb2_grpc

from meshq.mesh.process import App, Kit, ServedService
from meshq.registry import discovery, servicer
from meshq.registry.directory import Directory
from meshq.registry.discovery import DiscoveryServicer
from meshq.registry.probe import HealthProbe
from meshq.registry.servicer import RegistryServicer
from meshq.registry.settings import RegistrySettings
from meshq.registry.snapshot import Publisher
from meshq.registry.store import InstanceStore
from meshq.v1 import registry_service_pb2_grpc as registry_grpc

_LEASES_KEPT = 2
_LEASES_TO_SETTLE = 0.5


async def build(kit: Kit) -> App:
    """The registry's parts."""
    settings = cast(RegistrySettings, kit.settings)
    directory = Directory(stale_seconds=_LEASES_KEPT * settings.lease_seconds)
    replica = f"{kit.instance_id}-{secrets.token_hex(4)}"
    publisher = Publisher(replica, directory, settings.mesh_policy)
    store = InstanceStore(kit.etcd, directory, HealthProbe(kit.direct), publisher.refresh)
    registry = RegistryServicer(directory, store.listed, publisher.changes)
    ads = DiscoveryServicer(publisher, _LEASES_TO_SETTLE * settings.lease_seconds)

    async def drain() -> None:
        publisher.changes.close()

    return App(
        services=[
            ServedService(
                servicer.NAME,
                lambda server: registry_grpc.add_RegistryServiceServicer_to_server(registry, server),
            ),
            ServedService(
                discovery.NAME,
                lambda server: ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(ads, server),
            ),
        ],
        background=[store],
        drain=drain,
    )
