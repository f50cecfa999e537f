"""Slots of limit keys: what the ring places, and what a shard can tell by itself.

The limits of a key are counted by the shard of its slot. A slot is the beginning of the SHA-1 of
`tenant/queue/limit key`, because that is a hash that scripts on a shard can make as well: so a shard that is
told which slots are its own knows of every key whether it is.
"""

from __future__ import annotations

from functools import cache, lru_cache
from hashlib import sha1
from typing import Final

import xxhash

from meshq.execution.ring.hashring import Ring

SLOTS: Final = 16_384
"""Few enough for a map of 2 KiB, many enough for even shares."""


def slot_of(scope: str, limit_key: str) -> int:
    """The slot of a limit key of a queue (`tenant/queue`)."""
    digest = sha1(f"{scope}/{limit_key}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:2], "big") % SLOTS


@lru_cache(maxsize=SLOTS)
def routing_key(scope: str, limit_key: str) -> bytes:
    """What the ring hashes to find the shard of a limit key."""
    return _routing_key(slot_of(scope, limit_key))


@lru_cache(maxsize=2)
def maps(ring: Ring) -> dict[str, bytes]:
    """Which slots each shard has: a bit for each slot, the lowest bit of a byte first."""
    found = {shard.name: bytearray(SLOTS // 8) for shard in ring.shards}
    for slot, place in enumerate(_places()):
        owner = ring.owner_at(place)
        if owner is not None:
            found[owner][slot >> 3] |= 1 << (slot & 7)
    return {name: bytes(bits) for name, bits in found.items()}


@cache
def _places() -> list[int]:
    """Where the slots are on the circle."""
    return [xxhash.xxh64_intdigest(_routing_key(slot)) for slot in range(SLOTS)]


def _routing_key(slot: int) -> bytes:
    return b"limit-slot/%d" % slot
