"""Times and ids in both forms."""

from __future__ import annotations

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from meshq.management.model.task import TaskId

_MS: Final = 1_000
_NS_OF_MS: Final = 1_000_000


def timestamp(time_ms: int) -> Timestamp:
    """Milliseconds since the epoch as a message."""
    return Timestamp(seconds=time_ms // _MS, nanos=time_ms % _MS * _NS_OF_MS)


def set_time(time: Timestamp, time_ms: int) -> None:
    """Write milliseconds since the epoch into the field of a message, which saves a copy."""
    time.seconds = time_ms // _MS
    time.nanos = time_ms % _MS * _NS_OF_MS


def milliseconds(time: Timestamp) -> int:
    """A message as milliseconds since the epoch."""
    return time.seconds * _MS + time.nanos // _NS_OF_MS


def milliseconds_not_before(time: Timestamp) -> int:
    """The first millisecond since the epoch that begins no earlier."""
    return time.seconds * _MS - (-time.nanos // _NS_OF_MS)


def text_id(task_id: TaskId) -> str:
    """The canonical text form."""
    # As `str(uuid.UUID(bytes=task_id))`, without making one.
    digits = task_id.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
