"""What one instance does now and then for all: partitions, and rows that nobody needs any more.

Once a minute it asks in one statement what there is to do, which is mostly nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, NamedTuple, Protocol

from meshq.contract.errors import MeshqError
from meshq.mesh.election import Incumbent
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_LOOK_SECONDS: Final = 60.0
_PARTITIONS_SECONDS: Final = 1_800.0


class Outlook(NamedTuple):
    """What there is to do.

    Attributes:
        term: The term of the office.
        strayed: Whether there are attempts without a partition for their days.
        checkpoints: Whether there are any checkpoints.
        deferrals: Whether any tasks are completed by somebody else.
    """

    term: int
    strayed: bool
    checkpoints: bool
    deferrals: bool


class Job(Protocol):
    """Something that is to be done now and then."""

    async def run_once(self) -> None:
        """Do it, or a page of it."""


class Jobs(NamedTuple):
    """What is done."""

    partitions: Job
    leftovers: Job
    deferrals: Job


class Upkeep:
    """See the module.

    Args:
        look: Says what there is to do, by the name of the office; raises `MeshqError`.
        office: Whether this instance does it.
        jobs: What is done.
    """

    def __init__(self, look: Callable[[str], Awaitable[Outlook]], office: Incumbent, jobs: Jobs) -> None:
        self._look = look
        self._office = office
        self._jobs = jobs
        self._partitions_due = 0.0
        self._repeater = Repeater("upkeep", self.run_once, _LOOK_SECONDS)
        self.start = self._repeater.start
        self.stop = self._repeater.stop

    def office_changed(self) -> None:
        """Begin at once: perhaps this instance is in office now."""
        self._partitions_due = 0.0
        self._repeater.wake()

    async def run_once(self) -> None:
        """Do what there is to do."""
        if not self._office.leads:
            return
        try:
            outlook = await self._look(self._office.name)
        except MeshqError as error:
            _log.info("not looked what there is to do", reason=error.message)
            return
        if outlook.term != self._office.term:
            self._office.doubt()
            return
        if outlook.strayed or monotonic() >= self._partitions_due:
            self._partitions_due = monotonic() + _PARTITIONS_SECONDS
            await self._run(self._jobs.partitions)
        if outlook.checkpoints:
            await self._run(self._jobs.leftovers)
        if outlook.deferrals:
            await self._run(self._jobs.deferrals)

    async def _run(self, job: Job) -> None:
        try:
            await job.run_once()
        except MeshqError as error:
            _log.info("upkeep postponed", job=type(job).__name__, reason=error.message)
