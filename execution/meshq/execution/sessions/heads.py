"""Which shard has the next task, for consumers that ask now and then and keep no stock of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Final, NamedTuple

from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shard import Owner, Shard
from meshq.execution.sessions.stock import ABREAST_MS, CLASSES_AT_ONCE, NEGLECTED_SECONDS, NOTHING, UNKNOWN

_FRESH_SECONDS: Final = 0.1


class _Head(NamedTuple):
    """The score of a shard's next task of some classes, when it was seen, and when one was last asked for."""

    score: float
    seen: float
    asked: float


_UNSEEN: Final = _Head(NOTHING, UNKNOWN, UNKNOWN)


class Heads:
    """The next scores of shards by classes. Lease calls tell them; shards not heard lately are looked at."""

    def __init__(self) -> None:
        self._heads: dict[tuple[str, ...], dict[str, _Head]] = {}

    async def in_order(self, shards: Sequence[Shard], classes: Sequence[str]) -> list[Shard]:
        """Neglected shards first, then those whose next tasks come first; equal ones stay as they are."""
        if len(shards) == 1:
            return list(shards)
        known = self._heads.setdefault(tuple(classes), {})
        old = monotonic() - _FRESH_SECONDS
        await asyncio.gather(
            *(_look(shard, classes, known) for shard in shards if known.get(shard.name, _UNSEEN).seen < old)
        )
        neglected = monotonic() - NEGLECTED_SECONDS

        def place(shard: Shard) -> tuple[bool, float]:
            head = known.get(shard.name, _UNSEEN)
            served = head.score == NOTHING or head.asked >= neglected
            return served, head.score if head.score == NOTHING else head.score // ABREAST_MS

        return sorted(shards, key=place)

    def note(self, shard: Shard, classes: Sequence[str], head: float | None) -> None:
        """A call for all of these classes has shown the shard's next score."""
        known = self._heads.get(tuple(classes))
        if known is not None:
            now = monotonic()
            known[shard.name] = _Head(_score(head), now, now)

    def forget(self) -> None:
        """Keep nothing that nobody may ask for again."""
        self._heads.clear()


async def _look(shard: Shard, classes: Sequence[str], known: dict[str, _Head]) -> None:
    scores = []
    try:
        for at in range(0, len(classes), CLASSES_AT_ONCE):
            part = classes[at : at + CLASSES_AT_ONCE]
            # Nothing is taken, and nobody noted to be called.
            taken = await shard.lease([Owner("", "", 0)], part, wanted=0, wanted_bytes=0, lease_ms=0)
            scores.append(_score(taken.head))
    except ShardError:
        return
    asked = known.get(shard.name, _UNSEEN).asked
    known[shard.name] = _Head(min(scores, default=NOTHING), monotonic(), asked)


def _score(head: float | None) -> float:
    # An unknown score is that of a shard which has given its last task.
    return NOTHING if head is None or head == UNKNOWN else head
