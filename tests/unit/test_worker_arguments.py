"""From a task's input to the arguments of its handler."""

import dataclasses
import datetime as dt
from typing import Annotated, Any

import pydantic
import pytest
from typing_extensions import TypedDict

from meshq.client.values import fill_value
from meshq.v1.task_pb2 import Task
from meshq.worker import InvalidInput, TaskContext
from meshq.worker.arguments import Arguments

NOTHING = object()


def task(payload: Any = NOTHING, data: bytes | None = None, content_type: str = "") -> Task:
    message = Task(content_type=content_type)
    if payload is not NOTHING:
        fill_value(message.payload, payload)
    if data is not None:
        message.data = data
    return message


def bound(function: Any, message: Task) -> dict[str, Any]:
    args, keywords = Arguments(function).bind(message)
    assert args == ()
    return keywords


def words(text: str) -> None: ...
def scaled(numbers: list[float], factor: int = 2) -> None: ...
def pair(a: int, b: int) -> None: ...
def anything(value: Any) -> None: ...
def mapping(options: dict[str, int]) -> None: ...
def nothing() -> None: ...
def open_ended(a: int, **rest: str) -> None: ...
def with_context(context: TaskContext, text: str) -> None: ...
def raw(data: bytes) -> None: ...
def when(time: dt.datetime, count: Annotated[int, pydantic.Field(ge=1)] = 1) -> None: ...


class Point(pydantic.BaseModel):
    x: int
    y: int = 0


@dataclasses.dataclass
class Size:
    width: int


class Options(TypedDict):
    deep: bool


def model(point: Point) -> None: ...
def record(size: Size) -> None: ...
def typed(options: Options) -> None: ...


@pytest.mark.parametrize(
    ("function", "message", "keywords"),
    [
        (words, task("a b"), {"text": "a b"}),
        (words, task({"text": "a b"}), {"text": "a b"}),
        (scaled, task([1, 2.5]), {"numbers": [1.0, 2.5]}),
        (scaled, task({"numbers": [1], "factor": 3}), {"numbers": [1.0], "factor": 3}),
        (pair, task({"a": 1, "b": 2}), {"a": 1, "b": 2}),
        (anything, task({"a": 1}), {"value": {"a": 1}}),
        (anything, task(None), {"value": None}),
        (mapping, task({"a": 1}), {"options": {"a": 1}}),
        (nothing, task(), {}),
        (nothing, task({}), {}),
        (nothing, task(None), {}),
        (open_ended, task({"a": 1, "b": "x"}), {"a": 1, "b": "x"}),
        (model, task({"x": 1}), {"point": Point(x=1)}),
        (record, task({"width": 2}), {"size": Size(2)}),
        (typed, task({"deep": True}), {"options": {"deep": True}}),
        (raw, task(data=b"\x00\xff"), {"data": b"\x00\xff"}),
        (
            pair,
            task(data=b'{"a": 1, "b": 2}', content_type="application/json; charset=utf-8"),
            {"a": 1, "b": 2},
        ),
        (when, task("2026-01-02T03:04:05Z"), {"time": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)}),
    ],
)
def test_inputs_become_arguments(function: Any, message: Any, keywords: Any) -> None:
    assert bound(function, message) == keywords


@pytest.mark.parametrize(
    ("function", "message", "named"),
    [
        (words, task({"txt": "a"}), "txt: is not an argument; there are text; text: is required"),
        (words, task(), "text: is required"),
        (words, task(5), "text: input should be a valid string, not 5"),
        (scaled, task([1, "x"]), r"numbers\[1\]: input should be a valid number.*'x'"),
        (pair, task("a"), "payload: must be an object with a, b, not 'a'"),
        (pair, task({"a": 1.5, "b": 2}), "a: input should be a valid integer"),
        (nothing, task("a"), "payload: must be absent or an empty object, not 'a'"),
        (pair, task(None), "a: is required; b: is required"),
        (model, task({"y": 1}), r"point\.x: field required"),
        (
            when,
            task({"time": "2026-01-02T03:04:05Z", "count": 0}),
            "count: input should be greater than or equal to 1",
        ),
        (pair, task(data=b"{", content_type="application/json"), "data: must be JSON"),
    ],
)
def test_what_does_not_fit_is_named(function: Any, message: Any, named: Any) -> None:
    with pytest.raises(InvalidInput, match=named) as caught:
        bound(function, message)
    assert caught.value.type == "INVALID_INPUT"


def test_the_context_is_no_argument() -> None:
    arguments = Arguments(with_context)
    assert arguments.context == "context"
    assert arguments.bind(task("a")) == ((), {"text": "a"})
    with pytest.raises(InvalidInput, match="context: is not an argument"):
        arguments.bind(task({"text": "a", "context": 1}))


def test_positional_parameters_are_refused() -> None:
    def handler(a: Any, /) -> None: ...

    with pytest.raises(TypeError, match="must take a keyword"):
        Arguments(handler)


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(InvalidInput) as caught:
        bound(pair, task({"a": "x" * 1_000, "b": 1}))
    assert len(caught.value.message) < 200
