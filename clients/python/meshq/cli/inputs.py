"""What people write on the command line, read into values; pure but for reading files and stdin."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from meshq.contract import limits

if TYPE_CHECKING:  # imports grpc
    from meshq.client.models import TaskState
    from meshq.client.values import JsonValue

STDIN = "-"
_AGO = re.compile(r"(\d{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def is_task_id(text: str) -> bool:
    """Whether the text is an id rather than a task type."""
    from meshq.contract.errors import InvalidRequest  # noqa: PLC0415  (grpc)
    from meshq.contract.ids import parse_task_id  # noqa: PLC0415

    try:
        parse_task_id(text)
    except InvalidRequest:
        return False
    return True


def parse_payload(text: str, *, as_string: bool = False) -> JsonValue:
    """The payload that a text stands for: JSON if it is JSON, else the text itself.

    Args:
        text: What was written.
        as_string: Take the text as it is, also when it looks like JSON.
    """
    if as_string:
        return text
    try:
        value: JsonValue = json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text
    except RecursionError:
        raise typer.BadParameter("the payload nests too deep") from None
    return value


def _no_constant(name: str) -> NoReturn:
    # Python reads NaN and the infinities; JSON has none, so they are text.
    raise ValueError(name)


def read_text(source: str) -> str:
    """The text of a file, or of standard input for `-`."""
    try:
        return read_bytes(source).decode()
    except UnicodeDecodeError:
        raise typer.BadParameter(
            f"{shown(source)} is not text in UTF-8; send bytes with --data-file and --content-type"
        ) from None


def read_bytes(source: str) -> bytes:
    """The bytes of a file, or of standard input for `-`, as far as they could be sent at all."""
    most = limits.MAX_MESSAGE_BYTES
    try:
        if source == STDIN:
            content = sys.stdin.buffer.read(most + 1)
        else:
            with Path(source).open("rb") as file:
                content = file.read(most + 1)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {source}: {(error.strerror or str(error)).lower()}") from None
    if len(content) > most:
        limit = limits.MAX_PAYLOAD_BYTES // limits.MIB
        raise typer.BadParameter(f"{shown(source)} is too large; an input has at most {limit} MiB")
    return content


def shown(source: str) -> str:
    """The name of an input for people."""
    return "standard input" if source == STDIN else source


def parse_headers(entries: Iterable[str], what: str = "a header") -> dict[str, str]:
    """The headers, or labels, of `key=value` entries."""
    headers: dict[str, str] = {}
    for entry in entries:
        key, separator, value = entry.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{what} is written key=value, not {entry!r}")
        headers[key] = value
    return headers


def parse_states(names: Iterable[str]) -> list[TaskState]:
    """The states that were named, in any case."""
    from meshq.client.models import TaskState  # noqa: PLC0415  (grpc)

    choices = [state.value for state in TaskState if state is not TaskState.UNSPECIFIED]
    states = []
    for name in names:
        if name.upper() not in choices:
            raise typer.BadParameter(f"{name!r} is no state; there are {', '.join(choices)}")
        states.append(TaskState(name.upper()))
    return states


def parse_time(text: str | None, now: dt.datetime) -> dt.datetime | None:
    """A time: `10m` for ten minutes before now, or a date and time of ISO 8601.

    A time without a zone is one of the local zone.
    """
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return now - dt.timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        time = dt.datetime.fromisoformat(text)
        return time if time.tzinfo else time.astimezone()
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time; write one such as 2026-01-31T12:00:00Z, or 10m for ten minutes ago"
        ) from None
