"""What handlers raise to say how a task ended, and the error types that the worker itself reports."""

from __future__ import annotations

from typing import Final

UNKNOWN_TASK_TYPE: Final = "UNKNOWN_TASK_TYPE"
INVALID_INPUT: Final = "INVALID_INPUT"
INVALID_RESULT: Final = "INVALID_RESULT"
RESULT_TOO_LARGE: Final = "RESULT_TOO_LARGE"
PROCESS_DIED: Final = "PROCESS_DIED"


class TaskFailure(Exception):
    """Ends a task as failed, with an error type of the handler's choice and without a traceback.

    Attributes:
        type: A short stable name that programs compare.
        message: What went wrong, for a person.
    """

    def __init__(self, message: str, *, type: str = "TaskFailure") -> None:  # noqa: A002 - the field's name
        super().__init__(message)
        self.type = type
        self.message = message


class InvalidInput(TaskFailure):
    """The input breaks a rule; the message names the argument and the rule."""

    def __init__(self, message: str) -> None:
        super().__init__(message, type=INVALID_INPUT)


class TaskCancelled(Exception):
    """Ends a task that was to be cancelled: raise it once `TaskContext.cancelled` is true."""
