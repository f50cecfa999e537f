"""Tells streams that there is something new, or that the process is about to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from meshq.contract.errors import Reason, Unavailable


class Changes:
    """Wakes everybody who listens.

    Several changes before a listener looks are one for it: it reads the present state, not a history.
    """

    def __init__(self) -> None:
        self._events: set[asyncio.Event] = set()
        self._closing = False

    def notify(self) -> None:
        """Wake all listeners."""
        for event in self._events:
            event.set()

    def close(self) -> None:
        """Wake all listeners; those that look from now on are told that this process stops."""
        self._closing = True
        self.notify()

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event that is set at each change. Whoever waits for it clears it."""
        event = asyncio.Event()
        self._events.add(event)
        try:
            yield event
        finally:
            self._events.discard(event)

    def check_open(self) -> None:
        """Raise when the process is about to stop.

        Raises:
            Unavailable: It is; another registry, or this one after its restart, goes on.
        """
        if self._closing:
            raise Unavailable("this registry is stopping", Reason.DRAINING, retry_delay=0.1)
