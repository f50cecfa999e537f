"""Python values in the messages that Envoy's configuration is made of."""

from __future__ import annotations

from envoy.config.core.v3 import address_pb2
from google.protobuf import duration_pb2, wrappers_pb2


def seconds(value: float) -> duration_pb2.Duration:
    """A time of so many seconds."""
    duration = duration_pb2.Duration()
    duration.FromMilliseconds(round(value * 1_000))
    return duration


def number(value: int) -> wrappers_pb2.UInt32Value:
    """A number where leaving it out means something else than 0."""
    return wrappers_pb2.UInt32Value(value=value)


def yes() -> wrappers_pb2.BoolValue:
    """True where leaving it out means something else than false."""
    return wrappers_pb2.BoolValue(value=True)


def no() -> wrappers_pb2.BoolValue:
    """False where leaving it out means true."""
    return wrappers_pb2.BoolValue(value=False)


def socket_address(address: str) -> address_pb2.Address:
    """An address of the form `host:port`; an IPv6 host stands in brackets."""
    host, _, port = address.rpartition(":")
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(address=host.strip("[]"), port_value=int(port))
    )
