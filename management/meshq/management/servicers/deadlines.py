"""For how long calls go on, by the deadlines of their callers."""

from __future__ import annotations

from typing import Any, Final

import grpc

_MOST_SECONDS: Final = 30.0
_PART: Final = 0.7
"""How much of a deadline is used; the last page may take longer than the others."""
_MARGIN: Final = 0.5
"""What is left of a deadline for the answer, in seconds."""


def seconds_for_many(context: grpc.aio.ServicerContext[Any, Any]) -> float:
    """For how long a call over many tasks goes on before it answers that it is not complete."""
    left = context.time_remaining()
    return _MOST_SECONDS if left is None else min(left * _PART, _MOST_SECONDS)


def seconds_to_end(context: grpc.aio.ServicerContext[Any, Any]) -> float:
    """For how long a call waits for the end of a task."""
    left = context.time_remaining()
    return _MOST_SECONDS if left is None else max(left - _MARGIN, 0.0)
