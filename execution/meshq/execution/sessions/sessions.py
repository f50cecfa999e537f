"""All sessions of this instance: how they open, are renewed, and end."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from time import monotonic
from typing import Final, NamedTuple, Protocol

from meshq.contract.errors import Aborted, MeshqError, Reason, Unavailable
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.execution.attempts.announcer import started
from meshq.execution.conversion.frames import reconnect_frame, welcome_frame
from meshq.execution.conversion.tokens import carried
from meshq.execution.model import Ended, Lease
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shard import Greeted, Held, Shard
from meshq.execution.ring.shards import Shards
from meshq.execution.sessions.allocator import Allocator
from meshq.execution.sessions.session import HeldTask, Session, WorkerFacts
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_RENEW_SECONDS: Final = 1.0
_STARTED_SECONDS: Final = 1.0

Key = tuple[bytes, int]


class Times(NamedTuple):
    """The times of sessions, in seconds."""

    lease_ttl: float
    heartbeat_interval: float
    delivery_timeout: float
    cancel_grace: float

    @property
    def lease_ms(self) -> int:
        """How long shards wait: longer than workers are told, by the time between renewals."""
        return int((self.lease_ttl + _RENEW_SECONDS) * 1000)

    @property
    def grace_ms(self) -> int:
        """How long shards wait for a cancelled task: longer than workers are told, so that it can answer."""
        return int((self.cancel_grace + _RENEW_SECONDS) * 1000)


class Starts(Protocol):
    """Who tells the ledger what has started."""

    def add(self, ended: Ended) -> None:
        """Report a start."""


class Sessions:
    """See the module.

    Args:
        instance_id: This instance.
        shards: The shards.
        allocator: Leases for sessions.
        times: The times of sessions.
        ended: Which of some attempts have ended.
        starts: Gets starts of tasks that run for longer than a moment.
        on_ended: Called when leases may have become due.
    """

    def __init__(
        self,
        instance_id: str,
        shards: Shards,
        allocator: Allocator,
        times: Times,
        *,
        ended: Callable[[Sequence[Key]], Awaitable[Collection[Key]]],
        starts: Starts,
        on_ended: Callable[[], None],
    ) -> None:
        self.times = times
        self._instance_id = instance_id
        self._shards = shards
        self._allocator = allocator
        self._attempts_ended = ended
        self._starts = starts
        self._on_ended = on_ended
        self._sessions: dict[str, Session] = {}
        self._prefix = f"{instance_id}/{secrets.token_hex(3)}"
        self._opened = 0
        # Their streams are broken, but their workers may go on elsewhere as long as their leases last.
        self._absent: list[Session] = []
        self._unsettled: list[Held] = []
        self._young: deque[tuple[float, Session, bytes]] = deque()
        self._draining = False
        self._empty = asyncio.Event()
        self._repeater = Repeater("sessions", self.run_once, _RENEW_SECONDS)

    # -- life ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to renew."""
        await self._repeater.start()

    async def stop(self) -> None:
        """End all streams; their workers connect elsewhere."""
        self._draining = True
        await self._repeater.stop()
        for session in list(self._sessions.values()):
            session.close(_draining())
        await self._allocator.stop()

    async def drain(self) -> None:
        """Ask all workers to go elsewhere and return when they have gone."""
        self._draining = True
        for session in self._sessions.values():
            session.leaving = True
            session.send(reconnect_frame("the instance stops"))
        if self._sessions:
            await self._empty.wait()

    @property
    def draining(self) -> bool:
        """Whether workers are asked to go elsewhere."""
        return self._draining

    # -- opening and ending ----------------------------------------------------------------------------

    async def open(self, facts: WorkerFacts, held: Sequence[tuple[bytes, Lease]]) -> Session:
        """Open a session for a worker that still holds some leases (token, lease)."""
        if self._draining:
            raise _draining()
        self._opened += 1
        session = Session(f"{self._prefix}-{self._opened}", facts, self.times.cancel_grace)
        self._sessions[session.id] = session
        try:
            former = await self._greet([session], self._shards.usable())
            kept = await self._keep(session, held)
            await self._end_former(session, former)
        except BaseException:
            del self._sessions[session.id]
            raise
        times = (self.times.lease_ttl, self.times.heartbeat_interval, self.times.delivery_timeout)
        verdicts = [(token, token in kept) for token, _ in held]
        session.open_with(welcome_frame(session.id, self._instance_id, times, verdicts))
        self._allocator.join(session)
        return session

    async def gone(self, session: Session) -> None:
        """The stream is over. Unless the worker said goodbye, its leases wait for it until their deadline."""
        self._sessions.pop(session.id, None)
        session.close()
        if session.leases:
            self._absent.append(session)
        await self._allocator.leave(session)
        if self._draining and not self._sessions:
            self._empty.set()

    async def goodbye(self, session: Session) -> None:
        """The worker leaves: what it holds goes back at once."""
        session.leaving = True
        for shard in self._shards.usable():
            try:
                await shard.leave([session.id])
            except ShardError as error:
                _log.debug("session ends by its deadline", shard=shard.name, reason=str(error))
        session.leases.clear()
        self._on_ended()

    # -- what runs -------------------------------------------------------------------------------------

    def all(self) -> list[Session]:
        """The open sessions."""
        return list(self._sessions.values())

    def note_start(self, session: Session, token: bytes) -> None:
        """A task was received; if it runs for more than a moment, the ledger will hear of it."""
        self._young.append((monotonic(), session, token))

    def greetings(self) -> list[tuple[str, str, bytes]]:
        """All sessions, for a shard that has begun anew."""
        return [_greeting(session) for session in self._sessions.values()]

    def held_on(self, shard: str) -> list[Held]:
        """All leases on a shard, for one that has begun anew; also of workers on their way elsewhere."""
        present = [
            Held(held.lease, session.id, session.facts.worker_id, held.lane, held.extras)
            for session in self._sessions.values()
            for held in session.leases.values()
            if held.lease.shard == shard
        ]
        return present + self._held_by_absent(shard)

    def _held_by_absent(self, shard: str) -> list[Held]:
        found = []
        for session in self._absent:
            left_ms = self.times.lease_ms - int((monotonic() - session.last_heard) * 1000)
            if left_ms > 0:
                found += [
                    Held(
                        held.lease, "", session.facts.worker_id, held.lane, held.extras,
                        ttl_ms=left_ms, absent=True,
                    )
                    for held in session.leases.values()
                    if held.lease.shard == shard
                ]  # fmt: skip
        return found

    # -- news from shards ------------------------------------------------------------------------------

    def cancel(self, session: str, lease: Lease, reason: str) -> None:
        """A task of a session is to be cancelled."""
        found = self._sessions.get(session)
        if found is not None:
            found.cancel(lease, reason)

    def lost(self, session: str, lease: Lease) -> None:
        """A lease of a session is gone."""
        found = self._sessions.get(session)
        if found is not None:
            found.lose_lease(lease)

    def ended(self, session: str) -> None:
        """The worker of a session has started anew elsewhere."""
        found = self._sessions.get(session)
        if found is not None:
            found.close(_lost("another start of this worker has opened a session"))
        self._on_ended()

    # -- once a second ---------------------------------------------------------------------------------

    async def run_once(self) -> None:
        """Renew sessions that were heard, end those that were not, and report what runs."""
        self._end_silent()
        self._forget_old()
        heard = [session for session in self._sessions.values() if session.heard]
        for session in heard:
            session.heard = False
        if heard:
            await asyncio.gather(*(self._renew(shard, heard) for shard in self._shards.usable()))
        await self._settle()
        self._report_starts()

    def _end_silent(self) -> None:
        oldest = monotonic() - self.times.lease_ttl
        for session in list(self._sessions.values()):
            if session.last_heard < oldest:
                session.close(_lost("no heartbeat came in time"))

    def _forget_old(self) -> None:
        for session in self._sessions.values():
            # What is prepared for that long has lost its lease.
            session.forget_early(2 * self.times.delivery_timeout)
        oldest = monotonic() - self.times.lease_ms / 1000
        self._absent = [session for session in self._absent if session.last_heard > oldest]

    async def _renew(self, shard: Shard, sessions: list[Session]) -> None:
        try:
            for at in range(0, len(sessions), MAX_FRAME_ITEMS):
                part = sessions[at : at + MAX_FRAME_ITEMS]
                ended = await shard.renew([session.id for session in part], self.times.lease_ms)
                await self._begin_anew(shard, [part[index] for index in ended])
        except ShardError as error:
            _log.debug("sessions not renewed", shard=shard.name, reason=str(error))

    async def _begin_anew(self, shard: Shard, sessions: list[Session]) -> None:
        """The shard has ended these sessions: what they held there is lost."""
        for session in sessions:
            tokens = [
                token for token, held in session.leases.items()
                if held.lease.shard == shard.name and held.received
            ]  # fmt: skip
            session.lose(tokens)
        if sessions:
            await shard.greet([_greeting(session) for session in sessions], self.times.lease_ms)

    def _report_starts(self) -> None:
        limit = monotonic() - _STARTED_SECONDS
        while self._young and self._young[0][0] <= limit:
            _, session, token = self._young.popleft()
            held = session.leases.get(token)
            if held is not None:
                self._starts.add(started(held.lease, session.facts.worker_id))

    # -- held leases -----------------------------------------------------------------------------------

    async def _greet(self, sessions: list[Session], shards: Iterable[Shard]) -> list[tuple[Shard, list[str]]]:
        """Make sessions known; returns by shard the last ones that the same processes had."""
        greetings = [_greeting(session) for session in sessions]
        asked = list(shards)
        calls = (shard.greet(greetings, self.times.lease_ms) for shard in asked)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        greeted = [
            (shard, answer)
            for shard, answer in zip(asked, answers, strict=True)
            if isinstance(answer, Greeted)
        ]
        if any(answer.ended for _, answer in greeted):
            self._on_ended()
        return [(shard, answer.former) for shard, answer in greeted if answer.former]

    async def _end_former(self, session: Session, former: list[tuple[Shard, list[str]]]) -> None:
        """End what the worker has not brought along from its last session, as it does not have that.

        Else it would wait for the end of a lease, though most of it has been recorded, by an instance that
        died before it told the ledger.
        """
        believed = {item.lease.shard for item in self._unsettled if item.session == session.id}
        for shard, ids in former:
            if shard.name in believed:
                continue
            try:
                await shard.leave(ids)
            except ShardError as error:
                _log.debug("session ends by its deadline", shard=shard.name, reason=str(error))
        if former:
            self._on_ended()

    async def _keep(self, session: Session, held: Sequence[tuple[bytes, Lease]]) -> set[bytes]:
        """Take over what the worker holds; returns the tokens that it may go on with."""
        by_shard: dict[str, list[Held]] = {}
        for token, lease in held:
            lane, extras = carried(token)
            item = Held(lease, session.id, session.facts.worker_id, lane, extras)
            by_shard.setdefault(lease.shard, []).append(item)
            # The shard may know more of what its handler owes, so each of its words is passed on.
            session.leases[token] = HeldTask(lease, lane, extras, beats=True, received=True)
        adopted = [item for name, items in by_shard.items() for item in await self._adopted(name, items)]
        leases = {item.lease for item in adopted}
        kept = {token for token, lease in held if lease in leases}
        for token, _ in held:
            if token not in kept:
                session.leases.pop(token, None)
        return kept

    async def _adopted(self, name: str, items: list[Held]) -> list[Held]:
        """The leases that go on. While a shard does not answer, they are believed and settled later."""
        shard = self._shards.get(name)
        if shard is None:
            return []
        try:
            return await adopt(shard, items, self._attempts_ended, self.times.lease_ms)
        except (ShardError, MeshqError):
            self._unsettled += items
            return items

    async def _settle(self) -> None:
        waiting, self._unsettled = self._unsettled, []
        by_shard: dict[str, list[Held]] = {}
        for item in waiting:
            if item.session in self._sessions:
                by_shard.setdefault(item.lease.shard, []).append(item)
        for name, items in by_shard.items():
            kept = set(await self._adopted(name, items))
            for item in items:
                if item not in kept:
                    self.lost(item.session, item.lease)


async def adopt(
    shard: Shard,
    items: Sequence[Held],
    ended: Callable[[Sequence[Key]], Awaitable[Collection[Key]]],
    poll_ms: int,
) -> list[Held]:
    """Take over leases on a shard and return those that go on.

    A lease of an older epoch must not be made anew when its attempt has ended.
    """
    over: Collection[Key] = ()
    older = [(item.lease.task_id, item.lease.attempt) for item in items if item.lease.epoch != shard.epoch]
    if older:
        over = await ended(older)
    running = [item for item in items if (item.lease.task_id, item.lease.attempt) not in over]
    kept: list[Held] = []
    for at in range(0, len(running), MAX_FRAME_ITEMS):
        part = running[at : at + MAX_FRAME_ITEMS]
        verdicts = await shard.adopt(part, poll_ms)
        kept += [item for item, is_kept in zip(part, verdicts, strict=True) if is_kept]
    return kept


def _greeting(session: Session) -> tuple[str, str, bytes]:
    return session.id, f"{session.facts.tenant}/{session.facts.worker_id}", session.facts.instance_key


def _lost(why: str) -> Aborted:
    return Aborted(f"The session is lost, because {why}; connect again.", Reason.SESSION_LOST)


def _draining() -> Unavailable:
    return Unavailable("The instance stops; connect again.", Reason.DRAINING)
