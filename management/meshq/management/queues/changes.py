"""Declaring, changing, stopping and deleting queues.

A change is committed first. Then this instance, the others and execution learn of it, in this order; the
call is answered when execution goes by it. What could not be told is told later, so that a call that is
answered with SHARD_UNAVAILABLE comes into force by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, Protocol

from meshq.contract.errors import Conflict, NotFound, PreconditionFailed, Reason, Unavailable
from meshq.management.model.queues import UNSET, Hold, QueueSettings
from meshq.management.queues.book import QueueBook
from meshq.management.queues.store import Decision, QueueKey, QueueStore

_RETRY_DELAY: Final = 1.0


class Enforcer(Protocol):
    """Execution, which goes by the settings."""

    async def enforce(self, key: QueueKey) -> bool:
        """Tell what the book says; whether it is in force everywhere for a queue."""


class QueueChanges:
    """See the module.

    Args:
        store: Where the settings are.
        book: What this instance goes by.
        enforcer: Execution.
        told: Tells the other instances.
        now_ms: The clock.
    """

    def __init__(
        self,
        store: QueueStore,
        book: QueueBook,
        enforcer: Enforcer,
        told: Callable[[Sequence[QueueKey]], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._book = book
        self._enforcer = enforcer
        self._told = told
        self._now_ms = now_ms

    async def create(self, key: QueueKey, settings: QueueSettings) -> None:
        """Declare a queue.

        Raises:
            Conflict: There is such a queue.
        """

        def decide(before: QueueSettings | None) -> QueueSettings:
            if before is not None:
                raise Conflict(f"There is a queue {key[1]} already; update it.", Reason.QUEUE_EXISTS)
            return settings

        await self._change(key, decide, self._now_ms())
        # The queue exists whatever execution says, and repeating the call would be refused.
        await self._enforcer.enforce(key)

    async def update(
        self, key: QueueKey, changed: Callable[[QueueSettings], QueueSettings], *, allow_missing: bool
    ) -> None:
        """Change settings.

        Args:
            key: Which queue.
            changed: The new settings from the present ones; may raise.
            allow_missing: Whether a queue that does not exist is declared.

        Raises:
            NotFound: There is no such queue.
            Unavailable: The settings are not in force everywhere yet.
        """

        def decide(before: QueueSettings | None) -> QueueSettings | None:
            if before is None:
                if not allow_missing:
                    raise no_such_queue(key[1])
                return changed(UNSET)
            return _unless_same(before, changed(before))

        await self._change(key, decide, self._now_ms())
        await self._in_force(key)

    async def hold(self, key: QueueKey, kind: Literal["pause", "drain"], actor: str, reason: str) -> None:
        """Pause or drain a queue; one that is held that way already stays as it is.

        Raises:
            NotFound: There is no such queue.
            Unavailable: The pause is not in force everywhere yet.
        """
        now_ms = self._now_ms()
        hold = Hold(actor, reason, now_ms)

        def decide(before: QueueSettings | None) -> QueueSettings | None:
            before = _existing(key, before)
            if kind == "pause":
                return None if before.pause else before._replace(pause=hold, resumed=None)
            return None if before.drain else before._replace(drain=hold, resumed=None)

        await self._change(key, decide, now_ms)
        if kind == "pause":
            await self._in_force(key)

    async def resume(self, key: QueueKey, actor: str, reason: str) -> None:
        """End both; a queue that is held neither way stays as it is.

        Raises:
            NotFound: There is no such queue.
            Unavailable: The end of the pause is not in force everywhere yet.
        """
        now_ms = self._now_ms()
        resumed = Hold(actor, reason, now_ms)

        def decide(before: QueueSettings | None) -> QueueSettings | None:
            before = _existing(key, before)
            held = before.pause or before.drain
            return before._replace(pause=None, drain=None, resumed=resumed) if held else None

        await self._change(key, decide, now_ms)
        await self._in_force(key)

    async def delete(self, key: QueueKey) -> None:
        """Delete a queue without open tasks.

        Raises:
            PreconditionFailed: It has some.
        """
        if not await self._store.delete(key, self._now_ms()):
            raise PreconditionFailed(
                f"Queue {key[1]} has open tasks; purge it, or let them be worked off.",
                Reason.QUEUE_NOT_EMPTY,
            )
        self._told([key])
        await self._book.refresh()
        await self._enforcer.enforce(key)

    async def _change(self, key: QueueKey, decide: Decision, now_ms: int) -> None:
        if await self._store.change(key, decide, now_ms):
            self._told([key])
        # Also where nothing changed: it may be another instance whose change is to be enforced again.
        await self._book.refresh()

    async def _in_force(self, key: QueueKey) -> None:
        if not await self._enforcer.enforce(key):
            raise Unavailable(
                "The change is stored, but not every shard could be told yet; it will be.",
                Reason.SHARD_UNAVAILABLE,
                retry_delay=_RETRY_DELAY,
            )


def no_such_queue(name: str) -> NotFound:
    """The error that names a queue which was never declared nor used."""
    return NotFound(f"No task was ever created in queue {name}, nor was it declared.", Reason.QUEUE_NOT_FOUND)


def _existing(key: QueueKey, before: QueueSettings | None) -> QueueSettings:
    if before is None:
        raise no_such_queue(key[1])
    return before


def _unless_same(before: QueueSettings, after: QueueSettings) -> QueueSettings | None:
    return None if after == before._replace(version=after.version, update_ms=after.update_ms) else after
