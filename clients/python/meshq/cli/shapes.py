"""The JSON that `--json` prints. The shapes are stable: keys are only added. See `docs/cli.md`."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imports grpc
    from meshq.client import models

Shape = dict[str, Any]

_INPUT = ("payload", "data", "content_type", "headers")
_OUTPUT = ("result", "result_data", "result_content_type")


def task(item: models.Task, *, full: bool) -> Shape:
    """A task. With `full`, also its input, headers and output, as far as there are any."""
    shape = {name: plain(value) for name, value in fields(item).items() if name not in _INPUT + _OUTPUT}
    if full:
        shape |= _input(item) | _output(item)
    return shape


def _input(item: models.Task) -> Shape:
    shape: Shape = {"headers": dict(item.headers)}
    if item.data is not None:
        return shape | {"data": base64_text(item.data), "content_type": item.content_type}
    # UNSET, the absence of a payload, is not JSON; null is.
    return shape if isinstance(item.payload, enum.Enum) else shape | {"payload": item.payload}


def _output(item: models.Task) -> Shape:
    if item.result_data is not None:
        return {
            "result_data": base64_text(item.result_data),
            "result_content_type": item.result_content_type,
        }
    return {"result": item.result} if item.succeeded else {}


def event(item: models.TaskEvent, *, full: bool = False) -> Shape:
    """An event of a watch: its kind, and what happened under that name."""
    kind = type(item).__name__.removeprefix("Task").lower() or "task"
    if kind == "task":
        return {"event": kind, kind: task(item, full=full)}  # type: ignore[arg-type]
    if kind == "output":
        return {"event": kind, kind: _task_output(item)}  # type: ignore[arg-type]
    return {"event": kind, kind: record(item)}


def _task_output(item: models.TaskOutput) -> Shape:
    shape: Shape = {"attempt": item.attempt, "offset": item.offset, "stream": item.stream}
    try:
        return shape | {"text": item.chunk.decode()}
    except UnicodeDecodeError:
        return shape | {"data": base64_text(item.chunk)}


def record(item: Any) -> Shape:
    """A queue, worker, service, instance or shard: its fields under their names."""
    return {name: plain(value) for name, value in fields(item).items()}


def fields(item: Any) -> dict[str, Any]:
    """The fields of a dataclass, not yet in their JSON form."""
    return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}


def plain(value: Any) -> Any:
    """The JSON form of a value: times of RFC 3339 in UTC, spans in seconds, names of enums."""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if dataclasses.is_dataclass(value):
        return plain(fields(value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value


def base64_text(data: bytes) -> str:
    """Bytes as JSON has them."""
    return base64.b64encode(data).decode()
