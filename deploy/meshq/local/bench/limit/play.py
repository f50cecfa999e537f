"""Plays frames: one stage after the other, or all stages at the same time as the system does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

from meshq.local.bench.limit.calls import FrameCalls, PartCalls
from meshq.local.bench.limit.stores import LANES, Stores
from meshq.local.errors import LocalError

UNDER_WAY: Final = 12
"""Frames at a time: enough that no store waits for another."""
_FIELDS_OF_TAKEN: Final = 7

Stage: TypeAlias = Callable[[FrameCalls], Awaitable[object]]


class Player:
    """Sends the calls of frames to the stores. The shards have to be sent frames in the order they were made.

    Attributes:
        stages: By name, in the order in which a frame goes through them.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._recording = asyncio.Semaphore(LANES)
        self._creating = asyncio.Semaphore(LANES)
        self._finishing = asyncio.Semaphore(LANES)
        self.stages: dict[str, Stage] = {
            "create": self.create,
            "enqueue": self.enqueue,
            "lease": self.lease,
            "received": self.received,
            "record": self.record,
            "finish": self.finish,
            "apply": self.apply,
        }

    async def create(self, frame: FrameCalls) -> None:
        """Store the tasks."""
        async with self._creating:
            await self._stores.ledger.run(frame.create.play)

    async def enqueue(self, frame: FrameCalls) -> None:
        """Queue them on their shards."""
        for _, recovering, misrouted in await self._on_shards(frame, lambda part: part.enqueue):
            _expect(not recovering and not misrouted, "a shard refused tasks")

    async def lease(self, frame: FrameCalls) -> None:
        """Lease them."""
        replies = await self._on_shards(frame, lambda part: part.lease)
        for reply, part in zip(replies, frame.parts.values(), strict=True):
            _expect(reply[3::_FIELDS_OF_TAKEN] == part.leased, "a shard leased other tasks than expected")

    async def received(self, frame: FrameCalls) -> None:
        """Acknowledge their deliveries."""
        for lost in await self._on_shards(frame, lambda part: part.received):
            _expect(not lost, "a lease was lost")

    async def record(self, frame: FrameCalls) -> None:
        """Record the ends of their attempts."""
        async with self._recording:
            cursor = await self._stores.attempts.run(frame.record.play)
        _expect(cursor.rowcount == frame.tasks, "an attempt had been recorded before")

    async def finish(self, frame: FrameCalls) -> None:
        """Move them to their ends in the ledger."""
        async with self._finishing:
            await self._stores.ledger.run(frame.finish.play)

    async def apply(self, frame: FrameCalls) -> None:
        """Settle them on their shards."""
        await self._on_shards(frame, lambda part: part.apply)

    async def alone(self, stage: Stage, frames: Sequence[FrameCalls]) -> None:
        """Take all frames through one stage."""
        room = asyncio.Semaphore(UNDER_WAY)

        async def play(frame: FrameCalls) -> None:
            async with room:
                await stage(frame)

        await asyncio.gather(*map(play, frames))

    async def together(self, frames: Sequence[FrameCalls]) -> None:
        """Take all frames through all stages, many frames at a time."""
        room = asyncio.Semaphore(UNDER_WAY)
        turns = [asyncio.Event() for _ in range(len(frames) + 1)]
        turns[0].set()

        async def play(index: int, frame: FrameCalls) -> None:
            async with room:
                await self.create(frame)
                await turns[index].wait()
                leased = asyncio.gather(self.enqueue(frame), self.lease(frame), self.received(frame))
                # The calls are made in the first turn of the loop that these have.
                await asyncio.sleep(0)
                turns[index + 1].set()
                await leased
                await self.record(frame)
                await self.finish(frame)
                await self.apply(frame)

        await asyncio.gather(*(play(index, frame) for index, frame in enumerate(frames)))

    async def _on_shards(self, frame: FrameCalls, command: Callable[[PartCalls], bytes]) -> list[Any]:
        return await asyncio.gather(
            *(self._stores.shards[name].play(command(part)) for name, part in frame.parts.items())
        )


def _expect(kept: bool, broken: str) -> None:
    if not kept:
        raise LocalError(f"The limit was not measured: {broken}.")
