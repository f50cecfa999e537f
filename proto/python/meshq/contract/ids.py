"""Task ids: UUIDv7, so that ids sort by creation and a time filter is a range of ids.

The lowest three of an id's random bits say for how long its task is kept once it has ended, so that
whoever has an id knows that without being told. They are below the bits that make ids ascend.

A task is due from the time of its id on, so a process may say by which clock its ids are made.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Final

import uuid_utils

from meshq.contract.errors import InvalidRequest
from meshq.contract.limits import DEFAULT_RETENTION_DAYS, RETENTION_DAYS

ID_BYTES: Final = 16
_CANONICAL_LENGTH: Final = 36
_CANONICAL: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


DEFAULT_RETENTION: Final = RETENTION_DAYS.index(DEFAULT_RETENTION_DAYS)

_RETENTION_BITS: Final = len(RETENTION_DAYS) - 1
_LAST_BYTES: Final = [
    [bytes((byte & ~_RETENTION_BITS | retention,)) for byte in range(256)]
    for retention in range(len(RETENTION_DAYS))
]
"""The last byte of an id for each retention and each random byte."""

_TIME_BYTES: Final = 6
_APART_MS: Final = 1_000
"""By how much the clocks of the process and of its ids may differ before they are taken for different."""


class _Time:
    """By which clock ids are made: milliseconds since the epoch; that of the process without one."""

    now_ms: Callable[[], int] | None = None


def make_ids_by(now_ms: Callable[[], int] | None) -> None:
    """Let the ids of this process have the time of a clock, in milliseconds since the epoch."""
    _Time.now_ms = now_ms


def new_task_id(retention: int = DEFAULT_RETENTION) -> uuid.UUID:
    """A new id; ids made by one process ascend.

    Args:
        retention: For how long the task is kept: an index into `limits.RETENTION_DAYS`.
    """
    return uuid.UUID(bytes=new_id_bytes(retention))


def new_id_bytes(retention: int = DEFAULT_RETENTION) -> bytes:
    """The 16 bytes of a new id, for where many are made; see `new_task_id`."""
    made = uuid_utils.uuid7().bytes
    if _Time.now_ms is not None:
        # What makes ids never goes back with its clock, and would stay ahead for as long as that was wrong.
        now_ms = _Time.now_ms()
        if abs(int.from_bytes(made[:_TIME_BYTES]) - now_ms) > _APART_MS:
            made = now_ms.to_bytes(_TIME_BYTES) + made[_TIME_BYTES:]
    return made[:-1] + _LAST_BYTES[retention][made[-1]]


def id_retention_days(task_id: uuid.UUID) -> int:
    """For how many days a task is kept once it has ended, as its id says."""
    return RETENTION_DAYS[task_id.bytes[-1] & _RETENTION_BITS]


def parse_task_id(text: str, field: str = "task_id") -> uuid.UUID:
    """The id that a caller wrote.

    Args:
        text: The canonical text form, in either case.
        field: The path of the field in the request, for the error.

    Raises:
        InvalidRequest: The text is no UUID in its canonical form.
    """
    # The pattern, because uuid.UUID also takes braces, blanks, underscores and hyphens anywhere.
    if _CANONICAL.fullmatch(text):
        return uuid.UUID(text)
    shown = text if len(text) <= _CANONICAL_LENGTH else text[:_CANONICAL_LENGTH] + "..."
    raise InvalidRequest.field(field, f"must be a UUID in its canonical form, not {shown!r}")


def id_time_ms(task_id: uuid.UUID) -> int:
    """When the id was made, in milliseconds since the epoch."""
    return int.from_bytes(task_id.bytes[:6], "big")


def lowest_id(time_ms: int) -> uuid.UUID:
    """The bound below all ids made at or after a time.

    Args:
        time_ms: Milliseconds since the epoch; values outside of what an id can hold are clamped.
    """
    clamped = min(max(time_ms, 0), (1 << 48) - 1)
    return uuid.UUID(bytes=clamped.to_bytes(6, "big") + bytes(10))
