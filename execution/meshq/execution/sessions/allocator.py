"""Matches the credit of sessions with what the shards hold.

Sessions that want the same classes form a group, and one lease call serves them all. A group asks the shards
whose next task is the oldest, and stops asking a shard that has nothing: the shard then calls (the
doorbell). Only while credit is left does a slow safety poll look again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from time import monotonic
from typing import Any, Final

from meshq.contract.limits import MAX_FRAME_ITEMS, SOFT_FRAME_BYTES
from meshq.execution.conversion.tokens import encode_token
from meshq.execution.model import Lease
from meshq.execution.ring.doorbell import Doorbell
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.keys import queue_class
from meshq.execution.ring.shard import Owner, Shard, Taken
from meshq.execution.ring.shards import Shards
from meshq.execution.sessions.session import HeldTask, Session
from meshq.mesh.lifecycle import cancelled
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_CLASSES_AT_ONCE: Final = 400
_OWNERS_AT_ONCE: Final = 100
_SAFETY_SECONDS: Final = 1.5
_LINGER_SECONDS: Final = 0.002
_ABREAST_MS: Final = 1_000.0
"""Shards whose next tasks are so close in time are leased from side by side."""

_UNKNOWN: Final = float("-inf")
_NOTHING: Final = float("inf")


class Group:
    """Sessions that want the same classes.

    Args:
        classes: What they want.
        shards: Where it comes from.
        doorbell: Calls when there is something.
        delivery_ms: How long a delivery may stay unacknowledged.
        session_ms: How long a session lives without being heard.
    """

    def __init__(
        self, classes: list[str], shards: Shards, doorbell: Doorbell, delivery_ms: int, session_ms: int
    ) -> None:
        self.classes = classes
        self.sessions: list[Session] = []
        self._shards = shards
        self._doorbell = doorbell
        self._delivery_ms = delivery_ms
        self._session_ms = session_ms
        self._wake = asyncio.Event()
        self._heads: dict[str, float] = {}
        self._rings: dict[str, int] = {}
        self._turn = 0
        self._last_call = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to lease."""
        self._doorbell.wait_for(self.classes, self)
        self._task = asyncio.create_task(self._run(), name="leasing")

    async def stop(self) -> None:
        """Lease no more."""
        self._doorbell.forget(self.classes, self)
        task, self._task = self._task, None
        if task is not None:
            await cancelled(task)

    def wake(self) -> None:
        """Some session has room."""
        self._wake.set()

    def rung(self, shard: str) -> None:
        """A shard may have something."""
        self._heads[shard] = _UNKNOWN
        self._rings[shard] = self._rings.get(shard, 0) + 1
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wait()
            try:
                await self._fill()
            except Exception as error:  # noqa: BLE001
                _log.error("leasing failed; going on", exc_info=error)
                await asyncio.sleep(_SAFETY_SECONDS)

    async def _wait(self) -> None:
        unmet = any(session.room > 0 for session in self.sessions)
        with suppress(TimeoutError):
            async with asyncio.timeout(_SAFETY_SECONDS if unmet else None):
                await self._wake.wait()
        if not self._wake.is_set():
            self._heads.clear()
        elif monotonic() - self._last_call < _LINGER_SECONDS and self._backlog():
            # There is more than the workers can take: a moment's patience makes fewer, larger calls.
            await asyncio.sleep(_LINGER_SECONDS)
        self._wake.clear()

    def _backlog(self) -> bool:
        return any(head < _NOTHING for head in self._heads.values())

    async def _fill(self) -> None:
        """Lease until no session has room or no shard has tasks."""
        while wanted := min(MAX_FRAME_ITEMS, sum(max(session.room, 0) for session in self.sessions)):
            shards = self._furthest_behind()
            if not shards:
                return
            calls = []
            for shard, count in _spread(wanted, shards):
                owners = self._reserve(count)
                if owners:
                    calls.append(self._lease(shard, owners))
            self._last_call = monotonic()
            if len(calls) == 1:
                await calls[0]
            else:
                await asyncio.gather(*calls)

    def _furthest_behind(self) -> list[Shard]:
        """The shards to ask: those of unknown heads, and those whose heads are about the oldest."""
        shards = [(self._heads.get(shard.name, _UNKNOWN), shard) for shard in self._shards.usable()]
        known = [head for head, _ in shards if _UNKNOWN < head < _NOTHING]
        limit = min(known) + _ABREAST_MS if known else _UNKNOWN
        chosen = [(head, shard) for head, shard in shards if head <= limit]
        return [shard for _, shard in sorted(chosen, key=lambda pair: pair[0])]

    def _reserve(self, count: int) -> list[tuple[Session, int]]:
        """Room for so many tasks, spread over the sessions, beginning with another one each time."""
        self._turn += 1
        start = self._turn % len(self.sessions) if self.sessions else 0
        order = self.sessions[start:] + self.sessions[:start]
        free = [session for session in order if session.room > 0][: min(count, _OWNERS_AT_ONCE)]
        owners: list[tuple[Session, int]] = []
        for index, session in enumerate(free):
            share = -(-count // (len(free) - index))
            room = min(session.room, share)
            session.reserve(room)
            owners.append((session, room))
            count -= room
        return owners

    async def _lease(self, shard: Shard, owners: list[tuple[Session, int]]) -> None:
        rings = self._rings.get(shard.name, 0)
        counts = [0] * len(owners)
        head = _NOTHING
        try:
            taken = await shard.lease(
                [Owner(session.id, session.facts.worker_id, room) for session, room in owners],
                self.classes,
                wanted=sum(room for _, room in owners),
                wanted_bytes=SOFT_FRAME_BYTES,
                lease_ms=self._delivery_ms,
                session_ms=self._session_ms,
            )
            head = _NOTHING if taken.head is None else taken.head
            counts = await self._hand_out(shard, taken, [session for session, _ in owners])
        except ShardError:
            # Its keeper has noticed too, and will ring when the shard is back.
            pass
        finally:
            for (session, room), count in zip(owners, counts, strict=True):
                session.settle(room, count)
            if self._rings.get(shard.name, 0) == rings:
                self._heads[shard.name] = head

    async def _hand_out(self, shard: Shard, taken: Taken, sessions: Sequence[Session]) -> list[int]:
        parts: list[list[tuple[bytes, bytes, HeldTask]]] = [[] for _ in sessions]
        tasks: list[Any] = taken.tasks
        tenants = [name.partition("/")[0] for name in self.classes]
        lanes = [f"{name}/" for name in self.classes]
        for at in range(0, len(tasks), 7):
            task_id, attempt, number, owner, index, _, spec = tasks[at : at + 7]
            lease = Lease(task_id, attempt, taken.epoch, number, shard.name, tenants[index - 1], taken.now_ms)
            parts[owner - 1].append((spec, encode_token(lease), HeldTask(lease, lanes[index - 1])))
        homeless: list[Lease] = []
        for session, part in zip(sessions, parts, strict=True):
            if session.alive:
                session.assign(part)
            else:
                homeless += [held.lease for _, _, held in part]
        if homeless:
            await shard.release(homeless)
        return [len(part) for part in parts]


class Allocator:
    """The groups.

    Args:
        shards: Where tasks come from.
        doorbell: Calls when there are some.
        delivery_ms: How long a delivery may stay unacknowledged.
        session_ms: How long a session lives without being heard.
    """

    def __init__(self, shards: Shards, doorbell: Doorbell, delivery_ms: int, session_ms: int) -> None:
        self._shards = shards
        self._doorbell = doorbell
        self._times = (delivery_ms, session_ms)
        self._groups: dict[tuple[str, ...], Group] = {}
        self._members: dict[Session, list[tuple[str, ...]]] = {}

    def join(self, session: Session) -> None:
        """Lease for a session from now on."""
        keys = _class_sets(session)
        self._members[session] = keys
        groups = []
        for key in keys:
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = Group(list(key), self._shards, self._doorbell, *self._times)
                group.start()
            group.sessions.append(session)
            groups.append(group)
        session.on_room = partial(_wake_all, groups)

    async def leave(self, session: Session) -> None:
        """Lease no more for a session."""
        for key in self._members.pop(session, ()):
            group = self._groups[key]
            group.sessions.remove(session)
            if not group.sessions:
                del self._groups[key]
                await group.stop()

    async def stop(self) -> None:
        """Lease no more for anybody."""
        for session in list(self._members):
            await self.leave(session)


def classes_of(tenant: str, queues: Sequence[str], task_types: Sequence[str]) -> list[str]:
    """What a consumer of these queues and types asks for."""
    return sorted({queue_class(tenant, queue, name) for queue, name in product(queues, task_types)})


def _class_sets(session: Session) -> list[tuple[str, ...]]:
    """One set of classes, or several where there would be too many for one call."""
    facts = session.facts
    classes = classes_of(facts.tenant, facts.queues, facts.task_types)
    return [tuple(classes[at : at + _CLASSES_AT_ONCE]) for at in range(0, len(classes), _CLASSES_AT_ONCE)]


def _wake_all(groups: Sequence[Group]) -> None:
    for group in groups:
        group.wake()


def _spread(wanted: int, shards: Sequence[Shard]) -> list[tuple[Shard, int]]:
    """Shares of a number of tasks; when it is small, the shards that are furthest behind get it."""
    share, rest = divmod(wanted, len(shards))
    counts = [share + (index < rest) for index in range(len(shards))]
    return [(shard, count) for shard, count in zip(shards, counts, strict=True) if count]
