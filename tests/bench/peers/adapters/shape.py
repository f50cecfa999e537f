"""What every adapter has in common: the work, where the stores are, and what a client can do.

Adapters run in the interpreter of their peer, with nothing but the peer and the standard library, in its
clients as in its workers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol, Self, TypeVar

VALKEY = os.environ.get("PEER_VALKEY", "redis://127.0.0.1:6379/0")
PATIENT_VALKEY = f"{VALKEY}?socket_timeout=300"
"""For calls that block until a result is there: the Redis client would give up after seconds."""
POSTGRES = os.environ.get("PEER_POSTGRES", "postgresql://127.0.0.1:5432/peers")
SETTING = os.environ.get("PEER_SETTING", "")
"""What else the setting says that is played."""
GLANCE = 0.001
"""Seconds between two looks for the result of one task, where a peer has no other way than to look."""
PAUSE = 0.1
"""The same for many: looking more often takes the processor from the workers."""
_CALLERS = 16

Item = TypeVar("Item")
Result = TypeVar("Result")


def word_count(text: str) -> dict[str, int]:
    """The work of every peer, and of meshq."""
    return {"word_count": len(text.split())}


class Client(Protocol):
    """A client of a peer. Each adapter has a class of this name.

    Entering it prepares what workers need, such as tables, before they are started; the process ends after
    it was left, so that not everything has to be closed.
    """

    async def __aenter__(self) -> Self:
        """Connect."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""

    async def bulk(self, texts: Sequence[str]) -> Sequence[Any]:
        """Submit a task for each text as fast as the peer can, and return when all results are here."""

    async def run(self, text: str) -> Any:
        """Submit one task and return its result."""


async def concurrently(
    act: Callable[[Item], Awaitable[Result]], items: Iterable[Item], callers: int = _CALLERS
) -> list[Result]:
    """Await the act for every item, so many at a time; the results in the order of the items."""
    numbered = enumerate(items)
    results: dict[int, Result] = {}

    async def caller() -> None:
        for number, item in numbered:
            results[number] = await act(item)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return [results[number] for number in sorted(results)]
