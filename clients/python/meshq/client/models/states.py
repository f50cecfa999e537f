"""The names of the contract as Python enums, without their prefixes."""

from __future__ import annotations

import enum


class TaskState(enum.StrEnum):
    """Where a task stands."""

    UNSPECIFIED = "UNSPECIFIED"
    WAITING = "WAITING"
    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"

    @property
    def terminal(self) -> bool:
        """Whether the state never changes again."""
        return self in _TERMINAL


_TERMINAL = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED})


class TaskView(enum.StrEnum):
    """How much of a task is returned: `BASIC` has no input, headers and output, `RESULT` has the output."""

    BASIC = "BASIC"
    FULL = "FULL"
    RESULT = "RESULT"


class AttemptOutcome(enum.StrEnum):
    """How one attempt ended."""

    UNSPECIFIED = "UNSPECIFIED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    LOST = "LOST"
    TIMED_OUT = "TIMED_OUT"
    SNOOZED = "SNOOZED"


class WaitingReason(enum.StrEnum):
    """What an open task waits for."""

    UNSPECIFIED = "UNSPECIFIED"
    IN_LINE = "IN_LINE"
    NOT_DUE = "NOT_DUE"
    PREDECESSOR = "PREDECESSOR"
    QUEUE_PAUSED = "QUEUE_PAUSED"
    NO_WORKER = "NO_WORKER"
    QUEUE_LIMIT = "QUEUE_LIMIT"
    KEY_BUSY = "KEY_BUSY"
    RATE_LIMIT = "RATE_LIMIT"
    SHARD_RECOVERING = "SHARD_RECOVERING"
    DISPATCHING = "DISPATCHING"


class UniqueScope(enum.StrEnum):
    """For how long a task holds its unique_key."""

    UNSPECIFIED = "UNSPECIFIED"
    UNTIL_STARTED = "UNTIL_STARTED"
    UNTIL_FINISHED = "UNTIL_FINISHED"
    WINDOW = "WINDOW"


class UniquePolicy(enum.StrEnum):
    """What becomes of a new task whose unique_key is held by another one."""

    UNSPECIFIED = "UNSPECIFIED"
    RETURN_EXISTING = "RETURN_EXISTING"
    REJECT = "REJECT"
    REPLACE = "REPLACE"


class WorkerMode(enum.StrEnum):
    """How a worker gets its tasks."""

    UNSPECIFIED = "UNSPECIFIED"
    SESSION = "SESSION"
    POLL = "POLL"


class WorkerState(enum.StrEnum):
    """Whether a worker takes tasks."""

    UNSPECIFIED = "UNSPECIFIED"
    ACTIVE = "ACTIVE"
    DRAINING = "DRAINING"


class InstanceState(enum.StrEnum):
    """Whether an instance takes traffic; a STALE one lost its registration without a goodbye."""

    UNSPECIFIED = "UNSPECIFIED"
    ACTIVE = "ACTIVE"
    STALE = "STALE"


class ShardState(enum.StrEnum):
    """How a shard takes part in the ring."""

    UNSPECIFIED = "UNSPECIFIED"
    ACTIVE = "ACTIVE"
    DRAINING = "DRAINING"
    RECOVERING = "RECOVERING"
    UNREACHABLE = "UNREACHABLE"
    OUT = "OUT"
