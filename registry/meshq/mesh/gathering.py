"""How long to wait for company, so that what comes one by one is written together.

At rest nothing waits. Where many callers each have little, a stage that serves each at once costs far more
than the work itself: every step of every process is then taken for one task. So a stage that is often asked
while it has other work lets a few milliseconds pass before it begins, and nobody has to set for which load.
Who calls alone, one call after the other, waits for nobody, however fast the answers are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

OFTEN: Final = 100.0
"""Arrivals a second beside other work above which it pays to wait."""
COMPANY: Final = 16
"""Arrivals that are enough."""
MOST_SECONDS: Final = 0.01
_WINDOW_SECONDS: Final = 0.05


class Gathering:
    """Knows how often something comes while there is other work.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._count = self._serving = 0
        self._rate = 0.0

    def came(self, items: int, *, others: bool) -> None:
        """Something came.

        Args:
            items: How much it is; several are company for each other.
            others: Whether something else waits.
        """
        self._count += items > 1 or others or self._serving > 0

    @contextmanager
    def serving(self) -> Iterator[None]:
        """What comes meanwhile has company."""
        self._serving += 1
        try:
            yield
        finally:
            self._serving -= 1

    async def company(self) -> None:
        """Let others come before what has come is served, if that is likely soon."""
        if pause := self.pause():
            await asyncio.sleep(pause)

    def pause(self) -> float:
        """Seconds to wait before what has come is served; 0 when nothing else is likely to come soon."""
        now = self._clock()
        passed = now - self._since
        if passed >= _WINDOW_SECONDS:
            self._rate = self._count / passed
            self._since, self._count = now, 0
        return min(COMPANY / self._rate, MOST_SECONDS) if self._rate > OFTEN else 0.0
