"""Ends that are recorded already: whoever comes upon such an attempt has it reported again instead of run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from meshq.contract.errors import MeshqError
from meshq.execution.model import Ended

Key = tuple[bytes, int]
"""A task's id and the number of an attempt."""


class Attempts(Protocol):
    """Where ends are kept."""

    async def get(self, keys: Sequence[Key]) -> dict[Key, Ended]:
        """The recorded ends among some attempts."""


class Reports(Protocol):
    """Who tells the ledger."""

    def add(self, ended: Ended) -> None:
        """Report an end."""


class RecordedEnds:
    """Looks for recorded ends, and tells the ledger of them again.

    Args:
        attempts: Knows which attempts have ended.
        reports: Tells the ledger.
        with_error_text: Completes an end that was read from the database.
    """

    def __init__(
        self, attempts: Attempts, reports: Reports, with_error_text: Callable[[Ended], Ended]
    ) -> None:
        self._attempts = attempts
        self._reports = reports
        self._with_error_text = with_error_text

    async def report_again(self, keys: Sequence[Key]) -> Collection[Key] | None:
        """Those of the attempts that have ended, reported again; None when that cannot be known now."""
        if not keys:
            return ()
        try:
            over = await self._attempts.get(keys)
        except MeshqError:
            return None
        for ended in over.values():
            self._reports.add(self._with_error_text(ended))
        return over.keys()
