"""Times that are none: the rule is told with the value, and only what has a form in JSON is one."""

from __future__ import annotations

import contextlib

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from meshq.contract.times import broken_rule

SECONDS = st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**12), 10**12) | st.integers(-1, 1)
NANOS = st.integers(-(2**31), 2**31 - 1) | st.integers(-1, 1)


def is_written(value: Timestamp | Duration) -> bool:
    with contextlib.suppress(ValueError):
        return bool(value.ToJsonString())
    return False


@given(SECONDS, NANOS)
def test_a_time_is_what_json_has_a_form_for(seconds: int, nanos: int) -> None:
    for value in (Timestamp(seconds=seconds, nanos=nanos), Duration(seconds=seconds, nanos=nanos)):
        assert (broken_rule(value) is None) == is_written(value), value


@pytest.mark.parametrize(
    "value",
    [
        Timestamp(seconds=-62_135_596_800),
        Timestamp(seconds=253_402_300_799, nanos=999_999_999),
        Duration(seconds=315_576_000_000, nanos=999_999_999),
        Duration(seconds=-315_576_000_000, nanos=-999_999_999),
        Duration(nanos=-1),
    ],
)
def test_the_last_ones_are_taken(value: Timestamp | Duration) -> None:
    assert broken_rule(value) is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Timestamp(seconds=-62_135_596_801), "seconds -62135596801, nanos 0"),
        (Timestamp(seconds=253_402_300_800), "seconds 253402300800, nanos 0"),
        (Timestamp(nanos=-1), "seconds 0, nanos -1"),
        (Timestamp(nanos=10**9), "seconds 0, nanos 1000000000"),
        (Duration(seconds=315_576_000_001), "seconds 315576000001, nanos 0"),
        (Duration(seconds=5, nanos=-6), "seconds 5, nanos -6"),
        (Duration(seconds=-5, nanos=6), "seconds -5, nanos 6"),
        (Duration(nanos=2 * 10**9), "seconds 0, nanos 2000000000"),
    ],
)
def test_what_is_beyond_is_refused_with_its_value(value: Timestamp | Duration, shown: str) -> None:
    rule = broken_rule(value)
    assert rule is not None
    assert rule.startswith("must be ")
    assert rule.endswith(f", not {shown}")
