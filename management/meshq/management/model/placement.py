"""What execution's shards may say of a task."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Compared(enum.IntEnum):
    """The numbers of `meshq.internal.v1.ComparedState`."""

    UNSPECIFIED = 0
    PRESENT = 1
    MISSING = 2
    UNCERTAIN = 3


class Withdrawn(enum.IntEnum):
    """The numbers of `meshq.internal.v1.WithdrawnState`."""

    UNSPECIFIED = 0
    REMOVED = 1
    LEASED = 2
    UNKNOWN = 3
    UNCERTAIN = 4
    ENDED = 5


class Depth(NamedTuple):
    """What the shards hold of a queue.

    Attributes:
        ready: Tasks that wait for a worker.
        delayed: Tasks that wait for their time.
        leased: Tasks at workers.
        oldest_ready_ms: When the oldest ready task became ready; 0 when there is none.
    """

    ready: int = 0
    delayed: int = 0
    leased: int = 0
    oldest_ready_ms: int = 0


OFF_THE_SHARDS = frozenset({Withdrawn.REMOVED, Withdrawn.UNKNOWN})
"""No worker has the task and none will get it: management ends it. Else its worker's outcome will be
reported, or the withdrawal is repeated."""
