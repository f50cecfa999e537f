"""Recorded ends with their results: from the shards while they are recent, else from the database.

The tombstones on the shards are a cache of recent results. A task leaves its tombstone where it was, so the
ring's hashing says whom to ask: the shard that owns the task first, and only for what it lacks the others. A
task is on another one when the ring has changed meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from prometheus_client import Counter

from meshq.execution.model import Ended, QueueItem, Traits
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shard import Shard
from meshq.execution.ring.shards import Shards

_RECENT_MS: Final = 180_000
"""Tombstones last for two minutes at most; clocks differ."""
_OWNER, _ELSEWHERE, _MISSED = "owner", "elsewhere", "missed"
_LOOKED_UP: Final = Counter(
    "meshq_recent_results",
    "Recent results that were asked for: kept by the shard that owns the task, kept elsewhere, or missed.",
    ["found"],
)

Key = tuple[bytes, int]
"""A task's id and the number of an attempt."""


class Sought(NamedTuple):
    """An end that somebody wants to see.

    Attributes:
        lane: `tenant/queue//`: where the task was.
        traits: As far as they decide about that.
        end_ms: When the task ended; 0 where that is not known.
    """

    task_id: bytes
    attempt: int
    lane: str = "//"
    traits: Traits | None = None
    end_ms: int = 0

    @property
    def key(self) -> Key:
        """What is asked for."""
        return self.task_id, self.attempt


class Found(NamedTuple):
    """Ends that are recorded.

    Attributes:
        ends: In the order in which they were asked for.
        complete: Whether nothing was left out behind the last one.
    """

    ends: list[tuple[Key, Ended]]
    complete: bool


class Attempts(Protocol):
    """Where ends are kept."""

    async def get_within(self, keys: Sequence[Key], max_bytes: int) -> tuple[dict[Key, Ended], int]:
        """The recorded ends of the first attempts as far as so many bytes of results; how many those are."""


class Results:
    """See the module.

    Args:
        shards: Who is asked.
        routing_key: What the ring hashes to find a task's shard.
        attempts: Where ends are kept.
        now_ms: The time.
    """

    def __init__(
        self,
        shards: Shards,
        routing_key: Callable[[QueueItem], bytes],
        attempts: Attempts,
        now_ms: Callable[[], int],
    ) -> None:
        self._shards = shards
        self._routing_key = routing_key
        self._attempts = attempts
        self._now_ms = now_ms

    async def find(self, wanted: Sequence[Sought], max_bytes: int) -> Found:
        """The recorded ends of the first of some attempts, in the order in which they were asked for.

        Args:
            wanted: The attempts.
            max_bytes: No more are read when those that were have so many bytes.
        """
        since = self._now_ms() - _RECENT_MS
        found = await self._recent([item for item in wanted if not item.end_ms or item.end_ms > since])
        keys = [item.key for item in wanted]
        missing = [key for key in keys if key not in found]
        complete = True
        if missing:
            read, count = await self._attempts.get_within(missing, max_bytes)
            found |= read
            complete = count == len(missing)
            if not complete:
                keys = keys[: keys.index(missing[count])]
        return Found([(key, found[key]) for key in keys if key in found], complete)

    async def _recent(self, wanted: Sequence[Sought]) -> dict[Key, Ended]:
        owners = {item.key: self._owner(item) for item in wanted}
        mine: dict[str, list[Key]] = {}
        for key, name in owners.items():
            mine.setdefault(name, []).append(key)
        found = await self._ask(mine)
        _LOOKED_UP.labels(_OWNER).inc(len(found))
        missing = [key for key in owners if key not in found]
        others = [shard.name for shard in self._shards.usable()] if missing else ()
        more = await self._ask({name: [key for key in missing if owners[key] != name] for name in others})
        _LOOKED_UP.labels(_ELSEWHERE).inc(len(more))
        _LOOKED_UP.labels(_MISSED).inc(len(missing) - len(more))
        return found | more

    def _owner(self, item: Sought) -> str:
        queued = QueueItem(item.task_id, item.attempt, item.lane, 0, 0, False, b"", item.traits)
        return self._shards.ring.owner(self._routing_key(queued)) or ""

    async def _ask(self, keys: Mapping[str, Sequence[Key]]) -> dict[Key, Ended]:
        """Ask shards for what is named beside them; one that does not answer has nothing."""
        asked = (self._ask_one(self._shards.get(name), part) for name, part in keys.items() if part)
        return {key: ended for answer in await asyncio.gather(*asked) for key, ended in answer}

    async def _ask_one(self, shard: Shard | None, keys: Sequence[Key]) -> Iterable[tuple[Key, Ended]]:
        if shard is None:
            return ()
        try:
            texts = await shard.outcomes([task_id for task_id, _ in keys])
        except ShardError:
            return ()
        kept = ((key, _from_tombstone(key, text)) for key, text in zip(keys, texts, strict=True) if text)
        return [(key, ended) for key, ended in kept if ended is not None]


def _from_tombstone(key: Key, text: bytes) -> Ended | None:
    """The end that a tombstone keeps: `attempt terminal outcome content`; None where it keeps none."""
    attempt, _, outcome, content = text.split(b" ", 3)
    number = int(outcome)
    if int(attempt) != key[1] or not number:
        return None
    success, error = (content, None) if number == 1 else (None, content)
    return Ended(key[0], key[1], "", number, 0, 0, "", 0, 0, success, error, "", "", "")
