"""Results that came along with reports, for whoever waits for their tasks here.

A task that somebody waits for ends with its result at hand, without asking execution for it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from meshq.management.model.outcomes import Content, Key

_MAX_KEPT: Final = 10_000
"""Each is a few hundred bytes. Who waits for 1,000 tasks takes the results when the last one has ended."""


class FreshContent:
    """The latest of them, by task and attempt."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, Content] = OrderedDict()

    def add(self, key: Key, content: Content) -> None:
        """Keep what an attempt left; the oldest is forgotten for it."""
        self._kept[key] = content
        if len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)

    def get(self, key: Key) -> Content | None:
        """What an attempt left, if that came here."""
        return self._kept.get(key)
