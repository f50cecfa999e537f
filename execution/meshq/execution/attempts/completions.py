"""What workers report, taken to where it belongs: ends to the recorder, unrun tasks back to their shards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from meshq.execution.attempts.recorder import Recorder
from meshq.execution.conversion.results import Reported
from meshq.execution.model import Ended, Lease, Status
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shards import Shards

Answer = Callable[[list[tuple[bytes, Status]]], None]


class Completions:
    """See the module.

    Args:
        recorder: Records ends.
        shards: Take back what was not run.
    """

    def __init__(self, recorder: Recorder, shards: Shards) -> None:
        self._recorder = recorder
        self._shards = shards
        self._releases: set[asyncio.Task[None]] = set()

    def submit(self, results: Sequence[Reported], answer: Answer) -> None:
        """Settle results; `answer` is called once or twice with tokens and what became of them."""
        rows = [result.ended for result in results if result.ended is not None]
        if rows:
            tokens = [result.token for result in results if result.ended is not None]
            self._recorder.submit(rows, lambda statuses: answer(list(zip(tokens, statuses, strict=True))))
        back = [(result.token, result.lease) for result in results if result.ended is None]
        if back:
            task = asyncio.create_task(self._release_and_answer(back, answer))
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)

    async def settle(self, results: Sequence[Reported]) -> list[Status]:
        """Settle results and wait for what became of each."""
        rows = [result.ended for result in results if result.ended is not None]
        back = [result.lease for result in results if result.ended is None]
        recorded, released = await asyncio.gather(self._record(rows), self._release(back))
        ends, returns = iter(recorded), iter(released)
        return [next(returns) if result.ended is None else next(ends) for result in results]

    async def _record(self, rows: list[Ended]) -> list[Status]:
        return await self._recorder.record(rows) if rows else []

    async def _release_and_answer(self, back: list[tuple[bytes, Lease]], answer: Answer) -> None:
        statuses = await self._release([lease for _, lease in back])
        answer([(token, status) for (token, _), status in zip(back, statuses, strict=True)])

    async def _release(self, leases: list[Lease]) -> list[Status]:
        statuses = [Status.LEASE_LOST] * len(leases)
        by_shard: dict[str, list[int]] = {}
        for index, lease in enumerate(leases):
            by_shard.setdefault(lease.shard, []).append(index)
        for name, indexes in by_shard.items():
            found = await self._release_on(name, [leases[index] for index in indexes])
            for index, status in zip(indexes, found, strict=True):
                statuses[index] = status
        return statuses

    async def _release_on(self, name: str, leases: list[Lease]) -> list[Status]:
        shard = self._shards.get(name)
        if shard is None:
            return [Status.LEASE_LOST] * len(leases)
        try:
            states = await shard.release(leases)
        except ShardError:
            return [Status.TRY_LATER] * len(leases)
        return [Status.ACCEPTED if held else Status.LEASE_LOST for held in states]
