"""Which shard has the next task, for consumers that ask now and then and keep no stock of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Final, NamedTuple

from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shard import Owner, Shard
from meshq.execution.sessions.stock import CLASSES_AT_ONCE, NEGLECTED_SECONDS

_FRESH_SECONDS: Final = 0.1
_ABREAST_MS: Final = 1_000.0
_NOTHING: Final = 1e18
_UNKNOWN: Final = float("-inf")


class _Head(NamedTuple):
    """The score of a shard's next task of some classes, and when it was seen."""

    score: float
    seen: float


_UNSEEN: Final = _Head(_NOTHING, _UNKNOWN)


class Heads:
    """The next scores of shards by classes. Lease calls tell them; shards not heard lately are looked at."""

    def __init__(self) -> None:
        self._heads: dict[tuple[str, ...], dict[str, _Head]] = {}
        self._asked: dict[tuple[str, ...], dict[str, float]] = {}

    async def in_order(self, shards: Sequence[Shard], classes: Sequence[str]) -> list[Shard]:
        """Neglected shards first, then those whose next tasks come first; equal ones stay as they are."""
        if len(shards) == 1:
            return list(shards)
        known = self._heads.setdefault(tuple(classes), {})
        old = monotonic() - _FRESH_SECONDS
        await asyncio.gather(
            *(_look(shard, classes, known) for shard in shards if known.get(shard.name, _UNSEEN).seen < old)
        )
        asked = self._asked.setdefault(tuple(classes), {})
        neglected = monotonic() - NEGLECTED_SECONDS

        def place(shard: Shard) -> tuple[bool, float]:
            score = known.get(shard.name, _UNSEEN).score
            served = score >= _NOTHING or asked.get(shard.name, _UNKNOWN) >= neglected
            return served, score // _ABREAST_MS

        return sorted(shards, key=place)

    def note(self, shard: Shard, classes: Sequence[str], head: float | None) -> None:
        """A call for all of these classes has shown the shard's next score."""
        known = self._heads.get(tuple(classes))
        if known is not None:
            known[shard.name] = _head(head)
            self._asked.setdefault(tuple(classes), {})[shard.name] = monotonic()

    def forget(self) -> None:
        """Keep nothing that nobody may ask for again."""
        self._heads.clear()
        self._asked.clear()


async def _look(shard: Shard, classes: Sequence[str], known: dict[str, _Head]) -> None:
    heads = []
    try:
        for at in range(0, len(classes), CLASSES_AT_ONCE):
            part = classes[at : at + CLASSES_AT_ONCE]
            # Nothing is taken, and nobody noted to be called.
            taken = await shard.lease([Owner("", "", 0)], part, wanted=0, wanted_bytes=0, lease_ms=0)
            heads.append(_head(taken.head))
    except ShardError:
        return
    known[shard.name] = min(heads, default=_UNSEEN)


def _head(score: float | None) -> _Head:
    # An unknown score is that of a shard which has given its last task.
    return _Head(_NOTHING if score is None or score == _UNKNOWN else score, monotonic())
