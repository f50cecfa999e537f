"""What workers report, taken to where it belongs.

Ends go to the recorder, unrun tasks back to their shards, and those that somebody else will complete to the
deferrals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from meshq.contract.errors import MeshqError
from meshq.execution.attempts.checkpoints import Checkpoints
from meshq.execution.attempts.deferrals import Deferrals
from meshq.execution.attempts.fence import Fence
from meshq.execution.attempts.recorder import Recorder
from meshq.execution.conversion.results import Reported
from meshq.execution.model import Deferral, Ended, Lease, Status
from meshq.execution.news import ProgressBoard
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shards import Shards
from meshq.mesh.telemetry import logger

_log = logger(__name__)

Answer = Callable[[list[tuple[bytes, Status]]], None]


class Completions:
    """See the module.

    Args:
        recorder: Records ends.
        shards: Take back what was not run.
        deferrals: Keep what somebody else will complete.
        checkpoints: Are written before an end is recorded.
        board: Forgets the progress of what has ended.
        fence: Keeps out leases of another history.
    """

    def __init__(
        self,
        recorder: Recorder,
        shards: Shards,
        deferrals: Deferrals,
        checkpoints: Checkpoints,
        board: ProgressBoard,
        *,
        fence: Fence,
    ) -> None:
        self._recorder = recorder
        self._shards = shards
        self._deferrals = deferrals
        self._checkpoints = checkpoints
        self._board = board
        self._fence = fence
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, results: Sequence[Reported], answer: Answer) -> None:
        """Settle results; `answer` is called once or several times with tokens and what became of them."""
        if self._fence.concerns(result.lease for result in results):
            self._go(self._submit_some(results, answer))
        else:
            self._submit(results, answer)

    async def _submit_some(self, results: Sequence[Reported], answer: Answer) -> None:
        """Settle what is of this history."""
        verdicts = await self._fenced(results)
        answer([(result.token, verdict) for result, verdict in verdicts if verdict is not None])
        rest = [result for result, verdict in verdicts if verdict is None]
        if rest:
            self._submit(rest, answer)

    async def _fenced(self, results: Sequence[Reported]) -> list[tuple[Reported, Status | None]]:
        """Each result with what becomes of it if it must not be settled."""
        try:
            outside = await self._fence.outside(result.lease for result in results)
        except MeshqError as error:
            _log.warning("leases of earlier times not looked at", reason=error.message)
            return [(result, Status.TRY_LATER) for result in results]
        return [(result, Status.LEASE_LOST if result.lease in outside else None) for result in results]

    def _submit(self, results: Sequence[Reported], answer: Answer) -> None:
        rows = [result.ended for result in results if result.ended is not None]
        if rows:
            tokens = [result.token for result in results if result.ended is not None]
            self._board.forget(row.task_id for row in rows)
            if self._checkpoints.concern(rows):
                self._go(self._answered(tokens, self._record(rows), answer))
            else:
                self._recorder.submit(rows, lambda statuses: answer(list(zip(tokens, statuses, strict=True))))
        if len(rows) == len(results):
            return
        others = [result for result in results if result.ended is None]
        back = [result for result in others if result.deferral is None]
        if back:
            released = self._release([result.lease for result in back])
            self._go(self._answered([result.token for result in back], released, answer))
        deferrals = [result.deferral for result in others if result.deferral is not None]
        if deferrals:
            tokens = [result.token for result in others if result.deferral is not None]
            self._go(self._answered(tokens, self._deferrals.defer(deferrals), answer))

    async def settle(self, results: Sequence[Reported]) -> list[Status]:
        """Settle results and wait for what became of each."""
        if not self._fence.concerns(result.lease for result in results):
            return await self._settle(results)
        verdicts = await self._fenced(results)
        settled = iter(await self._settle([result for result, verdict in verdicts if verdict is None]))
        return [next(settled) if verdict is None else verdict for _, verdict in verdicts]

    async def _settle(self, results: Sequence[Reported]) -> list[Status]:
        rows = [result.ended for result in results if result.ended is not None]
        deferrals = [result.deferral for result in results if result.deferral is not None]
        back = [result.lease for result in results if result.ended is None and result.deferral is None]
        self._board.forget(row.task_id for row in rows)
        parts = await asyncio.gather(self._record(rows), self._defer(deferrals), self._release(back))
        ended, deferred, released = (iter(part) for part in parts)
        return [
            next(ended) if result.ended else next(deferred) if result.deferral else next(released)
            for result in results
        ]

    async def _record(self, rows: list[Ended]) -> list[Status]:
        if not rows:
            return []
        if self._checkpoints.concern(rows):
            try:
                await self._checkpoints.settle(rows)
            except MeshqError as error:
                _log.warning("checkpoints of ending attempts not written", reason=error.message)
                return [Status.TRY_LATER] * len(rows)
        return await self._recorder.record(rows)

    async def _defer(self, deferrals: list[Deferral]) -> list[Status]:
        return await self._deferrals.defer(deferrals) if deferrals else []

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _answered(tokens: list[bytes], work: Awaitable[list[Status]], answer: Answer) -> None:
        answer(list(zip(tokens, await work, strict=True)))

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
