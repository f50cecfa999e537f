"""What management asks of the shards by id: all of them are asked, and a silent one is not a no."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from meshq.execution.attempts.recorded import Key, RecordedEnds
from meshq.execution.model import Compared, Depth, Explained, Withdrawn
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shard import Shard, ShardState
from meshq.execution.ring.shards import Shards

T = TypeVar("T")

_REMOVED: Final = 1
_LEASED: Final = 2


class Inquiries:
    """See the module.

    Args:
        shards: Who is asked.
        recorded: Reports those again that are asked about though they have ended.
        grace_ms: How long a cancelled task has to stop.
    """

    def __init__(self, shards: Shards, recorded: RecordedEnds, grace_ms: int) -> None:
        self._shards = shards
        self._recorded = recorded
        self._grace_ms = grace_ms

    async def compare(self, keys: Sequence[Key]) -> list[Compared]:
        """Say what the shards know of attempts; one that has ended is reported again and is present."""
        answers = await self._ask_all(lambda shard: shard.compare(keys))
        certain = all(answer is not None and not answer[0] for answer in answers)
        known = [
            any(answer is not None and answer[1][index] for answer in answers) for index in range(len(keys))
        ]
        missing = [key for key, is_known in zip(keys, known, strict=True) if not is_known]
        over = await self._recorded.report_again(missing)
        absent = Compared.MISSING if certain and over is not None else Compared.UNCERTAIN
        return [
            Compared.PRESENT if is_known or (over is not None and key in over) else absent
            for key, is_known in zip(keys, known, strict=True)
        ]

    async def withdraw(self, items: Sequence[tuple[bytes, int, str, str]]) -> list[Withdrawn]:
        """Take tasks (id, attempt, reason, mode) off the shards; the mode is `cancel` or `recall`.

        A cancelled task that a worker has is ended when its grace is over, whether the worker has said so or
        not.
        """
        answers = await self._ask_all(lambda shard: shard.withdraw(items, self._grace_ms))
        certain = all(answer is not None for answer in answers) and self._settled()
        found = [{answer[index] for answer in answers if answer is not None} for index in range(len(items))]
        quiet = [item[:2] for item, states in zip(items, found, strict=True) if _LEASED not in states]
        over = await self._recorded.report_again(quiet)
        states = []
        for item, seen in zip(items, found, strict=True):
            if _LEASED in seen:
                states.append(Withdrawn.LEASED)
            elif over is None:
                states.append(Withdrawn.UNCERTAIN)
            elif item[:2] in over:
                states.append(Withdrawn.ENDED)
            elif _REMOVED in seen:
                states.append(Withdrawn.REMOVED)
            else:
                states.append(Withdrawn.UNKNOWN if certain else Withdrawn.UNCERTAIN)
        return states

    async def explain(self, task_ids: Sequence[bytes]) -> list[Explained | None]:
        """What the shards know of tasks: None where one of them that may have it did not answer."""
        answers = await self._ask_all(lambda shard: shard.explain(task_ids))
        certain = all(answer is not None for answer in answers)
        found: list[Explained | None] = []
        for index in range(len(task_ids)):
            known = [answer[index] for answer in answers if answer is not None]
            there = [item for item in known if item.state != "none"]
            # A task may stand on two shards for a moment; the one that has leased it says more.
            there.sort(key=lambda item: item.state != "leased")
            found.append(there[0] if there else Explained("none") if certain else None)
        return found

    def recovering(self) -> bool:
        """Whether some shard is being compared with the ledger, and new repeats have to wait for it."""
        return not self._settled()

    async def describe(self, tenant: str, queues: Sequence[str]) -> tuple[list[Depth], bool]:
        """The figures of queues, summed over the shards, and whether all of them answered."""
        scopes = [f"{tenant}/{queue}" for queue in queues]
        answers = await self._ask_all(lambda shard: shard.describe(scopes))
        heard = [answer for answer in answers if answer is not None]
        depths = [_sum([answer[index] for answer in heard]) for index in range(len(queues))]
        return depths, len(heard) == len(answers)

    def _settled(self) -> bool:
        return all(shard.state is ShardState.OPEN for shard in self._shards.all())

    async def _ask_all(self, ask: Callable[[Shard], Awaitable[T]]) -> list[T | None]:
        """The answer of every shard, None where it gave none."""

        async def answer(shard: Shard) -> T | None:
            try:
                return await ask(shard)
            except ShardError:
                return None

        shards = self._shards.all()
        return await asyncio.gather(*(answer(shard) for shard in shards)) if shards else [None]


def _sum(depths: Sequence[Depth]) -> Depth:
    oldest = [depth.oldest_ms for depth in depths if depth.oldest_ms]
    return Depth(
        sum(depth.ready for depth in depths),
        sum(depth.delayed for depth in depths),
        sum(depth.leased for depth in depths),
        min(oldest, default=0),
    )
