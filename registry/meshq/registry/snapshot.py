"""Snapshots: all resources as they stand at one moment, for gRPC clients and for Envoy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from meshq.contract.status import packed
from meshq.mesh.telemetry import logger
from meshq.registry.changes import Changes
from meshq.registry.directory import Directory, Instance
from meshq.registry.policy import Policy
from meshq.registry.resources.clusters import console_cluster, for_envoy, stream_cluster, unary_cluster
from meshq.registry.resources.edge import edge_routes
from meshq.registry.resources.endpoints import console_endpoints, endpoints
from meshq.registry.resources.groups import Groups, grouped
from meshq.registry.resources.names import CLUSTER, CONSOLE, EDGE, ENDPOINTS, LISTENER, MESH, ROUTES
from meshq.registry.resources.routes import mesh_listener, mesh_routes

_log = logger(__name__)

_SETTLE_SECONDS = 0.01

Resources = Mapping[str, Mapping[str, Any]]
"""By type and name."""


@dataclass(frozen=True)
class Snapshot:
    """All resources.

    Attributes:
        version: Unique among all snapshots of all registries.
        grpc: What gRPC clients may ask for.
        envoy: What Envoy may ask for, but for its routes: those depend on whom one asks for.
    """

    version: str
    grpc: Resources
    envoy: Resources
    services: Mapping[str, str]
    groups: Groups
    policy: Policy
    _edges: dict[tuple[str, ...], Resources] = field(default_factory=dict)

    def for_envoy(self, origins: Sequence[str]) -> Resources:
        """What an Envoy may ask for whose pages come from these origins."""
        key = tuple(origins)
        known = self._edges.get(key)
        if known is None:
            routes = edge_routes(self.services, self.groups, self.policy, key)
            known = self._edges[key] = {**self.envoy, ROUTES: {EDGE: packed(routes)}}
        return known


def build_snapshot(
    version: str, instances: Iterable[Instance], services: Mapping[str, str], policy: Policy
) -> Snapshot:
    """The resources for some instances.

    Args:
        version: The name of the snapshot.
        instances: Those that take traffic.
        services: The component of each service that was ever seen.
        policy: How they may talk.
    """
    present = list(instances)
    components = {*services.values(), *(item.component for item in present)}
    groups = grouped(present, sorted(components), policy.canary)
    places = {name: packed(endpoints(name, members)) for name, members in groups.members.items()}
    clusters = [
        cluster for name in groups.members for cluster in (unary_cluster(name, policy), stream_cluster(name))
    ]
    grpc = {
        LISTENER: {MESH: packed(mesh_listener())},
        ROUTES: {MESH: packed(mesh_routes(services, groups, policy))},
        CLUSTER: _by_name(clusters),
        ENDPOINTS: places,
    }
    envoy = {
        CLUSTER: _by_name([console_cluster(), *(for_envoy(cluster) for cluster in clusters)]),
        ENDPOINTS: {**places, CONSOLE: packed(console_endpoints(present))},
    }
    return Snapshot(version, grpc, envoy, dict(services), groups, policy)


def _by_name(clusters: Iterable[Message]) -> dict[str, Any]:
    return {cluster.name: packed(cluster) for cluster in clusters}  # type: ignore[attr-defined]


class Publisher:
    """Makes a snapshot of the directory after each change, and tells the streams.

    Args:
        replica: Distinguishes the versions of this registry process from those of all others.

    Attributes:
        snapshot: The newest; None until the directory knows something.
        changes: Who wants to hear of the next.
    """

    def __init__(self, replica: str, directory: Directory, policy: Policy) -> None:
        self.snapshot: Snapshot | None = None
        self.changes = Changes()
        self._replica = replica
        self._directory = directory
        self._policy = policy
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def refresh(self) -> None:
        """Publish soon; what changes within the next few milliseconds goes into the same snapshot."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SETTLE_SECONDS, self.publish)

    def publish(self) -> None:
        """Publish now."""
        self._timer = None
        self._count += 1
        instances = self._directory.instances()
        version = f"{self._replica}-{self._count}"
        self.snapshot = build_snapshot(version, instances, self._directory.services(), self._policy)
        stale = sum(item.stale for item in instances)
        _log.info("snapshot published", version=version, instances=len(instances), stale=stale)
        self.changes.notify()
