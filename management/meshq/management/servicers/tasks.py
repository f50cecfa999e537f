"""TaskService, put together."""

from __future__ import annotations

import asyncio

from meshq.management.cancel import Canceller
from meshq.management.create import Creator
from meshq.management.delete import Deleter
from meshq.management.ledger import Ledger
from meshq.management.servicers.changing import ChangingMethods
from meshq.management.servicers.creating import CreatingMethods
from meshq.management.servicers.parts import TaskParts
from meshq.management.servicers.reading import ReadingMethods
from meshq.management.servicers.views import Views
from meshq.management.servicers.watching import WatchingMethods
from meshq.management.watch.watchers import Watchers


class TaskServicer(CreatingMethods, ReadingMethods, ChangingMethods, WatchingMethods):
    """See the protocol."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        creator: Creator,
        canceller: Canceller,
        deleter: Deleter,
        watchers: Watchers,
        views: Views,
    ) -> None:
        self._parts = TaskParts(ledger, creator, canceller, deleter, watchers, views, asyncio.Event())

    def drain(self) -> None:
        """The instance stops: bulk streams have to go elsewhere."""
        self._parts.stopping.set()
