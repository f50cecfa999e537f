"""Workers that poll: leases without a session, each with a deadline of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol

from meshq.contract.errors import MeshqError, Reason, Unavailable
from meshq.contract.limits import MAX_FRAME_BYTES
from meshq.execution.attempts.announcer import started
from meshq.execution.conversion.tokens import carried, encode_token
from meshq.execution.model import Ended, Lease
from meshq.execution.ring.doorbell import Doorbell
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.extras import parse_extras
from meshq.execution.ring.shard import Held, Owner, Shard, Taken, poll_key
from meshq.execution.ring.shards import Shards
from meshq.execution.sessions.heads import Heads
from meshq.execution.sessions.preparations import Preparations, Starting
from meshq.execution.sessions.session import WorkerFacts
from meshq.execution.sessions.sessions import adopt
from meshq.execution.sessions.stock import CLASSES_AT_ONCE, classes_of
from meshq.execution.sessions.turns import Turns
from meshq.mesh.lifecycle import Repeater

_SAFETY_SECONDS: Final = 1.5
_REMEMBER_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 1.0
_STARTED_SECONDS: Final = 1.0

_GOES_ON: Final = 1
_UNKNOWN: Final = 2

Key = tuple[bytes, int]


class Poll(NamedTuple):
    """What a worker asks for; times in seconds."""

    facts: WorkerFacts
    max_tasks: int
    wait: float
    lease_ttl: float
    request_id: str


class Polled(NamedTuple):
    """A task that was leased by a poll."""

    spec: bytes
    token: bytes
    attempt: int
    ends_ms: int
    checkpoint: bytes = b""


class _Leased(NamedTuple):
    """A task that a shard has given; `announce` where the ledger must know of the start."""

    polled: Polled
    lease: Lease
    lane: str
    extras: bytes
    announce: bool


class Renewed(NamedTuple):
    """What became of leases that were to be renewed: tokens to cancel with reasons, and lost tokens."""

    cancels: list[tuple[bytes, str]]
    lost: list[bytes]


class PolledLease(NamedTuple):
    """A lease as far as this instance knows it.

    Attributes:
        until: The monotonic time until which it is taken to be held.
        ttl_ms: How long it lasts when it is renewed.
    """

    until: float
    lease: Lease
    lane: str
    extras: bytes
    ttl_ms: int


class PollingWorker:
    """A worker that has polled this instance within the last minute.

    Attributes:
        leases: What it is taken to hold, by token.
    """

    def __init__(self, facts: WorkerFacts) -> None:
        self.facts = facts
        self.first_seen = self.last_seen = monotonic()
        self.leases: dict[bytes, PolledLease] = {}
        self._turns: tuple[list[int], Turns] = ([], Turns([]))

    @property
    def turns(self) -> Turns:
        """Between its queues, in their order; they go on from poll to poll while the weights stay."""
        weights = [self.facts.queue_weights.get(queue, 1) for queue in self.facts.queues]
        if weights != self._turns[0]:
            self._turns = (weights, Turns(weights))
        return self._turns[1]


class Starts(Protocol):
    """Who tells the ledger what has started."""

    def add(self, ended: Ended) -> None:
        """Report a start."""


class _Patience:
    """A waiting poll."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def rung(self, shard: str) -> None:  # noqa: ARG002
        self._rung.set()

    def expect(self, shard: str) -> None:
        self.rung(shard)

    def begin(self) -> None:
        self._rung.clear()

    async def wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()


class Polls:
    """See the module.

    Args:
        shards: The shards.
        doorbell: Calls when there are tasks.
        preparations: Settles what some tasks need before they go to a worker.
        ended: Which of some attempts have ended.
        starts: Gets starts of tasks that run for longer than a moment.
        default_ms: How long a lease lives that was given by an epoch that is gone.
    """

    def __init__(
        self,
        shards: Shards,
        doorbell: Doorbell,
        preparations: Preparations,
        *,
        ended: Callable[[Sequence[Key]], Awaitable[Collection[Key]]],
        starts: Starts,
        default_ms: int,
    ) -> None:
        self._shards = shards
        self._doorbell = doorbell
        self._preparations = preparations
        self._ended = ended
        self._starts = starts
        self._default_ms = default_ms
        self._workers: dict[tuple[str, str], PollingWorker] = {}
        self._young: deque[tuple[float, PollingWorker, bytes, Lease]] = deque()
        self._releasing: set[asyncio.Task[None]] = set()
        self._waiting: set[_Patience] = set()
        self._turn = 0
        self._heads = Heads()
        self._draining = False
        self._repeater = Repeater("polls", self.run_once, _LOOK_SECONDS)

    async def start(self) -> None:
        """Begin to look after polling workers."""
        await self._repeater.start()

    async def stop(self) -> None:
        """Look no more."""
        self.drain()
        await self._repeater.stop()
        await asyncio.gather(*self._releasing, return_exceptions=True)

    def drain(self) -> None:
        """Answer waiting polls now, and others without waiting."""
        self._draining = True
        for patience in self._waiting:
            patience.rung("")

    # -- leasing ---------------------------------------------------------------------------------------

    async def poll(self, poll: Poll) -> list[Polled]:
        """Lease what there is, waiting for the first task.

        Raises:
            Unavailable: No shard answers.
        """
        worker = self._remember(poll.facts)
        found = await self._prepared(poll, await self._recalled(poll)) if poll.request_id else []
        if not found:
            found = await self._wait_for(poll, worker)
        now = monotonic()
        for item in found:
            token, ttl_ms = item.polled.token, int(poll.lease_ttl * 1000)
            worker.leases[token] = PolledLease(
                now + poll.lease_ttl, item.lease, item.lane, item.extras, ttl_ms
            )
            self._young.append((now, worker, token, item.lease))
        worker.last_seen = now
        return [item.polled for item in found]

    async def _wait_for(self, poll: Poll, worker: PollingWorker) -> list[_Leased]:
        facts = poll.facts
        classes = classes_of(facts.tenant, facts.queues, facts.task_types)
        deadline = monotonic() + poll.wait
        patience = _Patience()
        self._doorbell.wait_for(classes, patience)
        self._waiting.add(patience)
        try:
            while True:
                patience.begin()
                taken = await self._take_by_weight(poll, worker) if facts.queue_weights else []
                found = await self._prepared(poll, taken + await self._take(poll, classes, taken))
                left = deadline - monotonic()
                if found or left <= 0 or self._draining:
                    return found
                await patience.wait(min(left, _SAFETY_SECONDS))
        finally:
            self._waiting.discard(patience)
            self._doorbell.forget(classes, patience)

    async def _prepared(self, poll: Poll, found: list[_Leased]) -> list[_Leased]:
        """What may be started; the rest has gone back, or the ledger wanted something else."""
        special = [item for item in found if item.announce or item.lease.attempt > 1]
        if not special:
            return found
        starting = [Starting(item.lease, poll.facts.worker_id, item.announce) for item in special]
        try:
            checkpoints = await self._preparations.prepare(starting)
        except asyncio.CancelledError:
            if not poll.request_id:
                self._preparations.later(self._preparations.give_back([item.lease for item in found]))
            raise
        settled = dict(zip((item.lease for item in special), checkpoints, strict=True))
        return [
            item._replace(polled=item.polled._replace(checkpoint=checkpoint)) if checkpoint else item
            for item in found
            if (checkpoint := settled.get(item.lease, b"")) is not None
        ]

    async def _take_by_weight(self, poll: Poll, worker: PollingWorker) -> list[_Leased]:
        """Each queue's share, as far as it has tasks."""
        facts, turns = poll.facts, worker.turns
        found: list[_Leased] = []
        for index, share in turns.divide(poll.max_tasks, range(len(facts.queues))).items():
            classes = classes_of(facts.tenant, [facts.queues[index]], facts.task_types)
            part = await self._take(poll._replace(max_tasks=len(found) + share), classes, found)
            turns.give_back(index, share - len(part))
            found += part
        return found

    async def _take(self, poll: Poll, classes: list[str], taken: Sequence[_Leased] = ()) -> list[_Leased]:
        """Ask the shards for what is still wanted, beginning where the next task is.

        Of those that are about equal another one is the first each time.
        """
        shards = self._shards.usable()
        self._turn += 1
        start = self._turn % len(shards) if shards else 0
        found: list[_Leased] = []
        answered = False
        budget = MAX_FRAME_BYTES - sum(len(item.polled.spec) for item in taken)
        for shard in await self._heads.in_order(shards[start:] + shards[:start], classes):
            for at in range(0, len(classes), CLASSES_AT_ONCE):
                wanted = poll.max_tasks - len(taken) - len(found)
                if wanted <= 0 or ((taken or found) and budget <= 0):
                    return found
                try:
                    part = await self._lease(shard, poll, classes[at : at + CLASSES_AT_ONCE], wanted, budget)
                except ShardError:
                    break
                answered = True
                found += part
                budget -= sum(len(item.polled.spec) for item in part)
        if not answered and not taken:
            raise Unavailable("No shard answers; poll again.", Reason.SHARD_UNAVAILABLE, retry_delay=1.0)
        return found

    async def _lease(
        self, shard: Shard, poll: Poll, classes: list[str], wanted: int, budget: int
    ) -> list[_Leased]:
        facts = poll.facts
        lease_ms = int(poll.lease_ttl * 1000)
        key = poll_key(facts.tenant, facts.worker_id, poll.request_id) if poll.request_id else ""
        call = asyncio.ensure_future(
            shard.lease(
                [Owner("", facts.worker_id, wanted)],
                classes,
                wanted=wanted,
                wanted_bytes=budget,
                lease_ms=lease_ms,
                poll_key=key,
            )
        )
        try:
            taken = await asyncio.shield(call)
        except asyncio.CancelledError:
            if not key:
                self._give_back_later(shard, classes, call)
            raise
        self._heads.note(shard, classes, taken.head)
        return _leased(shard, classes, taken, lease_ms)

    def _give_back_later(self, shard: Shard, classes: list[str], call: asyncio.Future[Taken]) -> None:
        """The caller has gone while its lease call was under way; the tasks must not wait for it."""

        async def give_back() -> None:
            with suppress(ShardError):
                leases = [item.lease for item in _leased(shard, classes, await call, 0)]
                if leases:
                    await shard.release(leases)

        task = asyncio.create_task(give_back())
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _recalled(self, poll: Poll) -> list[_Leased]:
        """What an earlier call with the same request id has leased, on whichever instance it was."""
        key = poll_key(poll.facts.tenant, poll.facts.worker_id, poll.request_id)
        calls = (shard.recall(key) for shard in self._shards.usable())
        answers = await asyncio.gather(*calls, return_exceptions=True)
        return [
            _Leased(
                Polled(spec, encode_token(lease, lane, extras), lease.attempt, ends_ms),
                lease,
                lane,
                extras,
                parse_extras(extras).announce,
            )
            for answer in answers
            if not isinstance(answer, BaseException)
            for lease, lane, ends_ms, extras, spec in answer
        ]

    # -- renewing --------------------------------------------------------------------------------------

    async def renew(self, facts: WorkerFacts, leases: dict[bytes, Lease]) -> Renewed:
        """Renew leases, by token.

        Raises:
            Unavailable: A shard that holds some of them does not answer.
        """
        by_shard: dict[str, dict[bytes, Lease]] = {}
        for token, lease in leases.items():
            by_shard.setdefault(lease.shard, {})[token] = lease
        parts = await asyncio.gather(
            *(self._renew_on(name, facts.worker_id, part) for name, part in by_shard.items())
        )
        renewed = Renewed([], [])
        for part in parts:
            renewed.cancels.extend(part.cancels)
            renewed.lost.extend(part.lost)
        lost = set(renewed.lost)
        kept = {token: lease for token, lease in leases.items() if token not in lost}
        self._note_renewed(facts, kept, renewed.lost)
        return renewed

    async def _renew_on(self, name: str, worker_id: str, leases: dict[bytes, Lease]) -> Renewed:
        shard = self._shards.get(name)
        if shard is None:
            return Renewed([], list(leases))
        renewed = Renewed([], [])
        unknown: list[Held] = []
        try:
            answers = await shard.renew_polled(list(leases.values()))
            for (token, lease), answer in zip(leases.items(), answers, strict=True):
                item = self._held(token, lease, worker_id)
                self._sort_out(token, item, answer, renewed, unknown)
            kept = await adopt(shard, unknown, self._ended, self._default_ms) if unknown else []
        except (ShardError, MeshqError) as error:
            raise Unavailable(
                "A shard does not answer; send the heartbeat again.",
                Reason.SHARD_UNAVAILABLE,
                retry_delay=1.0,
            ) from error
        gone = {item.lease for item in unknown if item not in kept}
        renewed.lost.extend(token for token, lease in leases.items() if lease in gone)
        return renewed

    def held_on(self, shard: str) -> list[Held]:
        """What polls of this instance have leased on a shard, for one that has begun anew."""
        now = monotonic()
        return [
            self._held(token, polled.lease, worker.facts.worker_id)
            for worker in self._workers.values()
            for token, polled in worker.leases.items()
            if polled.lease.shard == shard and polled.until > now and polled.ttl_ms
        ]

    def _held(self, token: bytes, lease: Lease, worker_id: str) -> Held:
        """A lease with all that this instance knows of it."""
        worker = self._workers.get((lease.tenant, worker_id))
        known = worker.leases.get(token) if worker else None
        if known is None:
            return Held(lease, "", worker_id, *carried(token))
        return Held(lease, "", worker_id, known.lane, known.extras, ttl_ms=known.ttl_ms)

    @staticmethod
    def _sort_out(token: bytes, item: Held, answer: list[Any], renewed: Renewed, unknown: list[Held]) -> None:
        if answer[0] == _GOES_ON:
            if len(answer) > 1:
                renewed.cancels.append((token, answer[1].decode("utf-8", "replace")))
        elif answer[0] == _UNKNOWN:
            unknown.append(item)
        else:
            renewed.lost.append(token)

    def _note_renewed(self, facts: WorkerFacts, kept: dict[bytes, Lease], lost: list[bytes]) -> None:
        worker = self._workers.get((facts.tenant, facts.worker_id))
        if worker is None:
            return
        worker.last_seen = now = monotonic()
        for token, lease in kept.items():
            known = worker.leases.get(token)
            if known is None:
                # It was leased elsewhere: how long it lasts is not known here.
                known = PolledLease(now, lease, *carried(token), 0)
            lasts = (known.ttl_ms or self._default_ms) / 1000
            worker.leases[token] = known._replace(until=now + lasts)
        for token in lost:
            worker.leases.pop(token, None)

    # -- who polls -------------------------------------------------------------------------------------

    def completed(self, facts: WorkerFacts, tokens: Sequence[bytes]) -> None:
        """Leases of a worker have ended."""
        worker = self._workers.get((facts.tenant, facts.worker_id))
        if worker is not None:
            worker.last_seen = monotonic()
            for token in tokens:
                worker.leases.pop(token, None)

    def workers(self) -> list[PollingWorker]:
        """The workers that have polled within the last minute."""
        return list(self._workers.values())

    async def run_once(self) -> None:
        """Forget workers that are gone, and report what runs."""
        self._heads.forget()
        now = monotonic()
        for key, worker in list(self._workers.items()):
            worker.leases = {token: polled for token, polled in worker.leases.items() if polled.until > now}
            if worker.last_seen < now - _REMEMBER_SECONDS and not worker.leases:
                del self._workers[key]
        while self._young and self._young[0][0] <= now - _STARTED_SECONDS:
            _, worker, token, lease = self._young.popleft()
            if token in worker.leases:
                self._starts.add(started(lease, worker.facts.worker_id))

    def _remember(self, facts: WorkerFacts) -> PollingWorker:
        key = (facts.tenant, facts.worker_id)
        worker = self._workers.get(key)
        if worker is None:
            worker = self._workers[key] = PollingWorker(facts)
        worker.facts = facts
        worker.last_seen = monotonic()
        return worker


def _leased(shard: Shard, classes: list[str], taken: Taken, lease_ms: int) -> list[_Leased]:
    found = []
    for at in range(0, len(taken.tasks), 7):
        task_id, attempt, number, _, index, extras, spec = taken.tasks[at : at + 7]
        lane = f"{classes[index - 1]}/"
        tenant = lane.partition("/")[0]
        lease = Lease(task_id, attempt, taken.epoch, number, shard.name, tenant, taken.now_ms)
        polled = Polled(spec, encode_token(lease, lane, extras), attempt, taken.now_ms + lease_ms)
        found.append(_Leased(polled, lease, lane, extras, bool(extras) and parse_extras(extras).announce))
    return found
