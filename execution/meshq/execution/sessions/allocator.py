"""Matches the credit of sessions with what the shards hold.

Sessions that want the same classes form a group, and one lease call serves them all. A group asks the shards
whose next task is the oldest, and stops asking a shard that has nothing: the shard then calls (the
doorbell). Only while credit is left does a slow safety poll look again. A shard that answers slowly holds up
no other one: it has one call at a time, which nobody waits for.

The room of workers that weigh their queues is divided between the queues first; what a queue leaves over goes
to those that have tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple

from meshq.contract.limits import MAX_FRAME_ITEMS, SOFT_FRAME_BYTES
from meshq.execution.conversion.tokens import encode_token
from meshq.execution.model import Lease
from meshq.execution.ring.doorbell import Doorbell
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.extras import parse_extras
from meshq.execution.ring.shard import Owner, Shard, Taken
from meshq.execution.ring.shards import Shards
from meshq.execution.sessions.preparations import Preparations, Starting
from meshq.execution.sessions.session import HandedOut, HeldTask, Session
from meshq.execution.sessions.stock import CLASSES_AT_ONCE, Stock, classes_of
from meshq.execution.sessions.turns import Turns
from meshq.mesh.lifecycle import cancelled
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_OWNERS_AT_ONCE: Final = 100
_SAFETY_SECONDS: Final = 1.5
_MOST_SAFETY_SECONDS: Final = 6.0
"""Nobody may have lost a bell while nothing comes, so that it is looked ever more rarely, up to this."""
_LINGER_SECONDS: Final = 0.002
_PATIENCE_SECONDS: Final = 0.05
"""How long calls to other shards wait for one that is under way."""

Wish = tuple[tuple[int, tuple[str, ...]], ...]
"""What sessions of a group want: classes, in one part or in one for each queue with its weight."""


class Means(NamedTuple):
    """What groups work with.

    Attributes:
        shards: Where tasks come from.
        doorbell: Calls when there are some.
        preparations: Settles what some tasks need before they go to a worker.
        delivery_ms: How long a delivery may stay unacknowledged.
        session_ms: How long a session lives without being heard.
    """

    shards: Shards
    doorbell: Doorbell
    preparations: Preparations
    delivery_ms: int
    session_ms: int


class _Special(NamedTuple):
    """A task that has to be prepared before its session gets it."""

    session: Session
    item: HandedOut
    announce: bool


class Group:
    """Sessions that want the same classes.

    Args:
        wish: What they want.
        means: What the group works with.
    """

    def __init__(self, wish: Wish, means: Means) -> None:
        self.sessions: list[Session] = []
        self._means = means
        self._stocks = [Stock(classes, means.shards, means.doorbell, self.wake) for _, classes in wish]
        self._turns = Turns([weight for weight, _ in wish])
        self._wake = asyncio.Event()
        self._turn = 0
        self._last_call = 0.0
        self._patience = _SAFETY_SECONDS
        self._task: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to lease."""
        for stock in self._stocks:
            stock.start()
        self._task = asyncio.create_task(self._run(), name="leasing")

    async def stop(self) -> None:
        """Lease no more."""
        for stock in self._stocks:
            stock.stop()
        task, self._task = self._task, None
        if task is not None:
            await cancelled(task)
        for call in tuple(self._calls):
            await cancelled(call)

    def wake(self) -> None:
        """Some session has room, or some shard has tasks."""
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
            async with asyncio.timeout(self._patience if unmet else None):
                await self._wake.wait()
        rung = self._wake.is_set()
        self._patience = _SAFETY_SECONDS if rung else min(2 * self._patience, _MOST_SAFETY_SECONDS)
        if not rung:
            for stock in self._stocks:
                stock.forget()
        elif monotonic() - self._last_call < _LINGER_SECONDS and any(stock.backlog for stock in self._stocks):
            # There is more than the workers can take: a moment's patience makes fewer, larger calls.
            await asyncio.sleep(_LINGER_SECONDS)
        self._wake.clear()

    async def _fill(self) -> None:
        """Lease until no session has room or no shard has tasks."""
        while wanted := min(MAX_FRAME_ITEMS, sum(max(session.room, 0) for session in self.sessions)):
            calls = []
            for index, shard, count in self._shares(wanted):
                owners = self._reserve(count)
                if owners:
                    calls.append(asyncio.create_task(self._lease(index, shard, owners), name="lease"))
            if not calls:
                return
            self._last_call = monotonic()
            done, late = await asyncio.wait(calls, timeout=_PATIENCE_SECONDS)
            for call in late:
                self._calls.add(call)
                call.add_done_callback(self._came_late)
            for call in done:
                call.result()

    def _came_late(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            _log.error("leasing failed; going on", exc_info=error)
        self.wake()

    def _shares(self, wanted: int) -> list[tuple[int, Shard, int]]:
        """How much of which stock to take from which shard; empty when no shard has anything."""
        if len(self._stocks) == 1:
            return [(0, shard, count) for shard, count in self._stocks[0].shares(wanted)]
        some = [index for index, stock in enumerate(self._stocks) if stock.any]
        found = []
        for index, share in self._turns.divide(wanted, some).items():
            shares = self._stocks[index].shares(share)
            found += [(index, shard, count) for shard, count in shares]
            self._turns.give_back(index, share - sum(count for _, count in shares))
        return found

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

    async def _lease(self, index: int, shard: Shard, owners: list[tuple[Session, int]]) -> None:
        stock = self._stocks[index]
        rings = stock.ask(shard.name)
        counts = [0] * len(owners)
        wanted = sum(room for _, room in owners)
        head = None
        try:
            taken = await shard.lease(
                [Owner(session.id, session.facts.worker_id, room) for session, room in owners],
                stock.classes,
                wanted=wanted,
                wanted_bytes=SOFT_FRAME_BYTES,
                lease_ms=self._means.delivery_ms,
                session_ms=self._means.session_ms,
            )
            head = taken.head
            counts = await self._hand_out(stock, shard, taken, [session for session, _ in owners])
        except ShardError:
            # Its keeper has noticed too, and will ring when the shard is back.
            pass
        finally:
            for (session, room), count in zip(owners, counts, strict=True):
                session.settle(room, count)
            self._turns.give_back(index, wanted - sum(counts))
            stock.note(shard.name, rings, head)

    async def _hand_out(
        self, stock: Stock, shard: Shard, taken: Taken, sessions: Sequence[Session]
    ) -> list[int]:
        parts: list[list[HandedOut]] = [[] for _ in sessions]
        counts = [0] * len(sessions)
        special: list[_Special] = []
        tasks: list[Any] = taken.tasks
        tenants, lanes = stock.tenants, stock.lanes
        for at in range(0, len(tasks), 7):
            task_id, attempt, number, owner, index, extras, spec = tasks[at : at + 7]
            lease = Lease(task_id, attempt, taken.epoch, number, shard.name, tenants[index - 1], taken.now_ms)
            counts[owner - 1] += 1
            if attempt == 1 and not extras:
                parts[owner - 1].append((spec, encode_token(lease), HeldTask(lease, lanes[index - 1])))
                continue
            traits = parse_extras(extras)
            held = HeldTask(lease, lanes[index - 1], extras, beats=traits.heartbeat_ms > 0)
            item = (spec, encode_token(lease, held.lane, extras), held)
            if attempt > 1 or traits.announce:
                special.append(_Special(sessions[owner - 1], item, traits.announce))
            else:
                parts[owner - 1].append(item)
        if special:
            self._means.preparations.later(self._hand_out_prepared(special))
        homeless: list[Lease] = []
        for session, part in zip(sessions, parts, strict=True):
            if session.alive:
                session.assign(part)
            else:
                homeless += [held.lease for _, _, held in part]
        if homeless:
            await shard.release(homeless)
        return counts

    async def _hand_out_prepared(self, special: list[_Special]) -> None:
        preparations = self._means.preparations
        starting = [
            Starting(item[2].lease, session.facts.worker_id, announce) for session, item, announce in special
        ]
        found = await preparations.prepare(starting)
        announced = [
            (item[2].lease, session.id)
            for (session, item, announce), checkpoint in zip(special, found, strict=True)
            if announce and checkpoint is not None and session.alive
        ]
        refused = await preparations.received(announced) if announced else ()
        parts: dict[Session, list[HandedOut]] = {}
        checkpoints: dict[bytes, bytes] = {}
        homeless: list[Lease] = []
        for (session, item, announce), checkpoint in zip(special, found, strict=True):
            if checkpoint is None or item[2].lease in refused:
                session.refund(1)
            elif not session.alive:
                homeless.append(item[2].lease)
            else:
                item[2].received = announce
                parts.setdefault(session, []).append(item)
                if checkpoint:
                    checkpoints[item[1]] = checkpoint
        for session, part in parts.items():
            session.assign(part, checkpoints)
        if homeless:
            await preparations.give_back(homeless)


class Allocator:
    """The groups.

    Args:
        means: What they work with.
    """

    def __init__(self, means: Means) -> None:
        self._means = means
        self._groups: dict[Wish, Group] = {}
        self._members: dict[Session, list[Wish]] = {}

    def join(self, session: Session) -> None:
        """Lease for a session from now on."""
        wishes = _wishes(session)
        self._members[session] = wishes
        groups = []
        for wish in wishes:
            group = self._groups.get(wish)
            if group is None:
                group = self._groups[wish] = Group(wish, self._means)
                group.start()
            group.sessions.append(session)
            groups.append(group)
        session.on_room = partial(_wake_all, groups)

    async def leave(self, session: Session) -> None:
        """Lease no more for a session."""
        for wish in self._members.pop(session, ()):
            group = self._groups[wish]
            group.sessions.remove(session)
            if not group.sessions:
                del self._groups[wish]
                await group.stop()

    async def stop(self) -> None:
        """Lease no more for anybody."""
        for session in list(self._members):
            await self.leave(session)


def _wishes(session: Session) -> list[Wish]:
    """What a session wants: one set of classes, or several where there would be too many for one call."""
    facts = session.facts
    if facts.queue_weights:
        return [
            tuple(
                (
                    facts.queue_weights.get(queue, 1),
                    tuple(classes_of(facts.tenant, [queue], facts.task_types)),
                )
                for queue in sorted(facts.queues)
            )
        ]
    classes = classes_of(facts.tenant, facts.queues, facts.task_types)
    return [
        ((1, tuple(classes[at : at + CLASSES_AT_ONCE])),) for at in range(0, len(classes), CLASSES_AT_ONCE)
    ]


def _wake_all(groups: Sequence[Group]) -> None:
    for group in groups:
        group.wake()
