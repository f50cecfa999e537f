"""Channels between processes: the mesh as a whole, and straight to one process.

gRPC's own defaults close long streams, take 4 MiB at most and wait for ever; whatever matters is set
here, for both sides.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import grpc

from meshq.contract.limits import MAX_MESSAGE_BYTES
from meshq.contract.metadata import REQUEST_ID
from meshq.mesh.context import request_id
from meshq.mesh.settings import ProcessSettings

BOOTSTRAP: Final = "GRPC_XDS_BOOTSTRAP_CONFIG"
DEFAULT_CALL_SECONDS: Final = 30.0
"""The deadline of a unary call that names none."""

# A peer that is gone without a word is noticed within ten seconds, in less than a lease time. The second one
# is set twice: gRPC takes the keepalive timeout for how long TCP waits for an acknowledgement, and has
# another one for its pings, with a default of a minute.
_PING_MS: Final = 5_000
_PING_TIMEOUT_MS: Final = 5_000
_MAX_METADATA_BYTES: Final = 64 * 1024
_SIZES: Final = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", 2 * _MAX_METADATA_BYTES),
)

CHANNEL_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    *_SIZES,
    ("grpc.keepalive_time_ms", _PING_MS),
    ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
    ("grpc.http2.ping_timeout_ms", _PING_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # Policy comes from the registry, never from DNS TXT records.
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_retries", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
"""What every client channel is made with."""

SERVER_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    *_SIZES,
    ("grpc.keepalive_time_ms", 2 * _PING_MS),
    ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
    ("grpc.http2.ping_timeout_ms", _PING_TIMEOUT_MS),
    ("grpc.http2.max_pings_without_data", 0),
    # Clients in any language may ping every few seconds without being sent away.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_concurrent_streams", 100_000),
    # Two processes on one port would take turns; the second shall fail instead.
    ("grpc.so_reuseport", 0),
)
"""What every server is made with."""


class MeshChannel(grpc.aio.Channel):
    """A channel whose unary calls have a deadline and carry the request id of the call being served.

    A thin shell instead of client interceptors, which would add several tasks to each call.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._channel.close()

    async def close(self, grace: float | None = None) -> None:
        """Close the channel; calls under way get the grace."""
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """The state of the connection."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return when the state is another one."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Return when the channel is connected."""
        await self._channel.channel_ready()

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """As of `grpc.aio.Channel`."""
        return _with_deadline(self._channel.unary_unary(method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """As of `grpc.aio.Channel`."""
        return _with_request_id(self._channel.unary_stream(method, *args, **kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """As of `grpc.aio.Channel`."""
        return _with_request_id(self._channel.stream_unary(method, *args, **kwargs))

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """As of `grpc.aio.Channel`."""
        return _with_request_id(self._channel.stream_stream(method, *args, **kwargs))


def _with_deadline(call: Any) -> Callable[..., Any]:
    def invoke(request: Any, *, timeout: float | None = None, metadata: Any = None, **kwargs: Any) -> Any:
        return call(
            request,
            timeout=DEFAULT_CALL_SECONDS if timeout is None else timeout,
            metadata=_traced(metadata),
            **kwargs,
        )

    return invoke


def _with_request_id(call: Any) -> Callable[..., Any]:
    def invoke(*args: Any, metadata: Any = None, **kwargs: Any) -> Any:
        return call(*args, metadata=_traced(metadata), **kwargs)

    return invoke


def _traced(metadata: Any) -> Any:
    call = request_id()
    if not call:
        return metadata
    return ((REQUEST_ID, call), *(item for item in metadata or () if item[0] != REQUEST_ID))


def open_channel(target: str) -> MeshChannel:
    """A new channel; the caller closes it."""
    return MeshChannel(grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS))


def target_of(addresses: Sequence[str]) -> str:
    """One gRPC target for several addresses, which are tried in order.

    Names cannot be listed in one target; of several names only the first is taken.
    """
    hosts = [address.rpartition(":")[0] for address in addresses]
    if all(host.replace(".", "").isdigit() for host in hosts):
        return "ipv4:" + ",".join(addresses)
    return addresses[0]


def install_bootstrap(settings: ProcessSettings) -> None:
    """Tell gRPC where the registry is; has to happen before the first channel of the process."""
    os.environ[BOOTSTRAP] = bootstrap(settings)


def bootstrap(settings: ProcessSettings) -> str:
    """GRPC's xDS bootstrap for a process."""
    server = {
        "server_uri": target_of(settings.registry_addresses),
        "channel_creds": [{"type": "insecure"}],
        # A registry that has just started knows less than this process: what it does not name stays.
        "server_features": ["xds_v3", "ignore_resource_deletion"],
    }
    node = {"id": settings.instance_id, "cluster": settings.component, "locality": {"zone": settings.zone}}
    return json.dumps({"xds_servers": [server], "node": node})
