"""The lines of `meshq task bulk`, read into tasks."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import typer

from meshq.cli import inputs
from meshq.cli.errors import Trouble
from meshq.cli.exits import ExitCode

if TYPE_CHECKING:  # imports grpc
    from meshq.client.models import RetryPolicy, TaskSpec

_SPANS = (
    "start_delay",
    "unique_window",
    "schedule_to_start_timeout",
    "start_to_close_timeout",
    "schedule_to_close_timeout",
    "heartbeat_timeout",
)


class Lines:
    """The tasks of a file, one a line; empty lines are passed over.

    Attributes:
        trouble: What was wrong with a line, which ends the reading; what came before it is created.
    """

    def __init__(self, source: str, type_: str | None, defaults: dict[str, Any], *, as_string: bool) -> None:
        self.trouble: Trouble | None = None
        self._source = source
        self._type = type_
        self._defaults = defaults
        self._as_string = as_string
        self._numbers: list[int] = []

    def number_of(self, index: int) -> int:
        """The number of the line of a task, counted from 1."""
        return self._numbers[index]

    def specs(self) -> Iterator[TaskSpec]:
        """The tasks, up to the first line that is none."""
        number = 0
        file = self._open()
        try:
            with file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        spec = self._spec(line.rstrip("\r\n"))
                        self._numbers.append(number)
                        yield spec
        except (ValueError, TypeError, typer.BadParameter) as error:
            told = error.message if isinstance(error, typer.BadParameter) else str(error)
            self.trouble = Trouble(
                f"Line {number} of {inputs.shown(self._source)} is no task: {told}",
                ExitCode.USAGE,
                "what stands before it was sent",
            )

    def _open(self) -> IO[str]:
        if self._source == inputs.STDIN:
            return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8")
        try:
            return Path(self._source).open(encoding="utf-8")
        except OSError as error:
            raise typer.BadParameter(
                f"cannot read {self._source}: {(error.strerror or str(error)).lower()}"
            ) from None

    def _spec(self, line: str) -> TaskSpec:
        from meshq.client.models import TaskSpec  # noqa: PLC0415  (grpc)

        if self._type is not None:
            payload = inputs.parse_payload(line, as_string=self._as_string)
            return TaskSpec(**{**self._defaults, "type": self._type, "payload": payload})
        values = json.loads(line)
        if not isinstance(values, dict) or not isinstance(values.get("type"), str):
            raise ValueError("it must be a JSON object with a type")  # noqa: TRY004 - told as wrong input
        return TaskSpec(**{**self._defaults, **_read(values)})


def _read(values: dict[str, Any]) -> dict[str, Any]:
    from meshq.client.models import TaskSpec, UniquePolicy, UniqueScope  # noqa: PLC0415  (grpc)

    known = {item.name for item in dataclasses.fields(TaskSpec)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"it must not have {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    read = dict(values)
    for name in _SPANS:
        if read.get(name) is not None:
            read[name] = _span(read[name])
    if isinstance(read.get("start_time"), str):
        read["start_time"] = inputs.parse_moment(read["start_time"])
    if isinstance(read.get("data"), str):
        read["data"] = inputs.bytes_of_base64(read["data"])
    if read.get("retry") is not None:
        read["retry"] = _retry(read["retry"])
    for name, kind in (("unique_scope", UniqueScope), ("unique_policy", UniquePolicy)):
        if read.get(name) is not None:
            read[name] = kind(read[name])
    return read


def _retry(values: Any) -> RetryPolicy:
    from meshq.client.models import RetryPolicy  # noqa: PLC0415  (grpc)

    if not isinstance(values, dict):
        raise ValueError("retry must be an object")  # noqa: TRY004 - told as wrong input
    spans = {name: _span(values[name]) for name in ("initial_delay", "max_delay") if values.get(name)}
    return RetryPolicy(**{**values, **spans})


def _span(value: Any) -> Any:
    """Seconds as they are, or a text such as 10m."""
    return inputs.parse_span(value) if isinstance(value, str) else value
