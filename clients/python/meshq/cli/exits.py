"""The exit codes, for scripts."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What a script can tell from the exit code of `meshq`."""

    OK = 0
    TASK_NOT_SUCCEEDED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    CONFLICT = 5
    INTERNAL = 70
    INTERRUPTED = 130
    # What a shell reports for a program that wrote into a closed pipe.
    BROKEN_PIPE = 141


MEANINGS = {
    ExitCode.OK: "ok",
    ExitCode.TASK_NOT_SUCCEEDED: (
        "the task failed, was cancelled or expired (run, watch, wait, create --wait)"
    ),
    ExitCode.USAGE: "wrong usage or an invalid argument",
    ExitCode.NOT_FOUND: "not found",
    ExitCode.UNAVAILABLE: "meshq does not answer, is overloaded, or a timeout passed",
    ExitCode.CONFLICT: "in conflict with what exists, or not possible in this state",
    ExitCode.INTERNAL: "an internal error",
    ExitCode.INTERRUPTED: "interrupted",
}

CODE_OF_STATUS = {
    "INVALID_ARGUMENT": ExitCode.USAGE,
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "ALREADY_EXISTS": ExitCode.CONFLICT,
    "FAILED_PRECONDITION": ExitCode.CONFLICT,
    "RESOURCE_EXHAUSTED": ExitCode.UNAVAILABLE,
    "ABORTED": ExitCode.UNAVAILABLE,
    "UNAVAILABLE": ExitCode.UNAVAILABLE,
    "DEADLINE_EXCEEDED": ExitCode.UNAVAILABLE,
    "CANCELLED": ExitCode.UNAVAILABLE,
}
"""The exit code for a gRPC status; others are INTERNAL. By name, because grpc is imported late."""


def help_text() -> str:
    """The exit codes as a paragraph of the help."""
    return "Exit codes: " + "; ".join(f"{code:d} {meaning}" for code, meaning in MEANINGS.items()) + "."
