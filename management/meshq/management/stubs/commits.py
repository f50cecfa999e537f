"""The commits of another management instance, for the watchers of this one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import grpc

from meshq.contract.limits import STREAM_KEEPALIVE_SECONDS
from meshq.internal.v1 import commit_service_pb2, commit_service_pb2_grpc
from meshq.internal.v1.commit_service_pb2 import Commit, CommittedEnd
from meshq.management.conversion.commits import committed_end, committed_row
from meshq.management.conversion.contents import content_of
from meshq.management.stubs.fleet import StreamLost, together
from meshq.management.watch.bus import Bus
from meshq.management.watch.fresh import FreshContent

_SILENCE_SECONDS: Final = 2.5 * STREAM_KEEPALIVE_SECONDS
_LINGER_SECONDS: Final = 30.0
_LINGER_COMMITS: Final = 1_000
"""For how long and how many commits are still wanted after the last watcher has gone; the next is not far."""


class CommitLink:
    """See `meshq.management.stubs.fleet.Link`.

    Args:
        channel: To the instance.
        own_id: This instance.
        bus: Who watches here.
        gap: Called when commits may have been missed.
        now_ms: The clock.
        queues_changed: Called when settings of queues have changed, or may have unheard.
        fresh: Gets the results that come along.

    Attributes:
        heard_ms: Until when all commits of the instance have arrived; 0 while creations are not wanted.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        own_id: str,
        bus: Bus,
        *,
        gap: Callable[[], None],
        now_ms: Callable[[], int],
        queues_changed: Callable[[], None],
        fresh: FreshContent,
    ) -> None:
        self._stub = commit_service_pb2_grpc.CommitServiceStub(channel)
        self._own_id = own_id
        self._bus = bus
        self._gap = gap
        self._now_ms = now_ms
        self._queues_changed = queues_changed
        self._fresh = fresh
        self._changed = asyncio.Event()
        self._expected: int | None = None
        self._creations = False
        self._unheeded = 0
        self.heard_ms = 0

    def watched_changed(self) -> None:
        """The first watcher has come, or the last one has gone."""
        self._changed.set()

    async def run(self) -> None:
        """Ask for commits while somebody watches, and pass them on, until the stream is lost."""
        self._expected = None
        call: Any = self._stub.StreamCommits()
        try:
            await call.write(commit_service_pb2.StreamCommitsRequest(instance_id=self._own_id))
            await together(self._ask(call), self._receive(call))
        finally:
            call.cancel()

    async def retire(self) -> None:
        """The instance's last commits are found by reading the rows again."""
        self._gap()

    async def _ask(self, call: Any) -> None:
        told = (False, False)
        while True:
            self._changed.clear()
            wanted = (self._bus.busy, self._bus.creations_wanted)
            if wanted != told:
                told = wanted
                self._follow(creations=wanted[1])
                await call.write(
                    commit_service_pb2.StreamCommitsRequest(interested=wanted[0], creations=wanted[1])
                )
            await self._changed.wait()
            if told[0] and not self._bus.busy:
                await self._linger()

    def _follow(self, *, creations: bool) -> None:
        if creations != self._creations:
            self._creations = creations
            self.heard_ms = 0

    async def _linger(self) -> None:
        self._unheeded = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while not self._bus.busy and self._unheeded < _LINGER_COMMITS:
                    self._changed.clear()
                    await self._changed.wait()

    def _heed(self, count: int) -> None:
        if not self._bus.busy:
            self._unheeded += count
            if self._unheeded >= _LINGER_COMMITS:
                self._changed.set()

    async def _receive(self, call: Any) -> None:
        while True:
            async with asyncio.timeout(_SILENCE_SECONDS):
                response = await call.read()
            if response is grpc.aio.EOF:
                raise StreamLost(f"ended: {await call.details()}")
            self._take(response)

    def _take(self, response: commit_service_pb2.StreamCommitsResponse) -> None:
        if response.changed_queues or self._expected is None:
            # Changes from before the first frame were told to nobody here.
            self._queues_changed()
        if response.sequence - len(response.commits) - len(response.ends) + 1 != self._expected:
            self._gap()
        self._expected = response.sequence + 1
        changes: list[Commit | CommittedEnd] = [*response.commits, *response.ends]
        self._heed(len(changes))
        for change in changes:
            if content := content_of(change):
                self._fresh.add((change.task_id, change.attempt), content)
        self._bus.publish_rows([committed_row(commit) for commit in response.commits])
        self._bus.publish_over([committed_end(end) for end in response.ends])
        if self._creations:
            self.heard_ms = self._now_ms()
