"""Clusters: one for the unary calls of a component and one for its streams (rule 26)."""

from __future__ import annotations

from typing import Final

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import config_source_pb2, protocol_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import duration_pb2, wrappers_pb2

from meshq.contract.status import packed
from meshq.registry.policy import Outlier, Policy
from meshq.registry.resources.names import CONSOLE, streams_of

MAX_STREAMS: Final = 1_000_000
"""Streams under way to one component: without this both gRPC and Envoy stop at 1,024."""

_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_CONNECT_SECONDS: Final = 2.0
_PING: Final = 5.0
_PONG: Final = 5.0
_STREAMS_PER_CONNECTION: Final = 100_000


def seconds(value: float) -> duration_pb2.Duration:
    """A duration."""
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(round(value * 1e9))
    return duration


def number(value: int) -> wrappers_pb2.UInt32Value:
    """A number that differs from "not set" even if it is 0."""
    return wrappers_pb2.UInt32Value(value=value)


def ads() -> config_source_pb2.ConfigSource:
    """Says: ask on this same stream."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
    )


def unary_cluster(name: str, policy: Policy) -> cluster_pb2.Cluster:
    """The cluster for unary calls: bounded, and without instances that fail."""
    cluster = _cluster(name, name, policy.circuit_breaker.max_requests, policy.circuit_breaker.max_retries)
    cluster.outlier_detection.CopyFrom(_outlier(policy.outlier))
    return cluster


def stream_cluster(name: str) -> cluster_pb2.Cluster:
    """The cluster for streams, with the same endpoints: practically unbounded, and nobody is ejected."""
    return _cluster(streams_of(name), name, MAX_STREAMS, 1)


def for_envoy(cluster: cluster_pb2.Cluster) -> cluster_pb2.Cluster:
    """The same cluster with what Envoy has to be told: HTTP/2 with pings."""
    built = cluster_pb2.Cluster()
    built.CopyFrom(cluster)
    built.connect_timeout.CopyFrom(seconds(_CONNECT_SECONDS))
    # A connection that is broken between two pings shall not get further calls.
    keepalive = protocol_pb2.KeepaliveSettings(interval=seconds(_PING), timeout=seconds(_PONG))
    http2 = protocol_pb2.Http2ProtocolOptions(
        connection_keepalive=keepalive, max_concurrent_streams=number(_STREAMS_PER_CONNECTION)
    )
    explicit = http_protocol_options_pb2.HttpProtocolOptions.ExplicitHttpConfig(http2_protocol_options=http2)
    options = http_protocol_options_pb2.HttpProtocolOptions(explicit_http_config=explicit)
    built.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(packed(options))
    return built


def console_cluster() -> cluster_pb2.Cluster:
    """The consoles of the gateways, over HTTP/1.1."""
    cluster = _cluster(CONSOLE, CONSOLE, MAX_STREAMS, 1)
    cluster.connect_timeout.CopyFrom(seconds(_CONNECT_SECONDS))
    return cluster


def _cluster(name: str, endpoints: str, max_requests: int, max_retries: int) -> cluster_pb2.Cluster:
    threshold = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections=number(MAX_STREAMS),
        max_pending_requests=number(max_requests),
        max_requests=number(max_requests),
        max_retries=number(max_retries),
    )
    return cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.EDS,
        eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(eds_config=ads(), service_name=endpoints),
        lb_policy=cluster_pb2.Cluster.ROUND_ROBIN,
        circuit_breakers=circuit_breaker_pb2.CircuitBreakers(thresholds=[threshold]),
        # A change of the endpoints shall not pause the whole cluster.
        ignore_health_on_host_removal=True,
    )


def _outlier(policy: Outlier) -> outlier_detection_pb2.OutlierDetection:
    """Ejection by percentage of failures only; the other ways of gRPC and Envoy are switched off."""
    return outlier_detection_pb2.OutlierDetection(
        interval=seconds(policy.interval),
        base_ejection_time=seconds(policy.base_ejection_time),
        max_ejection_percent=number(policy.max_ejection_percent),
        failure_percentage_threshold=number(policy.failure_percentage),
        enforcing_failure_percentage=number(100),
        failure_percentage_minimum_hosts=number(policy.minimum_instances),
        failure_percentage_request_volume=number(policy.request_volume),
        enforcing_success_rate=number(0),
        enforcing_consecutive_5xx=number(0),
        enforcing_consecutive_gateway_failure=number(0),
    )
