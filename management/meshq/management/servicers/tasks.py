"""TaskService, put together."""

from __future__ import annotations

from meshq.management.servicers.bulk import BulkMethods
from meshq.management.servicers.changing import ChangingMethods
from meshq.management.servicers.creating import CreatingMethods
from meshq.management.servicers.parts import TaskParts
from meshq.management.servicers.reading import ReadingMethods
from meshq.management.servicers.watching import WatchingMethods


class TaskServicer(CreatingMethods, ReadingMethods, ChangingMethods, BulkMethods, WatchingMethods):
    """See the protocol."""

    def __init__(self, parts: TaskParts) -> None:
        self._parts = parts

    def drain(self) -> None:
        """The instance stops: bulk streams have to go elsewhere."""
        self._parts.stopping.set()
