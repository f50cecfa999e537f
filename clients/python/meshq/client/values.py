"""JSON values as plain Python, and as `google.protobuf.Value`.

| JSON | Python to `Value` | `Value` to Python |
|---|---|---|
| null, true, false, string | `None`, `bool`, `str` | the same |
| number | `int`, `float` | `int` if it is integral and at most 2**53, else `float` |
| array | `list`, `tuple` | `list` |
| object | any mapping with string keys | `dict` |

A `Value` holds every number as a double, so `2.0` comes back as `2`. What a double or JSON cannot hold
is refused and never rounded: larger integers, NaN and the infinities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from google.protobuf import struct_pb2

JsonValue: TypeAlias = "str | int | float | bool | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""What may be given as a JSON value."""

MAX_EXACT_INTEGER: Final = 2**53
"""The largest integer up to which a double holds each one."""

MAX_DEPTH: Final = 30
"""How deep arrays and objects may nest. Parsers of protobuf stop at 100 nested messages; each object
takes three of them and the frame around the value a few more."""


class NotJson(ValueError):
    """Something in a value has no JSON form.

    Attributes:
        path: Where in the value, such as `.rows[3]`; empty for the value itself.
        rule: What would be right there.
    """

    def __init__(self, path: str, rule: str) -> None:
        super().__init__(f"{path or 'value'}: {rule}")
        self.path = path
        self.rule = rule


def to_value(value: object) -> struct_pb2.Value:
    """The message for a JSON value.

    Raises:
        NotJson: The value, or something in it, has no JSON form.
    """
    message = struct_pb2.Value()
    fill_value(message, value)
    return message


def fill_value(message: struct_pb2.Value, value: object) -> None:
    """Write a JSON value into an empty message, which saves a copy.

    Raises:
        NotJson: The value, or something in it, has no JSON form.
    """
    _fill(message, value, (), 0)


def from_value(message: struct_pb2.Value) -> JsonValue:
    """The JSON value in a message; an empty message is null."""
    kind = message.WhichOneof("kind")
    if kind == "string_value":
        return message.string_value
    if kind == "number_value":
        return _number(message.number_value)
    if kind == "struct_value":
        return {key: from_value(item) for key, item in message.struct_value.fields.items()}
    if kind == "list_value":
        return [from_value(item) for item in message.list_value.values]
    return message.bool_value if kind == "bool_value" else None


def _number(number: float) -> int | float:
    if number.is_integer() and -MAX_EXACT_INTEGER <= number <= MAX_EXACT_INTEGER:
        return int(number)
    return number


_Path: TypeAlias = "tuple[str | int, ...]"


def _fill(message: struct_pb2.Value, value: object, path: _Path, depth: int) -> None:
    if isinstance(value, str):
        _fill_string(message, value, path)
    elif value is None:
        message.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, (int, float)):
        message.number_value = _checked_number(value, path)
    elif isinstance(value, Mapping):
        _fill_object(message, value, path, _deeper(depth, path))
    elif isinstance(value, (list, tuple)):
        _fill_array(message, value, path, _deeper(depth, path))
    else:
        raise NotJson(_text(path), f"must be a JSON value, not {type(value).__name__}")


def _fill_string(message: struct_pb2.Value, value: str, path: _Path) -> None:
    try:
        message.string_value = value
    except UnicodeEncodeError:
        raise NotJson(_text(path), "must be valid Unicode, without lone surrogates") from None


def _fill_object(message: struct_pb2.Value, value: Mapping[object, object], path: _Path, depth: int) -> None:
    message.struct_value.SetInParent()
    fields = message.struct_value.fields
    for key, item in value.items():
        if not isinstance(key, str):
            raise NotJson(_text(path), f"must have strings as keys, not {type(key).__name__}")
        _fill(fields[key], item, (*path, key), depth)


def _fill_array(message: struct_pb2.Value, value: Sequence[object], path: _Path, depth: int) -> None:
    message.list_value.SetInParent()
    add = message.list_value.values.add
    for index, item in enumerate(value):
        if type(item) is float and math.isfinite(item):
            add(number_value=item)  # the usual content of long arrays
        else:
            _fill(add(), item, (*path, index), depth)


def _checked_number(value: float, path: _Path) -> float:
    if isinstance(value, int):
        if -MAX_EXACT_INTEGER <= value <= MAX_EXACT_INTEGER:
            return value
        raise NotJson(_text(path), "must be an integer of at most 2**53; send larger ones as strings")
    if math.isfinite(value):
        return value
    raise NotJson(_text(path), f"must be a finite number, not {value}")


def _deeper(depth: int, path: _Path) -> int:
    if depth >= MAX_DEPTH:
        raise NotJson(_text(path[:3]), f"must not nest more than {MAX_DEPTH} deep")
    return depth + 1


def _text(path: _Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
