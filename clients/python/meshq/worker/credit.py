"""How many tasks the server may assign."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

HORIZON_SECONDS: Final = 0.2
MAX_PREFETCH: Final = 4_000
_RATE_INTERVAL: Final = 0.05
REST_SECONDS: Final = 0.002
MAX_REST_SECONDS: Final = 0.02
_WORTH_A_REST: Final = 16


class Credit:
    """The window of tasks that are held or may come, and when to widen it.

    The window is the number of slots, and beside that as many tasks as end within a fifth of a second:
    short tasks are fetched ahead, so that their handlers do not wait for the network, while of long ones
    none is taken away from other workers.

    Credit is announced when at least half of what is free has not been announced yet, so that it comes
    in few frames under load and at once when there is little.

    Args:
        slots: Tasks at a time.
        prefetch: A fixed number of tasks to fetch ahead instead of the measured one.
        clock: Monotonic seconds.

    Attributes:
        assigned: Tasks that came; counted by who reads frames.
        granted: Tasks that may come in all, as announced.
        paused: Whether nothing more is announced.
    """

    def __init__(
        self, slots: int, prefetch: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.assigned = 0
        self.granted = 0
        self.paused = False
        self._slots = slots
        self._prefetch = prefetch
        self._clock = clock
        self._finished = 0
        self._rate = 0.0
        self._measured_at = clock()
        self._measured_finished = 0

    def finish(self, count: int) -> None:
        """So many tasks ended."""
        self._finished += count
        self._measure()

    def top_up(self) -> int | None:
        """The new cumulative credit, if it is worth announcing."""
        if self.paused:
            return None
        free = self._window() - (self.assigned - self._finished)
        outstanding = self.granted - self.assigned
        missing = free - outstanding
        if missing <= 0 or outstanding > missing:
            return None
        self.granted += missing
        return self.granted

    def rest(self) -> float:
        """Seconds for which results may gather.

        Longer while there are so many tasks ahead that no handler waits for it: then each waits in line
        anyway, and one frame costs less than ten.
        """
        ahead = self.assigned - self._finished - self._slots
        if ahead <= 0 or self._rate <= 0:
            return REST_SECONDS
        seconds = min(ahead / self._rate / 2, MAX_REST_SECONDS)
        return max(seconds, REST_SECONDS) if self._rate * seconds >= _WORTH_A_REST else REST_SECONDS

    def _window(self) -> int:
        if self._prefetch is not None:
            return self._slots + self._prefetch
        return self._slots + min(int(self._rate * HORIZON_SECONDS), MAX_PREFETCH)

    def _measure(self) -> None:
        now = self._clock()
        passed = now - self._measured_at
        if passed < _RATE_INTERVAL:
            return
        rate = (self._finished - self._measured_finished) / passed
        self._rate = (self._rate + rate) / 2
        self._measured_at = now
        self._measured_finished = self._finished
