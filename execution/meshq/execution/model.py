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


class Waiting(enum.IntEnum):
    """What an open task waits for; the numbers of `meshq.v1.WaitingReason` that execution gives."""

    UNSPECIFIED = 0
    IN_LINE = 1
    NOT_DUE = 2
    QUEUE_PAUSED = 4
    NO_WORKER = 5
    QUEUE_LIMIT = 6
    KEY_BUSY = 7
    RATE_LIMIT = 8
    SHARD_RECOVERING = 9
    DISPATCHING = 10


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


def nobodys_lease(task_id: bytes, attempt: int, tenant: str, now_ms: int) -> Lease:
    """The lease of an attempt of which nobody knows any more who had it."""
    return Lease(task_id, attempt, 0, 0, "", tenant, now_ms)


class Traits(NamedTuple):
    """What is special about a task, as far as shards and sessions have to know it.

    Attributes:
        limit_key: What the limits per key of its queue count; empty without them.
        rate_units: Tokens that a start takes.
        fairness_weight: How much its fairness key gets compared with others.
        start_by_ms: When the task must have been leased for the first time; 0 for no limit.
        start_to_close_ms: How long a lease may last; 0 for no limit.
        heartbeat_ms: How long a lease may go without a beat; 0 for no limit.
        announce: Whether the ledger must know of the start before the worker gets the task.
    """

    limit_key: str = ""
    rate_units: int = 1
    fairness_weight: float = 1.0
    start_by_ms: int = 0
    start_to_close_ms: int = 0
    heartbeat_ms: int = 0
    announce: bool = False


class QueueItem(NamedTuple):
    """An attempt that is to be queued.

    Attributes:
        lane: `tenant/queue/type/fairness key`.
        spec: The encoded specification.
        traits: What is special about the task; None for most.
        started: Whether the ledger knows that the attempt was started, so that it must not be queued again.
    """

    task_id: bytes
    attempt: int
    lane: str
    ready_ms: int
    priority: int
    repeat: bool
    spec: bytes
    traits: Traits | None = None
    started: bool = False


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
    """A lease (or a wait) that has ended without an answer that the shard knows of.

    Attributes:
        lease: The lease. With `start_by` there was none: its number is 0.
        kind: `lost`: its session or poll was silent too long. `returning`: its delivery was never
            acknowledged, so that the task goes back. `start_by`, `start_to_close`, `heartbeat`,
            `finish_later`: that time has passed. `grace`: a cancellation was not confirmed in time.
    """

    lease: Lease
    worker_id: str
    kind: str

    @property
    def returning(self) -> bool:
        """Whether the task goes back unless its attempt has ended after all."""
        return self.kind == "returning"


class Bucket(NamedTuple):
    """A rate limit: `units` tokens per `period_ms`, at most `burst`; no limit when `units` is 0."""

    units: int = 0
    period_ms: int = 0
    burst: int = 0


class Spread(enum.IntEnum):
    """How the limits per key of a queue are spread over the shards; scripts know the numbers.

    A shard on which they begin is UNCOUNTED, and leases nothing of the queue, until somebody says COUNTED.
    """

    NONE = 0
    UNCOUNTED = 1
    COUNTED = 2


class ShardQueueConfig(NamedTuple):
    """What a shard has to know of a queue.

    Attributes:
        scope: `tenant/queue`.
        version: Of the settings. A lower one than the shard knows changes nothing.
        paused: Whether nothing of it is leased.
        max_running: Leases at a time; 0 for no limit.
        max_running_per_key: The same for each limit key.
        rate: Starts.
        rate_per_key: The same for each limit key.
        away: Whether the queue lives on another shard: nothing of it is leased or queued here.
        hold: Whether nothing is leased until it is known what other shards have leased.
        foreign: How many leases of it other shards still have.
        foreign_keys: How many of these each limit key has.
        spread: Whether each shard counts the keys whose slots it has, and whether `foreign` and
            `foreign_keys` are what other shards have leased of these. UNCOUNTED leaves them as they are.
    """

    scope: str
    version: int
    paused: bool = False
    max_running: int = 0
    max_running_per_key: int = 0
    rate: Bucket = Bucket()
    rate_per_key: Bucket = Bucket()
    away: bool = False
    hold: bool = False
    foreign: int = 0
    foreign_keys: tuple[tuple[str, int], ...] = ()
    spread: Spread = Spread.NONE

    @property
    def keyed(self) -> bool:
        """Whether limit keys are counted."""
        return self.max_running_per_key > 0 or self.rate_per_key.units > 0

    @property
    def limited(self) -> bool:
        """Whether there is a limit of any kind."""
        return self.max_running > 0 or self.rate.units > 0 or self.keyed


class Explained(NamedTuple):
    """What a shard knows of a task.

    Attributes:
        state: `none` when it has none, `leased`, `delayed`, `ready` or `parked` (ready, and out of its lane
            until its limit key is free).
        why: What a waiting task waits for: `not_due`, `recovering`, `paused`, `moving`, `limit`, `rate`,
            `key`, `key_rate`, or `line` when nothing but others before it is in the way.
        due_ms: With `not_due` when it is due; with `rate` and `key_rate` when there will be tokens.
        limit: With `limit` and `key` the number of leases, with the rates the tokens per period.
        in_use: With `limit` and `key`: how many leases there are.
        ahead: How many tasks stand before it in its lane.
    """

    state: str
    why: str = ""
    due_ms: int = 0
    limit: int = 0
    in_use: int = 0
    ahead: int = 0


class Checkpoint(NamedTuple):
    """Where the next attempt of a task can go on; `content` is an encoded `google.protobuf.Value`."""

    task_id: bytes
    attempt: int
    time_ms: int
    content: bytes


class Deferral(NamedTuple):
    """A lease whose task somebody else will complete.

    Attributes:
        lane: As far as it is known.
        extras: What the shard keeps of the task's traits.
        timeout_ms: How long that may take.
    """

    lease: Lease
    worker_id: str
    lane: str
    extras: bytes
    timeout_ms: int


class Depth(NamedTuple):
    """What a shard holds of a queue; `oldest_ms` is 0 when nothing is ready."""

    ready: int
    delayed: int
    leased: int
    oldest_ms: int


def unknown_lane(tenant: str, queue: str = "-") -> str:
    """The lane of a lease of which not all is known; no queue and no type can be called so."""
    return f"{tenant}/{queue}/-/"


def scope_of(lane: str) -> str:
    """`tenant/queue` of a lane."""
    return lane[: lane.index("/", lane.index("/") + 1)]
