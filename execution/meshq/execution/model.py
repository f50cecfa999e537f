"""What execution talks about, free of storage and wire formats. Ids are 16 raw bytes, times milliseconds.

They are tuples because thousands of them pass each second.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Outcome(enum.IntEnum):
    """How an attempt ended; the numbers of `meshq.v1.AttemptOutcome`."""

    SUCCEEDED = 1
    FAILED = 2
    CANCELLED = 3
    LOST = 4
    TIMED_OUT = 5
    SNOOZED = 6


class Status(enum.IntEnum):
    """What became of a reported result; the numbers of `meshq.v1.ResultStatus`."""

    ACCEPTED = 1
    LEASE_LOST = 2
    TRY_LATER = 3


class Action(enum.IntEnum):
    """What is to be done after a report; the numbers of `meshq.internal.v1.DirectiveKind`."""

    DONE = 1
    RUN = 2
    GONE = 3
    KEEP = 4
    LATER = 5


class Compared(enum.IntEnum):
    """What the shards know of an attempt; the numbers of `meshq.internal.v1.ComparedState`."""

    PRESENT = 1
    MISSING = 2
    UNCERTAIN = 3


class Withdrawn(enum.IntEnum):
    """What a withdrawal found; the numbers of `meshq.internal.v1.WithdrawnState`."""

    REMOVED = 1
    LEASED = 2
    UNKNOWN = 3
    UNCERTAIN = 4
    ENDED = 5


class Rejected(enum.IntEnum):
    """Why an item was not queued; the numbers of `meshq.internal.v1.RejectReason`."""

    SHARD_UNAVAILABLE = 1
    SHARD_FULL = 2
    SHARD_RECOVERING = 3
    ATTEMPTS_UNAVAILABLE = 4


class Lease(NamedTuple):
    """One task at one worker, as a lease token says it.

    Attributes:
        epoch: The epoch of the shard that made the lease; no two shards share one.
        number: Counts the leases of an epoch.
        leased_ms: When it was made, by the shard's clock.
    """

    task_id: bytes
    attempt: int
    epoch: int
    number: int
    shard: str
    tenant: str
    leased_ms: int

    @property
    def label(self) -> str:
        """How shards write it."""
        return f"{self.epoch}:{self.number}"


class QueueItem(NamedTuple):
    """An attempt that is to be queued.

    Attributes:
        lane: `tenant/queue/type/fairness key`.
        routing_key: What the ring hashes.
        spec: The encoded specification.
    """

    task_id: bytes
    attempt: int
    lane: str
    ready_ms: int
    priority: int
    repeat: bool
    routing_key: bytes
    spec: bytes


class Ended(NamedTuple):
    """The end of an attempt, as it is recorded.

    Attributes:
        epoch: With `number`, the lease under which it ended.
        success: The encoded `meshq.v1.Success` if it succeeded.
        error: The encoded `meshq.v1.TaskError` if it failed.
        error_type: For the ledger.
        error_message: For the ledger, cut.
        shard: The shard that holds the lease; empty when that is not known.
        retry_ms: The delay before the next attempt that the worker asked for, if it did.
        non_retryable: Whether the worker said that another attempt is useless.
    """

    task_id: bytes
    attempt: int
    tenant: str
    outcome: int
    epoch: int
    number: int
    worker_id: str
    start_ms: int
    end_ms: int
    success: bytes | None
    error: bytes | None
    error_type: str
    error_message: str
    shard: str
    retry_ms: int | None = None
    non_retryable: bool = False


class Directive(NamedTuple):
    """What the ledger wants done with a task.

    Attributes:
        attempt: With RUN: the attempt that is to be made.
        not_before_ms: With RUN.
    """

    action: int
    attempt: int
    not_before_ms: int


class Over(NamedTuple):
    """A lease that has ended without an answer that the shard knows of.

    Attributes:
        returning: Whether its delivery was never acknowledged, so that the task goes back.
    """

    lease: Lease
    worker_id: str
    returning: bool


class Depth(NamedTuple):
    """What a shard holds of a queue; `oldest_ms` is 0 when nothing is ready."""

    ready: int
    delayed: int
    leased: int
    oldest_ms: int


def class_of(lane: str) -> str:
    """`tenant/queue/type` of a lane."""
    return "/".join(lane.split("/", 3)[:3])
