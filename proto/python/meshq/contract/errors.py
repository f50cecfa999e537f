"""The errors of meshq, the same on both sides of the wire.

```text
MeshqError                   anything meshq answers with
├── InvalidRequest           INVALID_ARGUMENT: fields break their rules
├── NotFound                 NOT_FOUND
├── Conflict                 ALREADY_EXISTS
├── PreconditionFailed       FAILED_PRECONDITION
├── Overloaded               RESOURCE_EXHAUSTED; retry after a delay
├── Aborted                  ABORTED; begin again
├── Unavailable              UNAVAILABLE; retry
├── DeadlineExceeded         DEADLINE_EXCEEDED
├── CallCancelled            CANCELLED
├── Unimplemented            UNIMPLEMENTED
└── InternalError            INTERNAL, and whatever no table knows
```

One table says which reason goes with which class, code and message, so that a server raises
`NotFound(Reason.TASK_NOT_FOUND, ...)` and a client catches the same class. `meshq.contract.status`
carries them over the wire.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import grpc

DOMAIN: Final = "meshq"


class Reason(enum.StrEnum):
    """The values of `meshq.v1.ErrorReason` without their prefix."""

    INVALID_FIELD = "INVALID_FIELD"
    TASK_NOT_FOUND = "TASK_NOT_FOUND"
    QUEUE_NOT_FOUND = "QUEUE_NOT_FOUND"
    WORKER_NOT_FOUND = "WORKER_NOT_FOUND"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    TASK_NOT_ENDED = "TASK_NOT_ENDED"
    PROTOCOL_VERSION = "PROTOCOL_VERSION"
    HELLO_EXPECTED = "HELLO_EXPECTED"
    BACKLOG_FULL = "BACKLOG_FULL"
    OVERLOADED = "OVERLOADED"
    WATCH_TOO_SLOW = "WATCH_TOO_SLOW"
    SESSION_LOST = "SESSION_LOST"
    LEDGER_UNAVAILABLE = "LEDGER_UNAVAILABLE"
    ATTEMPTS_UNAVAILABLE = "ATTEMPTS_UNAVAILABLE"
    SHARD_UNAVAILABLE = "SHARD_UNAVAILABLE"
    COMPONENT_UNAVAILABLE = "COMPONENT_UNAVAILABLE"
    DRAINING = "DRAINING"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CALL_CANCELLED = "CALL_CANCELLED"
    METHOD_UNKNOWN = "METHOD_UNKNOWN"
    INTERNAL = "INTERNAL"
    TASK_STARTED = "TASK_STARTED"
    TASK_NOT_REDRIVABLE = "TASK_NOT_REDRIVABLE"
    UNIQUE_KEY_TAKEN = "UNIQUE_KEY_TAKEN"
    QUEUE_EXISTS = "QUEUE_EXISTS"
    QUEUE_DRAINING = "QUEUE_DRAINING"
    QUEUE_NOT_EMPTY = "QUEUE_NOT_EMPTY"
    QUEUE_FULL = "QUEUE_FULL"
    RESUME_LOST = "RESUME_LOST"
    SHARD_NOT_FOUND = "SHARD_NOT_FOUND"
    SHARD_EXISTS = "SHARD_EXISTS"
    SHARD_NOT_EMPTY = "SHARD_NOT_EMPTY"
    SHARD_UNUSABLE = "SHARD_UNUSABLE"
    LAST_SHARD = "LAST_SHARD"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One broken rule.

    Attributes:
        field: The path of the field in the request, such as `tasks[3].queue`.
        rule: What the field must be, with the value that it was.
    """

    field: str
    rule: str


_SHOWN: Final = 60


def shown(value: str) -> str:
    """A value as rules show it: quoted, and cut where it is long."""
    return repr(value[:_SHOWN]) + ("..." if len(value) > _SHOWN else "")


class MeshqError(Exception):
    """An error that meshq answers with.

    Attributes:
        message: What failed and what to do, for a person.
        reason: Why, for programs; None when the other side gave none.
        retry_delay: Seconds after which trying again makes sense; None when the server names none.
        metadata: What else is known, such as the `task_id`.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    default_reason: Reason = Reason.INTERNAL
    retryable: bool = False

    def __init__(
        self,
        message: str,
        reason: Reason | None = None,
        *,
        retry_delay: float | None = None,
        **metadata: str,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.retry_delay = retry_delay
        self.metadata = metadata


class InvalidRequest(MeshqError):
    """Fields break their rules.

    Attributes:
        violations: The broken rules, at least one.
    """

    code = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = Reason.INVALID_FIELD

    def __init__(
        self,
        violations: Sequence[FieldViolation] | str,
        reason: Reason | None = None,
        *,
        retry_delay: float | None = None,
        **metadata: str,
    ) -> None:
        self.violations = () if isinstance(violations, str) else tuple(violations)
        text = "; ".join(f"{item.field}: {item.rule}" for item in self.violations) or str(violations)
        super().__init__(text, reason, retry_delay=retry_delay, **metadata)

    @classmethod
    def field(cls, field: str, rule: str) -> InvalidRequest:
        """The error for a single field."""
        return cls([FieldViolation(field, rule)])


class NotFound(MeshqError):
    """There is no such thing."""

    code = grpc.StatusCode.NOT_FOUND
    default_reason = Reason.TASK_NOT_FOUND


class Conflict(MeshqError):
    """Something of that name exists already."""

    code = grpc.StatusCode.ALREADY_EXISTS
    default_reason = Reason.REQUEST_ID_REUSED


class PreconditionFailed(MeshqError):
    """The thing is not in a state that allows this."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = Reason.TASK_NOT_ENDED


class Overloaded(MeshqError):
    """There is too much to do; retry after `retry_delay`."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = Reason.OVERLOADED
    retryable = True


class Aborted(MeshqError):
    """The exchange cannot go on; begin it again."""

    code = grpc.StatusCode.ABORTED
    default_reason = Reason.WATCH_TOO_SLOW
    retryable = True


class Unavailable(MeshqError):
    """Something that is needed does not answer; retry."""

    code = grpc.StatusCode.UNAVAILABLE
    default_reason = Reason.COMPONENT_UNAVAILABLE
    retryable = True


class DeadlineExceeded(MeshqError):
    """The caller's deadline passed."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    default_reason = Reason.DEADLINE_EXCEEDED
    retryable = True


class CallCancelled(MeshqError):
    """The call was cancelled."""

    code = grpc.StatusCode.CANCELLED
    default_reason = Reason.CALL_CANCELLED


class Unimplemented(MeshqError):
    """There is no such method."""

    code = grpc.StatusCode.UNIMPLEMENTED
    default_reason = Reason.METHOD_UNKNOWN


class InternalError(MeshqError):
    """A fault of meshq; the server's log has it under the request id."""

    code = grpc.StatusCode.INTERNAL
    default_reason = Reason.INTERNAL


CLASS_OF_CODE: Final[dict[grpc.StatusCode, type[MeshqError]]] = {
    cls.code: cls
    for cls in (
        InvalidRequest,
        NotFound,
        Conflict,
        PreconditionFailed,
        Overloaded,
        Aborted,
        Unavailable,
        DeadlineExceeded,
        CallCancelled,
        Unimplemented,
        InternalError,
    )
}
"""The class that a client raises for a code; others become `MeshqError`."""
