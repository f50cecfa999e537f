"""What is done on a shard about the slots of limit keys; each operation is one script."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from meshq.execution.ring import scripts


class Standing(NamedTuple):
    """How a shard stands with its slots of limit keys, in the ring of the caller.

    Attributes:
        known: It knows which it has.
        confirmed: It serves them all.
        settled: It holds nothing of other slots.
        changes: Changes when it may hold such again.
    """

    known: bool
    confirmed: bool
    settled: bool
    changes: int


class SlotCalls:
    """See the module. Operations raise `ShardError`.

    Args:
        run: Runs a script on the shard.
        note_due: Told in how many milliseconds the shard has something to do; -1 for never.
    """

    def __init__(self, run: Callable[..., Awaitable[Any]], note_due: Callable[[int], None]) -> None:
        self._run = run
        self._note_due = note_due

    async def own(self, slots: bytes = b"") -> Standing:
        """Say which slots of limit keys the shard has (see `slots.maps`); nothing to ask how things stand."""
        due, known, confirmed, settled, changes = await self._run(scripts.OWN, slots)
        self._note_due(due)
        return Standing(known == 1, confirmed == 1, settled == 1, changes)

    async def confirm(self, slots: bytes, scopes: Sequence[str]) -> bool:
        """Let the shard serve all its slots: of these queues it was told what others lease of its keys."""
        due, complete = await self._run(scripts.CONFIRM, slots, *scopes)
        self._note_due(due)
        return bool(complete)

    async def settle(self, changes: int, scopes: Sequence[str]) -> bool:
        """Say that there are no strays of these queues here.

        Returns:
            Whether nobody has to look any more; False when there may be some again since `changes`, or when
            the shard has queues with limits per key that are not among these.
        """
        return bool(await self._run(scripts.SETTLE, changes, *scopes))

    async def stray_leases(
        self, scope: str, cursor: bytes, known: Sequence[str] = ()
    ) -> tuple[bytes, dict[str, int]] | None:
        """How many leases each limit key of a queue has that has its slot elsewhere.

        Args:
            scope: `tenant/queue`.
            cursor: Where to go on; b"0" at first.
            known: Keys to look at instead of all, at most 1,000.

        Returns:
            The next cursor (b"0" at last), and some of the keys; None while the shard does not know enough.
        """
        reply = await self._run(scripts.STRAY_LEASES, scope, cursor, *known)
        if not reply:
            return None
        counts = zip(reply[1::2], reply[2::2], strict=True)
        return reply[0], {key.decode(): int(count) for key, count in counts}

    async def parked_strays(self, scope: str, cursor: bytes, most: int) -> tuple[bytes, list[bytes]]:
        """Parked tasks of such keys, with the next cursor, which is the same if there are more behind it."""
        following, *task_ids = await self._run(scripts.PARKED_STRAYS, scope, cursor, most)
        return following, task_ids
