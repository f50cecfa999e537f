"""The partitions of attempts: for each retention, spans of days on which tasks were created.

Where attempts are kept for long a span has several days, so that there are about thirty of them at
most, and never hundreds that each statement has to look at.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

from meshq.contract.ids import lowest_id
from meshq.contract.limits import DEFAULT_RETENTION_DAYS

DAY_MS: Final = 86_400_000

_NAME: Final = re.compile(r"attempts_(\d+)_(\d{8})")
_SPANS_PER_RETENTION: Final = 30
_MARGIN_DAYS: Final = 1
"""Attempts are kept so much longer than the ledger keeps their tasks."""


class Span(NamedTuple):
    """One partition.

    Attributes:
        retention: For how many days its tasks are kept.
        first: The first day on which they were created, counted since the epoch.
    """

    retention: int
    first: int

    @property
    def behind(self) -> int:
        """The day behind the last one."""
        return self.first + _length(self.retention)

    @property
    def name(self) -> str:
        """The name of its table."""
        return f"attempts_{self.retention}_{datetime.fromtimestamp(self.first * 86_400, UTC):%Y%m%d}"

    def ids(self) -> tuple[bytes, bytes]:
        """The first task id, and the one behind the last."""
        return lowest_id(self.first * DAY_MS).bytes, lowest_id(self.behind * DAY_MS).bytes

    def kept_ms(self, ids_tell_from_ms: int) -> int:
        """For how long attempts are kept after their end.

        Args:
            ids_tell_from_ms: Before this time ids were made that say nothing of a retention; their tasks
                have the default one.
        """
        untold = self.first * DAY_MS <= ids_tell_from_ms + DAY_MS
        days = max(self.retention, DEFAULT_RETENTION_DAYS) if untold else self.retention
        return (days + _MARGIN_DAYS) * DAY_MS

    def over(self, now_ms: int, ids_tell_from_ms: int) -> bool:
        """Whether everything that ended on the day of its creation has left."""
        return self.behind * DAY_MS + self.kept_ms(ids_tell_from_ms) <= now_ms


def span_of(retention: int, day: int) -> Span:
    """The span in which a day is."""
    length = _length(retention)
    return Span(retention, day // length * length)


def spans_of(retention: int, first: int, last: int) -> set[Span]:
    """The spans of some days."""
    return {span_of(retention, day) for day in range(first, last + 1)}


def read_span(name: str) -> Span | None:
    """The span of a table, None if the table is none."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    first = datetime.strptime(found[2], "%Y%m%d").replace(tzinfo=UTC)
    return Span(int(found[1]), int(first.timestamp()) // 86_400)


def _length(retention: int) -> int:
    return max(1, retention // _SPANS_PER_RETENTION)
