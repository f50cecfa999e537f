"""Times, spans and enums, in both directions."""

from __future__ import annotations

import datetime as dt
import enum
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from meshq.client.models import Span
from meshq.contract.errors import InvalidRequest

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

Name = TypeVar("Name", bound=enum.StrEnum)


def fill_time(message: Timestamp, time: dt.datetime, field: str) -> None:
    """Write a time; it must be aware, because a naive one means something else on each machine.

    Raises:
        InvalidRequest: The time has no time zone.
    """
    if time.tzinfo is None:
        raise InvalidRequest.field(field, "must have a time zone")
    message.FromDatetime(time)


def fill_span(message: Duration, length: Span, field: str) -> None:
    """Write a length of time; 0 is one, too.

    Raises:
        InvalidRequest: The length is not finite, or far too long.
    """
    try:
        span = length if isinstance(length, dt.timedelta) else dt.timedelta(seconds=length)
        message.FromTimedelta(span)
    except (OverflowError, ValueError):
        raise InvalidRequest.field(field, f"must be a length of time, not {length}") from None
    message.SetInParent()


def fill_spans(message: Message, spans: dict[str, Span | None], path: str) -> None:
    """Write the spans that are given into fields of their names."""
    for name, length in spans.items():
        if length is not None:
            fill_span(getattr(message, name), length, f"{path}.{name}")


def fill_integer(message: Message, name: str, number: int, path: str) -> None:
    """Write an integer.

    Raises:
        InvalidRequest: The wire has no room for it.
    """
    try:
        setattr(message, name, number)
    except ValueError:
        raise InvalidRequest.field(f"{path}.{name}", f"is out of range: {number}") from None


def fill_count(message: Message, name: str, number: int, most: int, path: str) -> None:
    """Write a number of which the wire's zero means "not given", so that the server could not refuse it.

    Raises:
        InvalidRequest: The number is below 1, or the wire has no room for it.
    """
    if not 1 <= number < 1 << 31:
        raise InvalidRequest.field(f"{path}.{name}", f"must be 1 to {most:,}, not {number}")
    setattr(message, name, number)


def enum_number(message: Message, field: str, value: enum.StrEnum) -> int:
    """The number of a name on the wire."""
    numbers = _numbers(message, field)
    prefix = numbers[0].removesuffix("UNSPECIFIED")
    return {name: number for number, name in numbers.items()}[prefix + value]


def enum_value(message: Message, field: str, known: type[Name]) -> Name:
    """The name without its prefix, `UNSPECIFIED` for what only a newer server knows."""
    numbers = _numbers(message, field)
    name = numbers.get(getattr(message, field), "")
    short = name.removeprefix(numbers[0].removesuffix("UNSPECIFIED"))
    return known(short if short in known.__members__ else "UNSPECIFIED")


def _numbers(message: Message, field: str) -> dict[int, str]:
    enumeration = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert enumeration is not None
    return {number: value.name for number, value in enumeration.values_by_number.items()}


def time_of(message: Message, field: str) -> dt.datetime | None:
    """A time; None where there is none."""
    return read_time(getattr(message, field)) if message.HasField(field) else None


def read_time(time: Timestamp) -> dt.datetime:
    """A time, to the microsecond."""
    return _EPOCH + dt.timedelta(0, time.seconds, time.nanos // 1000)


def span_of(message: Message, field: str) -> dt.timedelta | None:
    """A span; None where there is none."""
    return read_span(getattr(message, field)) if message.HasField(field) else None


def read_span(span: Duration) -> dt.timedelta:
    """A span, to the microsecond; towards zero, as spans below zero have nanoseconds below zero."""
    return dt.timedelta(seconds=span.seconds, microseconds=int(span.nanos / 1000))
