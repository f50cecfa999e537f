"""JSON values on their way to protobuf and back."""

import math
from collections import OrderedDict
from typing import Any

import pytest
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from meshq.client.values import MAX_DEPTH, MAX_EXACT_INTEGER, NotJson, from_value, to_value
from meshq.v1.task_service_pb2 import CreateTaskRequest
from meshq.v1.worker_service_pb2 import ConnectResponse

numbers = st.integers(-MAX_EXACT_INTEGER, MAX_EXACT_INTEGER) | st.floats(
    allow_nan=False, allow_infinity=False
)
text = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_values_come_back_equal(value: Any) -> None:
    assert from_value(struct_pb2.Value.FromString(to_value(value).SerializeToString())) == value


@pytest.mark.parametrize(
    ("value", "back"),
    [
        (2.0, 2),
        (2, 2),
        (2.5, 2.5),
        (-0.0, 0),
        (1e300, 1e300),
        (MAX_EXACT_INTEGER, MAX_EXACT_INTEGER),
        (True, True),
    ],
)
def test_integral_numbers_come_back_as_integers(value: Any, back: Any) -> None:
    found = from_value(to_value(value))
    assert found == back
    assert type(found) is type(back)


@pytest.mark.parametrize(
    ("value", "back"), [((1, 2), [1, 2]), (OrderedDict(a=1), {"a": 1}), ([], []), ({}, {})]
)
def test_containers(value: Any, back: Any) -> None:
    assert from_value(to_value(value)) == back


@pytest.mark.parametrize(
    ("value", "path", "rule"),
    [
        ({1, 2}, "", "must be a JSON value, not set"),
        ({"rows": [1, b"x"]}, ".rows[1]", "must be a JSON value, not bytes"),
        ({1: "x"}, "", "strings as keys, not int"),
        ([math.nan], "[0]", "must be a finite number, not nan"),
        (-math.inf, "", "finite"),
        (MAX_EXACT_INTEGER + 1, "", "2**53"),
        ({"a": "\ud800"}, ".a", "Unicode"),
    ],
)
def test_what_is_no_json_is_refused_by_its_place(value: Any, path: str, rule: str) -> None:
    with pytest.raises(NotJson) as caught:
        to_value(value)
    assert caught.value.path == path
    assert rule in caught.value.rule


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def test_the_deepest_value_passes_every_frame() -> None:
    deepest = nested(MAX_DEPTH)
    request = CreateTaskRequest()
    request.task.payload.CopyFrom(to_value(deepest))
    again = CreateTaskRequest.FromString(request.SerializeToString())
    assert from_value(again.task.payload) == deepest
    frame = ConnectResponse()
    frame.assign.assignments.add().task.payload.CopyFrom(to_value(deepest))
    ConnectResponse.FromString(frame.SerializeToString())
    with pytest.raises(NotJson, match="must not nest more than 30 deep"):
        to_value(nested(MAX_DEPTH + 1))


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NotJson, match="nest"):
        to_value(loop)


def test_an_empty_message_is_null() -> None:
    assert from_value(struct_pb2.Value()) is None
