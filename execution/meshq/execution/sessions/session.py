"""One worker's session: what it may take, what it holds, and what is to be sent to it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, NamedTuple

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_BYTES, STREAM_KEEPALIVE_SECONDS
from meshq.execution.conversion.frames import (
    NO_CHECKPOINTS,
    PING_FRAME,
    assign_frames,
    cancel_frame,
    lost_frame,
)
from meshq.execution.model import Lease

_PING_SECONDS: Final = STREAM_KEEPALIVE_SECONDS * 0.75
_MAX_FRAMES: Final = 1_000
"""A worker that leaves so many frames, or a full frame's bytes, unread gets no more tasks until it reads."""
_UNHEEDED: Final = 2
"""With so many times as much unread it is not listened to either, since its words may need answers."""


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What a worker says of itself."""

    worker_id: str
    tenant: str
    task_types: tuple[str, ...]
    queues: tuple[str, ...]
    slots: int = 0
    instance_key: bytes = b""
    build_id: str = ""
    user_agent: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset()
    queue_weights: dict[str, int] = field(default_factory=dict)


class HeldTask:
    """A lease of a session.

    Attributes:
        lease: The lease.
        lane: Its lane, as far as it is known.
        extras: What the shard keeps of its task's traits, as far as it is known.
        beats: Whether its handler's signs of life are passed on to the shard.
        received: Whether the worker has acknowledged it.
    """

    __slots__ = ("beats", "extras", "lane", "lease", "received")

    def __init__(
        self, lease: Lease, lane: str, extras: bytes = b"", *, beats: bool = False, received: bool = False
    ) -> None:
        self.lease = lease
        self.lane = lane
        self.extras = extras
        self.beats = beats
        self.received = received


class _Early(NamedTuple):
    """News of a lease that the worker does not know yet; without a reason it is lost."""

    time: float
    reason: str | None


HandedOut = tuple[bytes, bytes, HeldTask]
"""Specification, token, lease."""


class Session:
    """See the module.

    Args:
        session_id: Begins with the instance's id and a slash, so that shards know whom to tell.
        facts: The worker.
        grace: Seconds that handlers have to stop.

    Attributes:
        leases: What the worker holds, by token.
        last_heard: When the last frame came, by the monotonic clock.
        heard: Whether a frame came since the last renewal.
        recording: How many results are being recorded.
        leaving: Whether it gets no more tasks.
        deaf: Whether a delivery came back because it was not acknowledged, and none was acknowledged
            since. It gets one task at a time until it acknowledges one.
        on_room: Called when there may be room again.
    """

    def __init__(self, session_id: str, facts: WorkerFacts, grace: float = 0.0) -> None:
        self.id = session_id
        self.facts = facts
        self.leases: dict[bytes, HeldTask] = {}
        self.connected_at = self.last_heard = monotonic()
        self.heard = False
        self.recording = 0
        self.leaving = False
        self.deaf = False
        self.on_room: Callable[[], None] = lambda: None
        self._grace = grace
        self._early: dict[Lease, _Early] = {}
        self._granted = 0
        self._assigned = 0
        self._reserved = 0
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._closed = False
        self._error: MeshqError | None = None
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()
        self._read = asyncio.Event()

    # -- credit ----------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many tasks may be taken for it now."""
        if self._closed or self.leaving or self._clogged:
            return 0
        room = self._granted - self._assigned - self._reserved
        return min(room, self._trial) if self.deaf else room

    @property
    def _trial(self) -> int:
        """Room for one delivery, if none waits to be acknowledged."""
        return 0 if self._reserved or any(not held.received for held in self.leases.values()) else 1

    @property
    def alive(self) -> bool:
        """Whether its stream is open."""
        return not self._closed

    def grant(self, total: int) -> None:
        """The worker's cumulative credit; an older, lower one changes nothing."""
        if total > self._granted:
            self._granted = total
            self.on_room()

    def reserve(self, count: int) -> None:
        """Set room aside for a lease call."""
        self._reserved += count

    def settle(self, reserved: int, assigned: int) -> None:
        """A lease call is over: so many tasks came of it."""
        self._reserved -= reserved
        self._assigned += assigned

    def refund(self, count: int) -> None:
        """So many tasks that were counted as assigned did not come after all."""
        self._assigned -= count
        self.on_room()

    # -- leases ----------------------------------------------------------------------------------------

    def assign(
        self, assignments: Iterable[HandedOut], checkpoints: Mapping[bytes, bytes] = NO_CHECKPOINTS
    ) -> None:
        """Send tasks (specification, token, lease) to the worker, with checkpoints by token."""
        late: list[tuple[Lease, str]] = []
        if self._early:
            assignments, late = self._sorted_out(assignments)
        parts = []
        for spec, token, held in assignments:
            self.leases[token] = held
            parts.append((spec, token, held.lease.attempt))
        for frame in assign_frames(parts, checkpoints):
            self.send(frame)
        for lease, reason in late:
            self.cancel(lease, reason)

    def _sorted_out(
        self, assignments: Iterable[HandedOut]
    ) -> tuple[list[HandedOut], list[tuple[Lease, str]]]:
        """What is not lost, and what is to be cancelled at once."""
        going, late = [], []
        for item in assignments:
            lease = item[2].lease
            news = self._early.pop(lease, None)
            if news is not None and news.reason is None:
                self.refund(1)
                continue
            going.append(item)
            if news is not None and news.reason is not None:
                late.append((lease, news.reason))
        return going, late

    def cancel(self, lease: Lease, reason: str) -> None:
        """Ask the worker to stop a task, at once or when it gets it."""
        token = self._token_of(lease)
        if token is None:
            self._early[lease] = _Early(monotonic(), reason)
        elif "cancel" in self.facts.capabilities:
            self.send(cancel_frame(token, reason, self._grace))

    def lose_lease(self, lease: Lease) -> None:
        """A lease is gone: tell the worker, or do not hand the task out."""
        token = self._token_of(lease)
        if token is None:
            self._early[lease] = _Early(monotonic(), None)
        else:
            self.lose([token])

    def forget_early(self, seconds: float) -> None:
        """Forget news of leases that the worker should have got by now: it has given them back before."""
        if self._early:
            oldest = monotonic() - seconds
            self._early = {lease: news for lease, news in self._early.items() if news.time >= oldest}

    def _token_of(self, lease: Lease) -> bytes | None:
        return next((token for token, held in self.leases.items() if held.lease == lease), None)

    def lose(self, tokens: list[bytes]) -> None:
        """Tell the worker which of its leases are gone."""
        known = [(token, held) for token in tokens if (held := self.leases.pop(token, None)) is not None]
        if known:
            self.send(lost_frame([token for token, _ in known]))
        if not all(held.received for _, held in known):
            self.deaf = True
            self.on_room()

    def hearken(self) -> None:
        """The worker has acknowledged a delivery."""
        if self.deaf:
            self.deaf = False
            self.on_room()

    # -- results ---------------------------------------------------------------------------------------

    def note_recorded(self, count: int) -> None:
        """So many of the results that were being recorded were answered."""
        self.recording -= count
        if self.recording <= 0:
            self._quiet.set()

    async def recorded(self) -> None:
        """Return when all results were answered."""
        while self.recording > 0:
            self._quiet.clear()
            await self._quiet.wait()

    # -- frames ----------------------------------------------------------------------------------------

    @property
    def _clogged(self) -> bool:
        return self._bytes > MAX_FRAME_BYTES or len(self._frames) > _MAX_FRAMES

    @property
    def unheeded(self) -> bool:
        """Whether so much is left unread that the worker should not be listened to either."""
        most = _UNHEEDED * MAX_FRAME_BYTES
        return not self._closed and (self._bytes > most or len(self._frames) > _UNHEEDED * _MAX_FRAMES)

    async def heeded(self) -> None:
        """Return when the worker has read on, or the session is over."""
        while self.unheeded:
            self._read.clear()
            await self._read.wait()

    def hear(self) -> None:
        """A frame came."""
        self.last_heard = monotonic()
        self.heard = True

    def send(self, frame: bytes) -> None:
        """Queue a frame."""
        if not self._closed:
            self._frames.append(frame)
            self._bytes += len(frame)
            self._wake.set()

    def open_with(self, welcome: bytes) -> None:
        """Put Welcome before whatever was queued while the session was being opened."""
        self._frames.appendleft(welcome)
        self._bytes += len(welcome)
        self._wake.set()

    def close(self, error: MeshqError | None = None) -> None:
        """Send what is queued and end the stream, with an error if there is one."""
        if not self._closed:
            self._closed = True
            self._error = error
            self._wake.set()
            self._read.set()

    async def frames(self) -> AsyncIterator[bytes]:
        """What is to be sent, with a ping where there was silence; raises the error of `close`."""
        while True:
            while self._frames:
                was_clogged = self._clogged
                frame = self._frames.popleft()
                self._bytes -= len(frame)
                if was_clogged:
                    self._read.set()
                    if not self._clogged:
                        self.on_room()
                yield frame
            if self._closed:
                break
            if not await self._news():
                yield PING_FRAME
        if self._error is not None:
            raise self._error

    async def _news(self) -> bool:
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_PING_SECONDS):
                await self._wake.wait()
        return self._wake.is_set()
