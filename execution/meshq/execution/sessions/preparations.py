"""What has to be settled before a worker gets a leased task: an announced start, and the last checkpoint.

Most tasks need neither and never come here. A task that cannot be prepared in time goes back to its shard, as
if it had not been taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final, NamedTuple

from meshq.contract.errors import MeshqError
from meshq.execution.attempts.announcer import Announcer, started
from meshq.execution.attempts.checkpoints import Checkpoints
from meshq.execution.model import Lease
from meshq.execution.ring.errors import EpochChanged, ShardError
from meshq.execution.ring.shards import Shards
from meshq.mesh.lifecycle import backoff
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_MOST_PAUSE: Final = 2.0


class Starting(NamedTuple):
    """A leased task on its way to a worker; `announce` where the ledger must know of the start."""

    lease: Lease
    worker_id: str
    announce: bool


class Preparations:
    """See the module.

    Args:
        shards: Take back what cannot be prepared.
        announcer: Tells the ledger of starts.
        checkpoints: The last checkpoints of earlier attempts.
        patience: Seconds for all of it; well below the time in which a delivery has to be acknowledged.
    """

    def __init__(
        self, shards: Shards, announcer: Announcer, checkpoints: Checkpoints, patience: float
    ) -> None:
        self._shards = shards
        self._announcer = announcer
        self._checkpoints = checkpoints
        self._patience = patience
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Nothing has to begin."""

    async def stop(self) -> None:
        """Prepare no more; what is under way goes back by its deadline."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Go on with something while others get their tasks."""
        task = asyncio.create_task(work, name="preparing")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def prepare(self, starting: Sequence[Starting]) -> list[bytes | None]:
        """Settle what has to be.

        Returns:
            For each task the encoded checkpoint, empty without one; None where the task must not be started:
            it is back on its shard, or what the ledger wanted has been done.
        """
        verdicts = await self._announced(starting)
        ready = [item.lease for item, may in zip(starting, verdicts, strict=True) if may]
        found = await self._loaded([lease.task_id for lease in ready if lease.attempt > 1])
        back = [item.lease for item, may in zip(starting, verdicts, strict=True) if may is None]
        if found is None:
            back += [lease for lease in ready if lease.attempt > 1]
        if back:
            await self.give_back(back)
        returned = set(back)
        return [
            (found or {}).get(item.lease.task_id, b"") if may and item.lease not in returned else None
            for item, may in zip(starting, verdicts, strict=True)
        ]

    async def received(self, leases: Sequence[tuple[Lease, str]]) -> set[Lease]:
        """Count deliveries as acknowledged before they are made (leases and their sessions).

        What was announced may be started once, and a delivery that comes late is started by its worker. So
        the task must not go to another one because this one was not heard in time.

        Returns:
            Those that must not be delivered: they are lost, or their shard does not answer.
        """
        by_shard: dict[str, list[tuple[Lease, str]]] = {}
        for lease, session in leases:
            by_shard.setdefault(lease.shard, []).append((lease, session))
        refused: set[Lease] = set()
        for name, part in by_shard.items():
            shard = self._shards.get(name)
            try:
                lost = await shard.received(part) if shard else range(len(part))
                refused |= {part[index][0] for index in lost}
            except ShardError:
                # It may have been noted all the same, and then no deadline brings the tasks back.
                refused |= {lease for lease, _ in part}
                self.later(self._give_back_surely(name, [lease for lease, _ in part]))
        return refused

    async def _give_back_surely(self, name: str, leases: Sequence[Lease]) -> None:
        failures = 0
        while (shard := self._shards.get(name)) is not None:
            try:
                await shard.release(leases)
            except EpochChanged:
                return
            except ShardError:
                failures += 1
                await asyncio.sleep(backoff(failures, most=_MOST_PAUSE))
            else:
                return

    async def give_back(self, leases: Sequence[Lease]) -> None:
        """Give tasks back that no worker has got; where the shard is away they go back by their deadline."""
        by_shard: dict[str, list[Lease]] = {}
        for lease in leases:
            by_shard.setdefault(lease.shard, []).append(lease)
        for name, part in by_shard.items():
            shard = self._shards.get(name)
            if shard is None:
                continue
            try:
                await shard.release(part)
            except ShardError as error:
                _log.debug("tasks go back by their deadline", shard=name, reason=str(error))

    async def _announced(self, starting: Sequence[Starting]) -> list[bool | None]:
        verdicts: list[bool | None] = [True] * len(starting)
        places = [index for index, item in enumerate(starting) if item.announce]
        if places:
            reports = [started(starting[index].lease, starting[index].worker_id) for index in places]
            answers = await self._announcer.announce(reports, self._patience)
            for index, answer in zip(places, answers, strict=True):
                verdicts[index] = answer
        return verdicts

    async def _loaded(self, task_ids: Sequence[bytes]) -> dict[bytes, bytes] | None:
        """Checkpoints by task; None when the database does not answer."""
        if not task_ids:
            return {}
        try:
            async with asyncio.timeout(self._patience):
                return await self._checkpoints.of(task_ids)
        except (MeshqError, TimeoutError) as error:
            _log.warning("tasks wait for their checkpoints", count=len(task_ids), reason=str(error))
            return None

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("tasks could not be handed out; they go back by their deadline", exc_info=error)
