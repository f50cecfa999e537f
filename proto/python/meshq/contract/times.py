"""The rules of `google.protobuf.Timestamp` and `Duration`, which gRPC does not check.

What breaks them has no form in JSON, so a task that was stored with such a time could not be shown over REST.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_FIRST_SECOND: Final = -62_135_596_800
"""0001-01-01T00:00:00Z."""
_LAST_SECOND: Final = 253_402_300_799
"""9999-12-31T23:59:59Z."""
_MOST_SECONDS: Final = 315_576_000_000
"""10,000 years."""
_MOST_NANOS: Final = 999_999_999

_TIMESTAMP_RULE: Final = f"must be of the years 1 to 9999 with nanos of 0 to {_MOST_NANOS}"
_DURATION_RULE: Final = (
    f"must be within {_MOST_SECONDS} s either way with nanos of the same sign up to {_MOST_NANOS}"
)


def broken_rule(value: Timestamp | Duration) -> str | None:
    """The rule that a time breaks, with the time; None for one that keeps it."""
    if isinstance(value, Timestamp):
        if _FIRST_SECOND <= value.seconds <= _LAST_SECOND and 0 <= value.nanos <= _MOST_NANOS:
            return None
        return f"{_TIMESTAMP_RULE}, not {parts_of(value)}"
    seconds, nanos = value.seconds, value.nanos
    if abs(seconds) <= _MOST_SECONDS and abs(nanos) <= _MOST_NANOS and seconds * nanos >= 0:
        return None
    return f"{_DURATION_RULE}, not {parts_of(value)}"


def parts_of(value: Timestamp | Duration) -> str:
    """A time as text that can be written of a broken one as well."""
    return f"seconds {value.seconds}, nanos {value.nanos}"
