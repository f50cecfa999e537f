"""Tasks that show what a task can do in its life: fail, go on, wait, be completed by somebody else."""

from __future__ import annotations

import asyncio
from typing import Final, TypedDict

from meshq.contract.limits import (
    MAX_ATTEMPT_SECONDS,
    MAX_ATTEMPTS,
    MAX_ERROR_TYPE_LENGTH,
    MAX_SNOOZE_SECONDS,
    MIN_FINISH_LATER_SECONDS,
)
from meshq.tasks.pastime import MAX_STEPS, check_seconds
from meshq.worker import FinishLater, InvalidInput, Snooze, TaskContext, TaskFailure


class Recovered(TypedDict):
    """The result of `fail`: the attempt that succeeded."""

    attempt: int


class Walked(TypedDict):
    """The result of `steps`: how many there were, after which one this attempt began, and which it is."""

    steps: int
    resumed_after: int
    attempt: int


class Awoken(TypedDict):
    """The result of `snooze_once`."""

    snoozed_seconds: float
    attempt: int


_FOR_EVER: Final = MAX_ATTEMPTS * 100


async def fail(
    context: TaskContext,
    times: int = 1,
    error_type: str = "Failed",
    retry_delay: float | None = None,
    non_retryable: bool = False,
) -> Recovered:
    """Fail so many times, then succeed.

    Args:
        context: The task at work.
        times: How many attempts fail, 0 to 10,000.
        error_type: The type of the error, 1 to 256 characters.
        retry_delay: Seconds to ask for before the next attempt, 0 to 2,592,000; without it the task's
            retry policy says.
        non_retryable: Whether to say that no other attempt would help.
    """
    if not 0 <= times <= _FOR_EVER:
        raise InvalidInput(f"times: must be 0 to {_FOR_EVER:,}, not {times}")
    if not 0 < len(error_type) <= MAX_ERROR_TYPE_LENGTH:
        raise InvalidInput(
            f"error_type: must be 1 to {MAX_ERROR_TYPE_LENGTH} characters, not {len(error_type)}"
        )
    if retry_delay is not None:
        check_seconds("retry_delay", retry_delay, most=MAX_ATTEMPT_SECONDS)
        if non_retryable:
            raise InvalidInput("retry_delay: must not be given together with non_retryable")
    if context.attempt > times:
        return {"attempt": context.attempt}
    message = f"attempt {context.attempt} of {times} that fail"
    raise TaskFailure(message, type=error_type, retry_delay=retry_delay, retryable=not non_retryable)


async def steps(
    context: TaskContext, steps: int = 10, seconds: float = 1.0, fail_after: int | None = None
) -> Walked:
    """Walk in steps, with progress and a checkpoint at each; a later attempt goes on from there.

    Args:
        context: The task at work.
        steps: How many there are, 1 to 10,000.
        seconds: How long they take in all, 0 to 86,400.
        fail_after: The step after which the first attempt fails, 1 to `steps`; by default none.
    """
    check_seconds("seconds", seconds)
    if not 1 <= steps <= MAX_STEPS:
        raise InvalidInput(f"steps: must be 1 to {MAX_STEPS:,}, not {steps}")
    if fail_after is not None and not 1 <= fail_after <= steps:
        raise InvalidInput(f"fail_after: must be 1 to {steps:,}, not {fail_after}")
    done = context.last_checkpoint
    begun = done if isinstance(done, int) else 0
    for step in range(begun + 1, steps + 1):
        await asyncio.sleep(seconds / steps)
        context.progress(step / steps, f"step {step} of {steps}")
        context.checkpoint(step)
        if step == fail_after and context.attempt == 1:
            raise TaskFailure(f"stumbled after step {step}", type="Stumbled")
    return {"steps": steps, "resumed_after": begun, "attempt": context.attempt}


async def snooze_once(context: TaskContext, seconds: float = 1.0) -> Awoken:
    """Ask to be called again later, once, which costs no attempt.

    Args:
        context: The task at work.
        seconds: How much later, 0 to 31,536,000.
    """
    check_seconds("seconds", seconds, most=MAX_SNOOZE_SECONDS)
    if context.attempt == 1:
        raise Snooze(seconds, "once")
    return {"snoozed_seconds": seconds, "attempt": context.attempt}


async def finish_later(context: TaskContext, timeout: float = 3600.0) -> None:  # noqa: ASYNC109 - an input
    """Leave the task to whoever completes it by its lease token, which progress and log show.

    The result is theirs. Their token is enough to end the task, so real handlers keep it to themselves.

    Args:
        context: The task at work.
        timeout: Seconds that they have, 1 to 2,592,000.
    """
    check_seconds("timeout", timeout, least=MIN_FINISH_LATER_SECONDS, most=MAX_ATTEMPT_SECONDS)
    context.progress(0.0, "to be completed by its lease token", {"lease_token": context.lease_token})
    context.log(f"lease token: {context.lease_token}")
    raise FinishLater(timeout)
