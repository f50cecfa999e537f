"""Envoy's bootstrap: what it knows before the registry has told it anything.

The listener with its filters is here; clusters, endpoints and the routes between them come from the
registry over ADS, and stay in force while the registry is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, config_source_pb2, grpc_service_pb2, protocol_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.overload.v3 import overload_pb2
from envoy.extensions.resource_monitors.downstream_connections.v3 import downstream_connections_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import struct_pb2

from meshq.contract.status import packed
from meshq.gateway.edge.listener import Edge, ads, edge_listener
from meshq.gateway.edge.wrappers import seconds, socket_address
from meshq.gateway.names import COMPONENT, REGISTRY_CLUSTER

_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_CONNECT_SECONDS: Final = 2.0
_PING_SECONDS: Final = 10.0
_PONG_SECONDS: Final = 5.0
_STALLED_SECONDS: Final = 2.0
_STUCK_SECONDS: Final = 10.0


@dataclass(frozen=True)
class EdgeNode:
    """Which Envoy this is, and where it learns the rest.

    Attributes:
        instance_id: The id of the gateway instance.
        zone: Where it runs, for balancing.
        registry_addresses: The xDS servers, as `host:port`.
        max_connections: How many connections it takes at a time.
    """

    instance_id: str
    zone: str
    registry_addresses: Sequence[str]
    max_connections: int


def bootstrap(node: EdgeNode, edge: Edge) -> bootstrap_pb2.Bootstrap:
    """The whole bootstrap. The admin interface takes a free port on loopback."""
    return bootstrap_pb2.Bootstrap(
        node=_node(node, edge),
        admin=bootstrap_pb2.Admin(address=socket_address("127.0.0.1:0")),
        static_resources=bootstrap_pb2.Bootstrap.StaticResources(
            listeners=[edge_listener(edge)], clusters=[_registry(node.registry_addresses)]
        ),
        dynamic_resources=bootstrap_pb2.Bootstrap.DynamicResources(
            ads_config=_xds_servers(), cds_config=ads()
        ),
        watchdogs=bootstrap_pb2.Watchdogs(main_thread_watchdog=_watchdog(), worker_watchdog=_watchdog()),
        overload_manager=_connection_limit(node.max_connections),
    )


def _node(node: EdgeNode, edge: Edge) -> base_pb2.Node:
    # The registry writes the origins into the routes: Envoy takes a CORS policy nowhere else.
    metadata = struct_pb2.Struct()
    metadata.update({"origins": list(edge.origins)})
    return base_pb2.Node(
        id=node.instance_id,
        cluster=COMPONENT,
        locality=base_pb2.Locality(zone=node.zone),
        metadata=metadata,
    )


def _xds_servers() -> config_source_pb2.ApiConfigSource:
    envoy_grpc = grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=REGISTRY_CLUSTER)
    return config_source_pb2.ApiConfigSource(
        api_type=config_source_pb2.ApiConfigSource.GRPC,
        transport_api_version=config_source_pb2.V3,
        set_node_on_first_message_only=True,
        grpc_services=[grpc_service_pb2.GrpcService(envoy_grpc=envoy_grpc)],
    )


def _registry(addresses: Sequence[str]) -> cluster_pb2.Cluster:
    endpoints = [
        endpoint_components_pb2.LbEndpoint(
            endpoint=endpoint_components_pb2.Endpoint(address=socket_address(address))
        )
        for address in addresses
    ]
    return cluster_pb2.Cluster(
        name=REGISTRY_CLUSTER,
        type=cluster_pb2.Cluster.STRICT_DNS,
        connect_timeout=seconds(_CONNECT_SECONDS),
        load_assignment=endpoint_pb2.ClusterLoadAssignment(
            cluster_name=REGISTRY_CLUSTER,
            endpoints=[endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=endpoints)],
        ),
        typed_extension_protocol_options={_HTTP_OPTIONS: packed(_http2())},
    )


def _http2() -> http_protocol_options_pb2.HttpProtocolOptions:
    # Pings, because the stream of configuration is silent for as long as nothing changes.
    keepalive = protocol_pb2.KeepaliveSettings(
        interval=seconds(_PING_SECONDS), timeout=seconds(_PONG_SECONDS)
    )
    explicit = http_protocol_options_pb2.HttpProtocolOptions.ExplicitHttpConfig(
        http2_protocol_options=protocol_pb2.Http2ProtocolOptions(connection_keepalive=keepalive)
    )
    return http_protocol_options_pb2.HttpProtocolOptions(explicit_http_config=explicit)


def _watchdog() -> bootstrap_pb2.Watchdog:
    # They only count stalls, for which each thread is woken twice in the shortest of these times.
    return bootstrap_pb2.Watchdog(
        miss_timeout=seconds(_STALLED_SECONDS), megamiss_timeout=seconds(_STUCK_SECONDS)
    )


def _connection_limit(limit: int) -> overload_pb2.OverloadManager:
    monitor = downstream_connections_pb2.DownstreamConnectionsConfig(max_active_downstream_connections=limit)
    return overload_pb2.OverloadManager(
        resource_monitors=[
            overload_pb2.ResourceMonitor(
                name="envoy.resource_monitors.global_downstream_max_connections",
                typed_config=packed(monitor),
            )
        ]
    )
