"""Durations and points in time as messages, and checked where they come from outside."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from meshq.contract.errors import InvalidRequest
from meshq.contract.times import broken_rule


def duration(seconds: float) -> Duration:
    """A protobuf Duration."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def duration_of_ms(milliseconds: int) -> Duration:
    """A protobuf Duration of milliseconds."""
    message = Duration()
    message.FromMilliseconds(milliseconds)
    return message


def timestamp(milliseconds: int) -> Timestamp:
    """A protobuf Timestamp of milliseconds since the epoch."""
    message = Timestamp()
    message.FromMilliseconds(milliseconds)
    return message


def seconds_of(value: Duration, least: float, most: float, field: str) -> float:
    """The seconds of a duration; raises `InvalidRequest` unless it is within its bounds."""
    if rule := broken_rule(value):
        raise InvalidRequest.field(field, rule)
    seconds = value.seconds + value.nanos / 1e9
    if not least <= seconds <= most:
        raise InvalidRequest.field(field, f"must be {least:g} to {most:.10g} s, not {seconds:.10g} s")
    return seconds


def milliseconds_of(value: Duration, least: float, most: float, field: str) -> int:
    """The milliseconds of a duration; raises `InvalidRequest` unless it is within its bounds."""
    return round(seconds_of(value, least, most, field) * 1000)
