"""The consistent-hash ring: routing keys to shards.

Each shard has points on a circle of 64 bits, as many as its weight times `POINTS_PER_WEIGHT`; a key belongs
to the first point at or after its hash. Adding a shard to N moves about 1/(N+1) of the keys, all of them to
the new one.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import xxhash

POINTS_PER_WEIGHT: Final = 8_192
"""The share of a shard has a relative standard deviation of about 1/sqrt(points); with so many, shares stay
within 5 % of even (4.5 standard deviations)."""

_CIRCLE: Final = 1 << 64
_TIME_BYTES: Final = 6
_TIMES: Final = [bytes((byte & 0xF0,)) for byte in range(256)]


def key_of_id(task_id: bytes) -> bytes:
    """What the ring hashes of a task's id: the sixteen milliseconds in which it was created.

    So tasks that are created together stay together: a frame of them is queued, leased and ended with one
    call each, where it would take one to every shard each time. The moments pass so fast that all shards have
    the same to do.
    """
    return task_id[: _TIME_BYTES - 1] + _TIMES[task_id[_TIME_BYTES - 1]]


@dataclass(frozen=True, slots=True)
class RingShard:
    """A shard as the ring has it.

    Attributes:
        name: Stable over restarts and moves.
        address: `host:port`, or whose primary it is; see `address`.
        weight: Its share relative to the others.
        draining: Whether it takes no new tasks.
        out: Whether it could not be used for so long that nobody asks it anything; it comes back empty.
    """

    name: str
    address: str
    weight: int = 1
    draining: bool = False
    out: bool = False

    @property
    def takes(self) -> bool:
        """Whether new tasks belong to it."""
        return not self.draining and not self.out


class Ring:
    """One version of the ring; never changes.

    Args:
        version: Counts the versions.
        shards: All shards, also those that take no tasks.
    """

    def __init__(self, version: int, shards: Iterable[RingShard]) -> None:
        self.version = version
        self.shards = tuple(sorted(shards, key=lambda shard: shard.name))
        self._hashes: list[int] = []
        self._names: list[str] = []
        self._shares: dict[str, float] = {}

    def build(self) -> None:
        """Make the points, which takes a while, if that was not done."""
        if self._hashes:
            return
        owners: dict[int, str] = {}
        for shard in self.shards:
            if shard.takes:
                owners |= dict.fromkeys(_points(shard.name, shard.weight), shard.name)
        # Those of each shard are sorted already, which makes this fast.
        self._hashes = sorted(owners)
        self._names = [owners[point] for point in self._hashes]

    def member(self, name: str) -> RingShard | None:
        """The shard of that name."""
        return next((shard for shard in self.shards if shard.name == name), None)

    def owner(self, key: bytes) -> str | None:
        """The name of the shard that takes a key; None when no shard takes tasks."""
        return self.owner_at(xxhash.xxh64_intdigest(key))

    def owner_at(self, place: int) -> str | None:
        """The same for a place on the circle, which is the hash of a key."""
        if not self._names:
            self.build()
            if not self._names:
                return None
        at = bisect_left(self._hashes, place)
        return self._names[at if at < len(self._names) else 0]

    def shares(self) -> dict[str, float]:
        """The part of the circle that each shard owns, 0 to 1."""
        if not self._shares:
            self._shares = self._measured()
        return dict(self._shares)

    def _measured(self) -> dict[str, float]:
        self.build()
        shares = dict.fromkeys((shard.name for shard in self.shards), 0)
        before = self._hashes[-1] - _CIRCLE if self._hashes else 0
        for point, name in zip(self._hashes, self._names, strict=True):
            shares[name] += point - before
            before = point
        return {name: share / _CIRCLE for name, share in shares.items()}


@lru_cache(maxsize=64)
def _points(name: str, weight: int) -> array[int]:
    """The points depend on the name alone, so that a shard may move to another address."""
    seed = xxhash.xxh64_intdigest(name.encode())
    count = weight * POINTS_PER_WEIGHT
    return array("Q", sorted(xxhash.xxh64_intdigest(struct.pack("<QI", seed, at)) for at in range(count)))
