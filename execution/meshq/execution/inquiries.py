"""What management asks of the shards by id: all of them are asked, and a silent one is not a no."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from time import time
from typing import Final, NamedTuple, TypeVar

from meshq.execution.attempts.recorded import Key, RecordedEnds
from meshq.execution.model import Compared, Depth, Ended, Explained, Lease, Status, Withdrawn, nobodys_lease
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shard import Shard, ShardState
from meshq.execution.ring.shards import Shards

T = TypeVar("T")
Record = Callable[[Sequence[Ended]], Awaitable[list[Status]]]
End = Callable[[Lease, str, int], Ended]

CANCEL: Final = "cancel"
_REMOVED: Final = 1
_LEASED: Final = 2
_HANDED: Final = 4


class Withdrawal(NamedTuple):
    """A task that is to leave the shards; the mode is `cancel` or `recall`."""

    task_id: bytes
    attempt: int
    reason: str
    mode: str
    tenant: str

    @property
    def key(self) -> Key:
        """The attempt."""
        return self.task_id, self.attempt


class Inquiries:
    """See the module.

    Args:
        shards: Who is asked.
        recorded: Reports those again that are asked about though they have ended.
        grace_ms: How long a cancelled task has to stop.
        record: Records ends.
        withdrawn: The end of an attempt that is cancelled while nobody has it: lease, worker, milliseconds.
    """

    def __init__(
        self, shards: Shards, recorded: RecordedEnds, grace_ms: int, *, record: Record, withdrawn: End
    ) -> None:
        self._shards = shards
        self._recorded = recorded
        self._grace_ms = grace_ms
        self._record = record
        self._withdrawn = withdrawn

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

    async def withdraw(self, items: Sequence[Withdrawal]) -> list[Withdrawn]:
        """Take tasks off the shards.

        A cancelled task that a worker has is ended when its grace is over, whether the worker has said so or
        not. One that a worker may have without a lease is ended here and now, so that whatever is recorded
        first decides, and not who is asked first.
        """
        asked = [item[:4] for item in items]
        answers = await self._ask_all(lambda shard: shard.withdraw(asked, self._grace_ms))
        certain = all(answer is not None for answer in answers) and self._settled()
        found = [{answer[index] for answer in answers if answer is not None} for index in range(len(items))]
        quiet = [item.key for item, seen in zip(items, found, strict=True) if _LEASED not in seen]
        over = await self._recorded.report_again(quiet)
        states = [
            self._withdrawn_as(item, seen, certain=certain, over=over)
            for item, seen in zip(items, found, strict=True)
        ]
        doubtful = [
            index
            for index, (item, seen) in enumerate(zip(items, found, strict=True))
            if item.mode == CANCEL
            and (
                states[index] is Withdrawn.UNKNOWN or (states[index] is Withdrawn.REMOVED and _HANDED in seen)
            )
        ]
        for index, state in zip(doubtful, await self._end([items[index] for index in doubtful]), strict=True):
            states[index] = state
        return states

    @staticmethod
    def _withdrawn_as(
        item: Withdrawal, seen: Collection[int], *, certain: bool, over: Collection[Key] | None
    ) -> Withdrawn:
        """What several shards have found together."""
        if _LEASED in seen:
            return Withdrawn.LEASED
        if over is None:
            return Withdrawn.UNCERTAIN
        if item.key in over:
            return Withdrawn.ENDED
        if _REMOVED in seen or _HANDED in seen:
            return Withdrawn.REMOVED
        return Withdrawn.UNKNOWN if certain else Withdrawn.UNCERTAIN

    async def _end(self, items: Sequence[Withdrawal]) -> list[Withdrawn]:
        """Record that attempts are cancelled, unless another end is recorded; it is reported either way."""
        if not items:
            return []
        now_ms = int(time() * 1000)
        rows = [self._withdrawn(nobodys_lease(*item.key, item.tenant, now_ms), "", now_ms) for item in items]
        statuses = await self._record(rows)
        return [Withdrawn.UNCERTAIN if status == Status.TRY_LATER else Withdrawn.ENDED for status in statuses]

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
