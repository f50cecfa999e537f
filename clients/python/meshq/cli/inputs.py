"""What people write on the command line, read into values; pure but for reading files and stdin."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer

from meshq.contract import limits

if TYPE_CHECKING:  # imports grpc
    from meshq.client.models import TaskState
    from meshq.client.values import JsonValue

Parsed = TypeVar("Parsed")

STDIN = "-"
_AGO = re.compile(r"(\d{1,9})([smhd])")
_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SPAN_PART = r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)"
_SPAN = re.compile(f"(?:{_SPAN_PART})+|0")
_RATE = re.compile(r"(\d{1,9})/(\S+)")


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


def parse_pairs(entries: Iterable[str], what: str) -> dict[str, str]:
    """What `key=value` entries say, such as headers or labels; each key once."""
    pairs: dict[str, str] = {}
    for entry in entries:
        key, separator, value = entry.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{what} is written key=value, not {entry!r}")
        if key in pairs:
            raise typer.BadParameter(f"{what} is given twice: {key}={pairs[key]} and {entry}")
        pairs[key] = value
    return pairs


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


def parse_moment(text: str) -> dt.datetime:
    """A date and time of ISO 8601; one without a zone is of the local zone."""
    try:
        time = dt.datetime.fromisoformat(text)
        return time if time.tzinfo else time.astimezone()
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no time; write one such as 2026-01-31T12:00:00Z") from None


def parse_span(text: str) -> dt.timedelta:
    """A length of time: `500ms`, `10s`, `5m`, `2h`, `7d`, or several of these as in `1h30m`."""
    if not _SPAN.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no length of time; write one such as 500ms, 10s, 5m, 2h or 7d")
    try:
        return sum(
            (dt.timedelta(**{_UNITS[unit]: float(count)}) for count, unit in re.findall(_SPAN_PART, text)),
            dt.timedelta(),
        )
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is too long") from None


def parse_rate(text: str) -> tuple[int, dt.timedelta]:
    """Units and the period in which so many flow: `100/s`, `5/10s`, `1000/h`."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no rate; write one such as 100/s, 5/10s or 1000/h")
    period = match[2] if match[2][0].isdigit() else f"1{match[2]}"
    return int(match[1]), parse_span(period)


def parse_number(text: str) -> int:
    """A whole number; commas and underscores between digits are allowed."""
    try:
        return int(text.replace(",", ""))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no whole number") from None


def parse_days(text: str) -> int:
    """A number of days: `7` or `7d`."""
    return parse_number(text.removesuffix("d"))


def bytes_of_base64(text: str) -> bytes:
    """Bytes as JSON has them."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise typer.BadParameter(f"{text[:60]!r} is no base64") from None


NONE = "none"
"""What takes a setting back."""


def or_none(parse: Callable[[str], Parsed]) -> Callable[[str], Parsed | str]:
    """A parser that also takes `none`, which stays as it is."""

    def parse_or_none(text: str) -> Parsed | str:
        return NONE if text.lower() == NONE else parse(text)

    parse_or_none.__name__ = parse.__name__
    return parse_or_none
