"""What handlers raise to say how a task goes on, and the error types that the worker itself reports.

```text
Ending                       may be raised or returned
├── TaskFailure              the attempt failed; the task's retry policy decides, unless told otherwise
│   ├── Retry                another attempt, after a time of the handler's choice
│   ├── NoRetry              no other attempt
│   └── InvalidInput         the input breaks a rule, which no other attempt would mend
├── Snooze                   call again later; costs no attempt
├── FinishLater              somebody else completes the task by its lease token
└── TaskCancelled            the handler stopped as it was asked to
```
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from meshq.contract.limits import MAX_ATTEMPT_SECONDS, MAX_SNOOZE_SECONDS, MIN_FINISH_LATER_SECONDS

UNKNOWN_TASK_TYPE: Final = "UNKNOWN_TASK_TYPE"
INVALID_INPUT: Final = "INVALID_INPUT"
INVALID_RESULT: Final = "INVALID_RESULT"
RESULT_TOO_LARGE: Final = "RESULT_TOO_LARGE"
PROCESS_DIED: Final = "PROCESS_DIED"


class Ending(Exception):
    """A way for a handler to end other than by a result or by an error of its own."""


class TaskFailure(Ending):
    """Ends an attempt as failed, with an error type of the handler's choice and without a traceback.

    Args:
        message: What went wrong, for a person.
        type: A short stable name that programs compare.
        retry_delay: When to try again, 0 s to 30 days from now, as seconds or a timedelta; by default
            what the task's retry policy says.
        retryable: Whether another attempt may help. Without one the task has failed.

    Raises:
        ValueError: The delay breaks its rule, or is given although no attempt is to follow.

    Attributes:
        type: As given.
        message: As given.
        retry_delay: In seconds, or None.
        retryable: As given.
    """

    def __init__(
        self,
        message: str,
        *,
        type: str = "TaskFailure",  # noqa: A002 - the field's name
        retry_delay: float | dt.timedelta | None = None,
        retryable: bool = True,
    ) -> None:
        super().__init__(message)
        if retry_delay is not None and not retryable:
            raise ValueError("retry_delay must not be given together with retryable=False")
        self.type = type
        self.message = message
        self.retry_delay = None if retry_delay is None else _retry_delay("retry_delay", retry_delay)
        self.retryable = retryable


class Retry(TaskFailure):
    """Ends an attempt as failed and asks for another one, if the task has attempts left.

    Args:
        after: When, 0 s to 30 days from now, as seconds or a timedelta; by default what the task's retry
            policy says.
        message: Why, for a person.
        type: A short stable name that programs compare.

    Raises:
        ValueError: The time breaks its rule.
    """

    def __init__(
        self,
        after: float | dt.timedelta | None = None,
        message: str = "the handler asked for another attempt",
        *,
        type: str = "Retry",  # noqa: A002 - the field's name
    ) -> None:
        delay = None if after is None else _retry_delay("after", after)
        super().__init__(message, type=type, retry_delay=delay)


class NoRetry(TaskFailure):
    """Ends a task as failed, whatever attempts it has left."""

    def __init__(self, message: str, *, type: str = "NoRetry") -> None:  # noqa: A002 - the field's name
        super().__init__(message, type=type, retryable=False)


class InvalidInput(TaskFailure):
    """The input breaks a rule; the message names the argument and the rule. Not tried again."""

    def __init__(self, message: str) -> None:
        super().__init__(message, type=INVALID_INPUT, retryable=False)


class Snooze(Ending):
    """Puts the task off; this costs no attempt.

    Args:
        delay: When to call the handler again, 0 s to 365 days from now, as seconds or a timedelta.
        reason: Why, for people; cut at 1,024 characters.

    Raises:
        ValueError: The delay breaks its rule.

    Attributes:
        delay: In seconds.
        reason: As given.
    """

    def __init__(self, delay: float | dt.timedelta, reason: str = "") -> None:
        super().__init__(reason)
        self.delay = _within("delay", delay, 0.0, MAX_SNOOZE_SECONDS, "0 s to 365 days")
        self.reason = reason


class FinishLater(Ending):
    """Leaves the task to whoever has its `TaskContext.lease_token`; the worker is free for others.

    Args:
        timeout: How long that may take, 1 s to 30 days, as seconds or a timedelta. After it the attempt
            has timed out with the error `FINISH_LATER_TIMEOUT`.

    Raises:
        ValueError: The timeout breaks its rule.

    Attributes:
        timeout: In seconds.
    """

    def __init__(self, timeout: float | dt.timedelta) -> None:
        super().__init__("to be completed by its lease token")
        self.timeout = _within(
            "timeout", timeout, MIN_FINISH_LATER_SECONDS, MAX_ATTEMPT_SECONDS, "1 s to 30 days"
        )


class TaskCancelled(Ending):
    """Ends a task that was to be cancelled: raise it once `TaskContext.cancelled` is true."""


def _retry_delay(name: str, delay: float | dt.timedelta) -> float:
    return _within(name, delay, 0.0, MAX_ATTEMPT_SECONDS, "0 s to 30 days")


def _within(name: str, span: float | dt.timedelta, least: float, most: float, rule: str) -> float:
    seconds = span.total_seconds() if isinstance(span, dt.timedelta) else float(span)
    if not least <= seconds <= most:  # Not a number is not in any range either.
        raise ValueError(f"{name} must be {rule}, not {seconds:,.10g} s")
    return seconds
