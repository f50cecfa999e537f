"""The names of xDS resources, and their types."""

from __future__ import annotations

from typing import Final

MESH: Final = "meshq"
"""The listener, and the route configuration, of gRPC clients: they dial `xds:///meshq`."""

EDGE: Final = "edge"
"""The route configuration of the gateway's Envoy."""

CONSOLE: Final = "console"
"""The cluster of the gateways' consoles."""

NOWHERE: Final = "unknown"
"""A cluster that does not exist."""

GATEWAY: Final = "meshq.gateway"

_PREFIX: Final = "type.googleapis.com/"
LISTENER: Final = _PREFIX + "envoy.config.listener.v3.Listener"
ROUTES: Final = _PREFIX + "envoy.config.route.v3.RouteConfiguration"
CLUSTER: Final = _PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINTS: Final = _PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"

IN_ORDER: Final = (CLUSTER, ENDPOINTS, LISTENER, ROUTES)
"""The order of sending: a route comes after the cluster that it names."""


def streams_of(cluster: str) -> str:
    """The cluster for the streams of a component."""
    return cluster + ".streams"


def canary_of(component: str, version: str) -> str:
    """The cluster of a component's instances of one version."""
    return f"{component}@{version}"
