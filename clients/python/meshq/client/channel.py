"""How a channel to meshq is opened: the target, keepalive and message sizes, all set explicitly."""

from __future__ import annotations

import os
from typing import Final

from meshq.contract.limits import MAX_MESSAGE_BYTES

TARGET_VARIABLE: Final = "MESHQ_TARGET"
DEFAULT_TARGET: Final = "localhost:8080"

CHANNEL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A peer that vanished without a word is noticed within ten seconds, so that a worker keeps its leases. An
    # idle channel needs no pings.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Retrying is the SDK's business, which knows what is safe.
    ("grpc.enable_retries", 0),
)


def resolve_target(target: str | None) -> str:
    """The target to dial.

    Args:
        target: `host:port`, or a gRPC target such as `xds:///meshq`; None takes `MESHQ_TARGET` from the
            environment, or `localhost:8080`.
    """
    return target or os.environ.get(TARGET_VARIABLE) or DEFAULT_TARGET
