"""The listener of the edge: one port that speaks gRPC, gRPC-Web and REST over HTTP/1 and HTTP/2."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from envoy.config.core.v3 import config_source_pb2, protocol_pb2, socket_option_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager as Manager,
)
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    Rds,
    RequestIDExtension,
)
from envoy.extensions.request_id.uuid.v3 import uuid_pb2

from meshq.contract.limits import MAX_RUN_WAIT_SECONDS
from meshq.contract.status import packed
from meshq.gateway.edge.access_log import access_logs
from meshq.gateway.edge.filters import http_filters
from meshq.gateway.edge.origin import call_origin
from meshq.gateway.edge.refusals import local_replies
from meshq.gateway.edge.tls import Certificate, tls_socket
from meshq.gateway.edge.wrappers import no, number, seconds, socket_address, yes
from meshq.gateway.names import EDGE_LISTENER, EDGE_ROUTES

_FIRST_FETCH_SECONDS: Final = 3.0
"""How long Envoy waits for the registry before it answers by what it has."""
_STREAM_IDLE_SECONDS: Final = MAX_RUN_WAIT_SECONDS + 60.0
"""Longer than the longest silence that is asked for: streams carry a frame every 20 s, a RunTask waits."""
_HEADERS_SECONDS: Final = 15.0
_MAX_STREAMS: Final = 100_000
_STREAM_WINDOW: Final = 1 << 20
_CONNECTION_WINDOW: Final = 16 << 20
_BUFFER_BYTES: Final = 1 << 20
_PING_SECONDS: Final = 30.0
_PONG_SECONDS: Final = 20.0


@dataclass(frozen=True)
class Edge:
    """What the edge offers.

    Attributes:
        listen: Where it listens, as `host:port`.
        services: The public services, by full name.
        descriptors: Their encoded descriptor set.
        origins: The origins whose pages may call.
        access_log: `stdout`, a file, or `off`.
        certificate: For TLS; None is plain text.
    """

    listen: str
    services: Sequence[str]
    descriptors: bytes
    origins: Sequence[str]
    access_log: str
    certificate: Certificate | None = None


def ads() -> config_source_pb2.ConfigSource:
    """Over the one stream to the registry."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        resource_api_version=config_source_pb2.V3,
        initial_fetch_timeout=seconds(_FIRST_FETCH_SECONDS),
    )


def edge_listener(edge: Edge) -> listener_pb2.Listener:
    """The listener with its filters."""
    manager = listener_components_pb2.Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=packed(_manager(edge))
    )
    certificate = edge.certificate
    chain = listener_components_pb2.FilterChain(
        filters=[manager], transport_socket=tls_socket(certificate) if certificate else None
    )
    return listener_pb2.Listener(
        name=EDGE_LISTENER,
        address=socket_address(edge.listen),
        filter_chains=[chain],
        per_connection_buffer_limit_bytes=number(_BUFFER_BYTES),
        # With a port per worker thread a second process could take the same port without an error.
        enable_reuse_port=no(),
        socket_options=_tcp_keepalive(),
    )


def _manager(edge: Edge) -> Manager:
    return Manager(
        codec_type=Manager.AUTO,
        stat_prefix=EDGE_LISTENER,
        rds=Rds(route_config_name=EDGE_ROUTES, config_source=ads()),
        http_filters=http_filters(edge.services, edge.descriptors),
        local_reply_config=local_replies(edge.services),
        access_log=access_logs(edge.access_log),
        http2_protocol_options=_http2(),
        stream_idle_timeout=seconds(_STREAM_IDLE_SECONDS),
        request_headers_timeout=seconds(_HEADERS_SECONDS),
        use_remote_address=yes(),
        normalize_path=yes(),
        merge_slashes=True,
        path_with_escaped_slashes_action=Manager.KEEP_UNCHANGED,
        server_name="meshq",
        generate_request_id=yes(),
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
        request_id_extension=_request_ids(),
        early_header_mutation_extensions=[call_origin()],
    )


def _http2() -> protocol_pb2.Http2ProtocolOptions:
    return protocol_pb2.Http2ProtocolOptions(
        max_concurrent_streams=number(_MAX_STREAMS),
        initial_stream_window_size=number(_STREAM_WINDOW),
        initial_connection_window_size=number(_CONNECTION_WINDOW),
        connection_keepalive=protocol_pb2.KeepaliveSettings(
            interval=seconds(_PING_SECONDS), timeout=seconds(_PONG_SECONDS)
        ),
    )


def _request_ids() -> RequestIDExtension:
    # Tracing must not write its decision into an id that a caller chose.
    return RequestIDExtension(typed_config=packed(uuid_pb2.UuidRequestIdConfig(pack_trace_reason=no())))


def _tcp_keepalive() -> Iterator[socket_option_pb2.SocketOption]:
    """Find callers over HTTP/1 that vanished; those over HTTP/2 are pinged."""
    yield _option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        yield _option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(_PING_SECONDS))
        yield _option(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, int(_PING_SECONDS))


def _option(level: int, name: int, value: int) -> socket_option_pb2.SocketOption:
    return socket_option_pb2.SocketOption(
        level=level, name=name, int_value=value, state=socket_option_pb2.SocketOption.STATE_PREBIND
    )
