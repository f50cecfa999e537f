"""How long to wait before connecting again."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

INITIAL: Final = 0.1
MAXIMUM: Final = 5.0
STEADY_SECONDS: Final = 10.0


class Backoff:
    """Delays that double from 0.1 s to 5 s, each drawn from the upper half of its range.

    A session that lasted is a success and begins anew; one that was dropped at once is not, so that a
    server which accepts and drops is not hammered.
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._failures = 0

    def after(self, lasted: float, wanted: float | None = None) -> float:
        """Seconds to wait after a session.

        Args:
            lasted: How many seconds the session was open.
            wanted: The delay that the server asked for.
        """
        if lasted >= STEADY_SECONDS:
            self._failures = 0
        ceiling = min(INITIAL * 2.0 ** min(self._failures, 16), MAXIMUM)
        self._failures += 1
        return max(ceiling * (0.5 + self._draw() / 2), wanted or 0.0)
