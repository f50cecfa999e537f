"""When a call is tried again: decisions only, no waiting, so that both clients share them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from meshq.contract.errors import (
    Aborted,
    CallCancelled,
    DeadlineExceeded,
    MeshqError,
    Overloaded,
    Unavailable,
)


@dataclass(frozen=True, slots=True)
class CallRetries:
    """How calls are repeated that may be repeated.

    Delays grow exponentially and are drawn from the upper half of their range, so that clients that
    failed together do not return together. A server's `RetryInfo` is a lower bound.

    Attributes:
        initial_delay: Seconds before the first repetition.
        multiplier: How delays grow.
        maximum_delay: Where they stop growing, in seconds.
        maximum_attempts: Tries in all; 1 turns retries off, None leaves only the call's timeout.
    """

    initial_delay: float = 0.1
    multiplier: float = 2.0
    maximum_delay: float = 5.0
    maximum_attempts: int | None = None


class Attempts:
    """The tries of one call, under one deadline.

    Args:
        policy: How to repeat.
        timeout: Seconds for all tries together; None for no limit.
        mends: Whether repeating may mend an error; `never` for calls that are not safe to repeat.
        clock: Monotonic seconds.
        draw: Random numbers of 0 to 1.
    """

    def __init__(
        self,
        policy: CallRetries,
        timeout: float | None,
        *,
        mends: Callable[[MeshqError], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._timeout = timeout
        self._mends = mends or is_transient
        self._clock = clock
        self._draw = draw
        self._failures = 0
        self._deadline = None if timeout is None else clock() + timeout

    def remaining(self) -> float | None:
        """Seconds until the deadline, at least a little, for the next try; None without one."""
        return None if self._deadline is None else max(self._deadline - self._clock(), 0.001)

    def progressed(self) -> None:
        """Something was achieved: the delays and the deadline begin anew. For streams."""
        self._failures = 0
        if self._timeout is not None:
            self._deadline = self._clock() + self._timeout

    def delay_after(self, error: MeshqError) -> float:
        """How many seconds to wait before trying again.

        Raises:
            MeshqError: The error itself, when it is final: of a kind that repeating does not mend, or
                because no time or try is left.
        """
        self._failures += 1
        if not self._mends(error) or self._failures == self._policy.maximum_attempts:
            raise error
        delay = max(self._backoff(), error.retry_delay or 0.0)
        if self._deadline is not None and self._clock() + delay >= self._deadline:
            raise error
        return delay

    def _backoff(self) -> float:
        policy = self._policy
        # The exponent is bounded so that a stream that retries for days does not overflow.
        ceiling = policy.initial_delay * policy.multiplier ** min(self._failures - 1, 64)
        return min(ceiling, policy.maximum_delay) * (0.5 + self._draw() / 2)


def is_transient(error: MeshqError) -> bool:
    """Whether repeating the call may mend it: UNAVAILABLE, RESOURCE_EXHAUSTED with a delay, or CANCELLED.

    A server that stops says CANCELLED. So does a channel that the client closes, and the error does not tell
    which: it is the clients that repeat nothing once they are closed.
    """
    if isinstance(error, Overloaded):
        return error.retry_delay is not None
    return isinstance(error, (Unavailable, CallCancelled))


def is_resumable(error: MeshqError) -> bool:
    """Whether a stream of events goes on by calling again; a stream's own deadline is no failure."""
    return is_transient(error) or isinstance(error, (Aborted, DeadlineExceeded))


def never(_error: MeshqError) -> bool:
    """For calls that must not be repeated once they may have reached the server."""
    return False
