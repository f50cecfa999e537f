"""What an instance knows of the tasks that the shards have of some classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from time import monotonic
from typing import Final

from meshq.execution.ring.doorbell import Doorbell
from meshq.execution.ring.keys import queue_class
from meshq.execution.ring.shard import Shard
from meshq.execution.ring.shards import Shards

CLASSES_AT_ONCE: Final = 400
ABREAST_MS: Final = 1_000.0
"""Shards whose next tasks are so close in time are leased from side by side."""

NEGLECTED_SECONDS: Final = 0.1
"""A shard with tasks that was not asked for so long is asked first, however old the backlogs of others are:
a fairness key whose tasks are all on that shard must not wait for keys whose tasks are elsewhere."""

SLOW_SECONDS: Final = 0.5
"""A shard whose last answer took longer is slow, unless all are: it gets only its part of the room at a time,
however old its tasks are."""

UNKNOWN: Final = float("-inf")
NOTHING: Final = float("inf")


class Stock:
    """See the module. Shards with nothing are not asked again until they ring, none is asked twice at a time.

    Args:
        classes: The classes, at most as many as one call may name.
        shards: The shards.
        doorbell: Calls when there is something.
        on_rung: Told that there may be something.
        clock: Seconds.
    """

    def __init__(
        self,
        classes: Sequence[str],
        shards: Shards,
        doorbell: Doorbell,
        on_rung: Callable[[], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.classes = tuple(classes)
        self.tenants = [name.partition("/")[0] for name in classes]
        self.lanes = [f"{name}/" for name in classes]
        self._shards = shards
        self._doorbell = doorbell
        self._on_rung = on_rung
        self._heads: dict[str, float] = {}
        self._rings: dict[str, int] = {}
        self._clock = clock
        self._asked: dict[str, float] = {}
        self._under_way: dict[str, float] = {}
        self._slow: set[str] = set()

    def start(self) -> None:
        """Be called."""
        self._doorbell.wait_for(self.classes, self)

    def stop(self) -> None:
        """Be called no more."""
        self._doorbell.forget(self.classes, self)

    def rung(self, shard: str) -> None:
        """A shard may have something."""
        self._heads[shard] = UNKNOWN
        self._rings[shard] = self.rings(shard) + 1
        self._on_rung()

    def expect(self, shard: str) -> None:
        """A shard is about to get something. One that is known to have some is asked anyway."""
        head = self._heads.get(shard, UNKNOWN)
        if shard in self._under_way or not UNKNOWN < head < NOTHING:
            self.rung(shard)

    def rings(self, shard: str) -> int:
        """How often a shard has rung."""
        return self._rings.get(shard, 0)

    def ask(self, shard: str) -> int:
        """A shard is asked; returns how often it has rung."""
        self._under_way[shard] = self._clock()
        return self.rings(shard)

    def note(self, shard: str, rings: int, head: float | None) -> None:
        """A call has shown a shard's next score, None when it has nothing; a later ring counts more."""
        self._asked[shard] = now = self._clock()
        if now - self._under_way.pop(shard, now) > SLOW_SECONDS:
            self._slow.add(shard)
        else:
            self._slow.discard(shard)
        if self.rings(shard) == rings:
            self._heads[shard] = NOTHING if head is None else head

    def forget(self) -> None:
        """Whatever is known may be wrong: ask all shards again."""
        self._heads.clear()

    @property
    def any(self) -> bool:
        """Whether some shard is to be asked."""
        return bool(self.furthest_behind() or self._late())

    @property
    def backlog(self) -> bool:
        """Whether some shard is known to have more."""
        return any(head < NOTHING for head in self._heads.values())

    def shares(self, wanted: int) -> list[tuple[Shard, int]]:
        """Whom to ask for how many of so many tasks."""
        late = self._late()
        if not late:
            return spread(wanted, self.furthest_behind())
        part = max(1, wanted // len(self._shards.usable()))
        late = late[:wanted]
        rest = max(0, wanted - part * len(late))
        return [*((shard, part) for shard in late), *spread(rest, self.furthest_behind())]

    def furthest_behind(self) -> list[Shard]:
        """The shards to ask: unknown and neglected ones, and those whose heads are about the oldest."""
        slow = self._slower()
        shards = [
            (self._head(shard.name), shard)
            for shard in self._shards.usable()
            if shard.name not in self._under_way and shard.name not in slow
        ]
        known = [head for head, _ in shards if UNKNOWN < head < NOTHING]
        limit = min(known) + ABREAST_MS if known else UNKNOWN
        chosen = [(head, shard) for head, shard in shards if head <= limit]
        return [shard for _, shard in sorted(chosen, key=lambda pair: pair[0])]

    def _late(self) -> list[Shard]:
        """The slow shards that may have something."""
        slow = self._slower()
        return [
            shard
            for shard in (self._shards.usable() if slow else ())
            if shard.name in slow and shard.name not in self._under_way and self._head(shard.name) < NOTHING
        ]

    def _slower(self) -> set[str]:
        """The shards that are slow while others are not."""
        if self._slow and all(shard.name in self._slow for shard in self._shards.usable()):
            return set()
        return self._slow

    def _head(self, shard: str) -> float:
        head = self._heads.get(shard, UNKNOWN)
        neglected = self._clock() - self._asked.get(shard, UNKNOWN) > NEGLECTED_SECONDS
        return UNKNOWN if head < NOTHING and neglected else head


def classes_of(tenant: str, queues: Sequence[str], task_types: Sequence[str]) -> list[str]:
    """What a consumer of these queues and types asks for."""
    return sorted({queue_class(tenant, queue, name) for queue, name in product(queues, task_types)})


def spread(wanted: int, shards: Sequence[Shard]) -> list[tuple[Shard, int]]:
    """Shares of a number of tasks; when it is small, the shards that are furthest behind get it."""
    if not shards:
        return []
    share, rest = divmod(wanted, len(shards))
    counts = [share + (index < rest) for index in range(len(shards))]
    return [(shard, count) for shard, count in zip(shards, counts, strict=True) if count]
