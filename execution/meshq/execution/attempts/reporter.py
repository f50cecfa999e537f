"""Tells the ledger what happened and applies its answers to the shards.

Reports are repeated for ever: the ledger computes its answer from its own row, so a repeated report does no
harm. The first report goes at once; while one is under way the next ones gather, and more go beside it only
when there are many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import Final, Protocol

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.execution.model import Action, Directive, Ended
from meshq.execution.ring.errors import EpochChanged, ShardError
from meshq.execution.ring.shard import Applied
from meshq.execution.ring.shards import Shards
from meshq.execution.ring.tombstones import light, tombstone
from meshq.mesh.lifecycle import backoff
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_MAX_WAITING: Final = 50_000
_MAX_CALLS: Final = 4
_MANY: Final = 250
_APPLY_PAUSE: Final = 0.2

Key = tuple[bytes, int, bool]

_ALL_SHARDS: Final = ""


class Ledger(Protocol):
    """Who is told."""

    async def report(self, reports: Sequence[Ended]) -> list[Directive]:
        """Report ends (or starts, with outcome 0) and get what is to be done."""


class Forgetter(Protocol):
    """Who forgets what is recorded of a task."""

    async def delete(self, task_ids: Sequence[bytes]) -> None:
        """Forget the attempts of tasks."""


class Reporter:
    """See the module.

    Args:
        ledger: Who is told.
        shards: Where directives are applied.
        attempts: Forgets what the ledger does not know.
    """

    def __init__(self, ledger: Ledger, shards: Shards, attempts: Forgetter) -> None:
        self._ledger = ledger
        self._shards = shards
        self._attempts = attempts
        self._waiting: dict[Key, Ended] = {}
        self._under_way: dict[Key, str] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._running = False

    @property
    def full(self) -> bool:
        """Whether so many reports wait that no more results should be accepted."""
        return len(self._waiting) >= _MAX_WAITING

    async def reported(self) -> None:
        """Return when everything was reported and applied."""
        while self._waiting or self._calls:
            await asyncio.wait(self._calls or {asyncio.ensure_future(asyncio.sleep(0))})

    async def start(self) -> None:
        """Begin to report."""
        self._running = True
        self._go_on()

    async def stop(self) -> None:
        """Stop; what was not reported is found by whoever takes over the leases."""
        self._running = False
        for call in tuple(self._calls):
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def add(self, ended: Ended) -> None:
        """Report an end, or a start (outcome 0), unless the same report for the same shard is on its way."""
        key = (ended.task_id, ended.attempt, ended.outcome > 0)
        if self._under_way.get(key) == ended.shard:
            return
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.shard != ended.shard:
            # Two shards hold the task under one attempt: the answer concerns both.
            ended = ended._replace(shard=_ALL_SHARDS)
        # Many may wait while the ledger is away; their results are in the database and of no use here.
        self._waiting[key] = light(ended)
        if not self._calls or len(self._waiting) == _MANY:
            self._go_on()

    def _go_on(self) -> None:
        while self._running and self._waiting and self._room():
            call = asyncio.create_task(self._tell_all(), name="report")
            self._calls.add(call)
            call.add_done_callback(self._ended)
            if len(self._waiting) < _MANY * len(self._calls):
                break

    def _room(self) -> bool:
        calls = len(self._calls)
        return calls == 0 or (calls < _MAX_CALLS and len(self._waiting) >= _MANY)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            _log.error("reporting failed; the leases keep what was not reported", exc_info=error)
        self._go_on()

    async def _tell_all(self) -> None:
        """One call's work: report, retry until it is answered, apply."""
        # A turn of the loop, so that everything of the same moment goes together.
        await asyncio.sleep(0)
        keys = list(islice(self._waiting, MAX_FRAME_ITEMS))
        if not keys:
            return
        reports = [self._waiting.pop(key) for key in keys]
        self._under_way.update((key, ended.shard) for key, ended in zip(keys, reports, strict=True))
        try:
            directives = await self._answered(reports)
        finally:
            for key in keys:
                self._under_way.pop(key, None)
        await self.apply(reports, directives)

    async def _answered(self, reports: list[Ended]) -> list[Directive]:
        failures = 0
        while True:
            try:
                return await self._ledger.report(reports)
            except MeshqError as error:
                failures += 1
                if failures == 1:
                    _log.warning("reports not answered; repeating", count=len(reports), reason=error.message)
                await asyncio.sleep(backoff(failures, most=2.0))

    async def apply(self, reports: list[Ended], directives: list[Directive]) -> None:
        """Do on the shards what the ledger has answered to reports."""
        by_shard: dict[str, list[Applied]] = {}
        gone: list[bytes] = []
        for ended, directive in zip(reports, directives, strict=True):
            applied = _applied(ended, directive)
            if directive.action == Action.GONE:
                gone.append(ended.task_id)
            if applied is not None:
                for shard in self._holding(ended.shard):
                    by_shard.setdefault(shard, []).append(applied)
        if len(by_shard) == 1:
            for name, items in by_shard.items():
                await self._apply_on(name, items)
        elif by_shard:
            await asyncio.gather(*(self._apply_on(name, items) for name, items in by_shard.items()))
        if gone:
            await self._forget(gone)

    def _holding(self, shard: str) -> list[str]:
        """Where the task of a lease may be: on its shard, or anywhere when that has left the ring."""
        if self._shards.get(shard) is not None:
            return [shard]
        return [shard.name for shard in self._shards.all()]

    async def _apply_on(self, name: str, items: list[Applied]) -> None:
        """Until it is done, or the shard has forgotten the tasks anyway."""
        shard = self._shards.get(name)
        epoch = shard.epoch if shard else 0
        while shard is not None and shard.epoch == epoch:
            try:
                for at in range(0, len(items), MAX_FRAME_ITEMS):
                    await shard.apply(items[at : at + MAX_FRAME_ITEMS])
            except EpochChanged:
                return
            except ShardError:
                await asyncio.sleep(_APPLY_PAUSE)
                shard = self._shards.get(name)
            else:
                return

    async def _forget(self, task_ids: list[bytes]) -> None:
        try:
            await self._attempts.delete(sorted(set(task_ids)))
        except MeshqError as error:
            _log.warning("attempts of unknown tasks stay for now", reason=error.message)


_KINDS: Final[dict[int, str]] = {
    Action.DONE: "done",
    Action.GONE: "gone",
    Action.RUN: "run",
    Action.LATER: "later",
}


def _applied(ended: Ended, directive: Directive) -> Applied | None:
    kind = _KINDS.get(directive.action)
    if kind is None:
        return None
    buried = tombstone(ended) if kind == "done" and ended.outcome else b"0 "
    # A mere start is no end of its lease: if the task is over, its holder is to be told.
    label = f"{ended.epoch}:{ended.number}" if ended.outcome else ""
    return Applied(
        kind, ended.task_id, ended.attempt, label, directive.attempt, directive.not_before_ms, buried
    )
