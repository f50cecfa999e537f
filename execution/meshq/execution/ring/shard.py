"""One shard: its state as this instance sees it, and its operations, one script each."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from meshq.execution.model import Depth, Explained, Lease, Over, QueueItem, ShardQueueConfig
from meshq.execution.ring import errors, keys, scripts
from meshq.execution.ring.connection import Argument, Connection
from meshq.execution.ring.departures import Departures
from meshq.execution.ring.doorbell import Doorbell, Due
from meshq.execution.ring.extras import encode_extras
from meshq.execution.ring.hashring import RingShard
from meshq.execution.ring.load import Load
from meshq.execution.ring.replies import counts, explained
from meshq.execution.ring.scripts import Script
from meshq.execution.ring.slot_calls import SlotCalls

EXPIRE_LIMIT: Final = 300
_LANES_LOOKED_AT: Final = 100
_FIELDS_OF_OVER: Final = 7
_SCANNED: Final = 500
"""Keys that one scan looks at."""


async def _at_once() -> None:
    """There is nothing to wait for."""


class ShardState(enum.Enum):
    """How the shard stands for this instance."""

    UNREACHABLE = enum.auto()
    RECOVERING = enum.auto()
    OPEN = enum.auto()


class Owner(NamedTuple):
    """A session (empty for a poll) that has room for tasks."""

    session: str
    worker_id: str
    room: int


class Taken(NamedTuple):
    """What a lease call brought.

    Attributes:
        now_ms: The shard's clock.
        head: The score of the next task that could be had; None when there is none, and then the instance
            will be called; -inf when all that was wanted came and nothing is known of more.
        tasks: Flat: id, attempt, lease number, owner's index from 1, class's index from 1, extras (see
            `parse_extras`; empty for most, never where the queue is configured), specification.
        epoch: The epoch of the leases.
    """

    now_ms: int
    head: float | None
    tasks: list[Any]
    epoch: int


class Greeted(NamedTuple):
    """How many sessions a greeting has ended, and the last sessions that the same processes had."""

    ended: int
    former: list[str]


class Held(NamedTuple):
    """A lease that somebody still holds, to be adopted.

    Attributes:
        session: Empty for a poll.
        extras: As the lease call has returned it, so that limits and deadlines go on.
        deferred_ms: Of one that is finished later: its timeout.
        ends_ms: When that ends, if it is not to begin anew.
        ttl_ms: Of a poll's lease: how long it lasts, if that is known.
        absent: Whether its worker has lost its stream and may be anywhere by now. It is made anew as a lease
            without a session that lasts for `ttl_ms`, unless the shard has it already.
    """

    lease: Lease
    session: str
    worker_id: str
    lane: str
    extras: bytes = b""
    deferred_ms: int = 0
    ends_ms: int = 0
    ttl_ms: int = 0
    absent: bool = False


class Refused(NamedTuple):
    """The positions of items that were not queued.

    Attributes:
        recovering: Repeats, because the shard recovers.
        misrouted: Their queue lives on another shard.
    """

    recovering: list[int]
    misrouted: list[int]

    def __bool__(self) -> bool:
        """Whether any was."""
        return bool(self.recovering or self.misrouted)


class Applied(NamedTuple):
    """A directive for one task; kind is `done`, `gone`, `run` or `later`."""

    kind: str
    task_id: bytes
    attempt: int
    label: str
    next_attempt: int
    not_before_ms: int
    tombstone: bytes


class Shard:
    """See the module. Operations raise `ShardError`.

    Args:
        member: What the ring says of it.
        instance_id: This instance.
        doorbell: Who hears what the shard tells.

    Attributes:
        epoch: The epoch that this instance knows; 0 when it knows none.
        first_epoch: Leases of epochs before this one are of another history, and are not taken over.
        full: Whether the shard's memory is above the mark.
        load: How busy its server is, as last seen.
        server: Which server it is now, as `host:port`; empty while none is known.
        ring_version: The version of the ring that calls carry.
        on_work: Told whenever this instance has something to do there.
        on_outdated: Told when the shard knows a later version of the ring.
        catch_up: Waits until this instance knows it, too.
        attached: Set while the shard is usable.
        slots: What concerns the slots of limit keys.
        departures: Takes tasks off that are to be queued elsewhere.
    """

    def __init__(self, member: RingShard, instance_id: str, doorbell: Doorbell) -> None:
        self.member = member
        self.name = member.name
        self.state = ShardState.UNREACHABLE
        self.epoch = 0
        self.first_epoch = 0
        self.full = False
        self.load = Load()
        self.server = ""
        self.ring_version = 0
        self.on_work: Callable[[], None] = lambda: None
        self.on_trouble: Callable[[], None] = lambda: None
        self.on_outdated: Callable[[], None] = lambda: None
        self.catch_up: Callable[[], Awaitable[None]] = _at_once
        self.attached = asyncio.Event()
        self.on_due: Due = lambda _name, _ms: None
        self._instance_id = instance_id
        self._doorbell = doorbell
        self._connection: Connection | None = None
        self.slots = SlotCalls(self._run, self._note_due)
        self.departures = Departures(self._run, instance_id)

    @property
    def usable(self) -> bool:
        """Whether calls have a chance."""
        return self._connection is not None

    def attach(self, connection: Connection, epoch: int) -> None:
        """Use a connection to a server whose identity was looked at."""
        connection.on_push = self._pushed
        self._connection = connection
        self.epoch = epoch
        self.attached.set()

    def detach(self) -> None:
        """Use the connection no more."""
        self._connection = None
        self.attached.clear()
        self.state = ShardState.UNREACHABLE

    # -- tasks -----------------------------------------------------------------------------------------

    async def enqueue(self, items: Sequence[QueueItem]) -> Refused:
        """Queue attempts; the order is kept. Who waits for them here asks for them with the next call.

        Raises:
            ShardFull: Nothing was queued.
        """
        if self.full:
            raise errors.ShardFull(f"shard {self.name} is above its memory mark")
        lanes: dict[str, int] = {}
        arguments: list[Argument] = []
        for item in items:
            index = lanes.setdefault(item.lane, len(lanes) + 1)
            arguments += (
                item.task_id, item.attempt, index, item.ready_ms, item.priority, int(item.repeat),
                encode_extras(item.traits) if item.traits else b"", item.spec,
            )  # fmt: skip
        self._doorbell.expect(self.name, {keys.class_of(lane) for lane in lanes})
        due, recovering, misrouted = await self._run(
            scripts.ENQUEUE, self._instance_id, len(lanes), *lanes, *arguments
        )
        self._note_due(due)
        return Refused([index - 1 for index in recovering], [index - 1 for index in misrouted])

    async def lease(
        self,
        owners: Sequence[Owner],
        classes: Sequence[str],
        *,
        wanted: int,
        wanted_bytes: int,
        lease_ms: int,
        session_ms: int = 0,
        poll_key: str = "",
    ) -> Taken:
        """Take ready tasks of some classes, for sessions (`session_ms` set) or for a poll."""
        arguments: list[Argument] = [wanted, wanted_bytes, lease_ms, session_ms, poll_key, len(owners)]
        for owner in owners:
            arguments += owner
        epoch = self.epoch
        reply = await self._run(scripts.LEASE, self._instance_id, *arguments, *keys.by_queue(tuple(classes)))
        now_ms, head, due, *tasks = reply
        if tasks:
            self.on_work()
        self._note_due(due)
        return Taken(now_ms, float(head) if head else None, tasks, epoch)

    async def received(self, leases: Sequence[tuple[Lease, str]]) -> list[int]:
        """Note that deliveries (lease, session) arrived; returns the indexes of those that are lost."""
        arguments = [part for lease, session in leases for part in (lease.task_id, lease.label, session)]
        return [index - 1 for index in await self._run(scripts.RECEIVED, *arguments)]

    async def release(self, leases: Sequence[Lease]) -> list[bool]:
        """Give tasks back; says for each whether the lease was held."""
        return await self._give_back("leased", leases)

    async def take_back(self, leases: Sequence[Lease]) -> None:
        """Make tasks ready again whose deliveries were not acknowledged."""
        await self._give_back("returning", leases)

    async def _give_back(self, state: str, leases: Sequence[Lease]) -> list[bool]:
        arguments = [part for lease in leases for part in (lease.task_id, lease.label)]
        return [went == 1 for went in await self._run(scripts.RELEASE, state, *arguments)]

    async def apply(self, directives: Sequence[Applied]) -> None:
        """Do what the ledger wants."""
        arguments = [part for directive in directives for part in directive]
        self._note_due(await self._run(scripts.APPLY, *arguments))

    async def withdraw(self, items: Sequence[tuple[bytes, int, str, str]], grace_ms: int = 0) -> list[int]:
        """Take tasks (id, attempt, reason, mode) off.

        Args:
            items: The mode is `cancel`: a leased task is to stop; or `recall`: a leased task goes on, and of
                another one only this attempt and earlier ones are off.
            grace_ms: After which a cancellation that was not confirmed is handed out to be settled (`Over` of
                the kind `grace`); 0 for never.

        Returns:
            For each 1 removed, 2 leased, 3 unknown, 4 removed to be cancelled although a worker may have it.
        """
        arguments = [part for item in items for part in item]
        due, states = await self._run(scripts.WITHDRAW, grace_ms, *arguments)
        self._note_due(due)
        return list(states)

    async def compare(self, items: Sequence[tuple[bytes, int]]) -> tuple[bool, list[bool]]:
        """Whether the shard recovers, and which attempts (id, attempt) it knows."""
        reply = await self._run(scripts.COMPARE, *(part for item in items for part in item))
        return reply[0] == 1, [known == 1 for known in reply[1:]]

    async def outcomes(self, task_ids: Sequence[bytes]) -> list[bytes]:
        """The tombstones of tasks, empty where there is none."""
        return list(await self._run(scripts.OUTCOMES, *task_ids))

    async def describe(self, scopes: Sequence[str]) -> list[Depth]:
        """The figures of queues (`tenant/queue`)."""
        reply = await self._run(scripts.DESCRIBE, _LANES_LOOKED_AT, *scopes)
        return [Depth(*(int(figure) for figure in figures)) for figures in reply]

    async def explain(self, task_ids: Sequence[bytes]) -> list[Explained]:
        """What tasks wait for."""
        reply = await self._run(scripts.EXPLAIN, *task_ids)
        return explained(reply)

    async def totals(self) -> Depth:
        """The figures of all queues together."""
        ready, delayed, leased = await self._run(scripts.TOTALS)
        return Depth(ready, delayed, leased, 0)

    # -- queues ----------------------------------------------------------------------------------------

    async def configure(self, queues: Sequence[ShardQueueConfig], *, anew: bool = False) -> list[int]:
        """Take the configurations of queues, at most 1,000.

        Args:
            queues: How they are set.
            anew: Whether the shard begins anew and this is what was set until now, so that it may have
                given tokens of their rates of which it knows nothing.

        Returns:
            How many leases of each there are here.
        """
        arguments: list[Argument] = [int(anew)]
        for queue in queues:
            arguments += (
                queue.scope, queue.version, int(queue.paused), queue.max_running, queue.max_running_per_key,
                *queue.rate, *queue.rate_per_key, int(queue.away), int(queue.hold), queue.foreign,
                int(queue.spread), len(queue.foreign_keys),
                *(part for key in queue.foreign_keys for part in key),
            )  # fmt: skip
        due, *leased = await self._run(scripts.CONFIGURE, *arguments)
        self._note_due(due)
        return [int(count) for count in leased]

    async def running(self, scopes: Sequence[str], most: int) -> list[dict[str, int] | None]:
        """How many leases each limit key of queues has; None for a queue with more than so many keys."""
        reply = await self._run(scripts.RUNNING, most, *scopes)
        return [counts(found) if isinstance(found, list) else None for found in reply]

    # -- leaving the ring ------------------------------------------------------------------------------

    async def scan(self, cursor: bytes) -> tuple[bytes, list[bytes]]:
        """Look for tasks, from a cursor on (b"0" at first); returns the next one (b"0" at last) and ids."""
        if self._connection is None:
            raise errors.ShardUnavailable(f"shard {self.name} does not answer")
        prefix = keys.task(b"")
        found = await self._connection.call("SCAN", cursor, "MATCH", prefix + b"*", "COUNT", _SCANNED)
        return found[0], [name[len(prefix) :] for name in found[1]]

    async def close(self) -> Depth:
        """Close the shard if it holds nothing; returns what it holds."""
        ready, delayed, leased = await self._run(scripts.CLOSE)
        return Depth(ready, delayed, leased, 0)

    # -- leases ----------------------------------------------------------------------------------------

    async def expire(self, closing_ms: int) -> tuple[float | None, list[Over]]:
        """Do what time asks for.

        Returns:
            Seconds until more is due (None when nothing is), and the leases that are to be settled.
        """
        reply = await self._run(scripts.EXPIRE, EXPIRE_LIMIT, closing_ms)
        due_ms, more = reply[:2]
        due = 0.0 if more else None if due_ms < 0 else due_ms / 1000
        width = _FIELDS_OF_OVER
        return due, [self._over(reply[at : at + width]) for at in range(2, len(reply), width)]

    async def adopt(self, held: Sequence[Held], poll_ms: int) -> list[bool]:
        """Take over leases that workers still hold; says for each whether it goes on."""
        # What is to be completed later was kept by the database, so that it is of this history.
        ours = [item.lease.epoch >= self.first_epoch or item.deferred_ms > 0 for item in held]
        taken = [item for item, is_ours in zip(held, ours, strict=True) if is_ours]
        verdicts = iter(await self._adopt(taken, poll_ms))
        return [is_ours and next(verdicts) for is_ours in ours]

    async def _adopt(self, held: Sequence[Held], poll_ms: int) -> list[bool]:
        if not held:
            return []
        arguments: list[Argument] = [poll_ms]
        for item in held:
            lease = item.lease
            arguments += (
                lease.task_id, lease.attempt, lease.label, item.session, item.worker_id, item.lane,
                lease.leased_ms, item.extras, item.deferred_ms, item.ends_ms, item.ttl_ms,
                int(item.absent),
            )  # fmt: skip
        due, *verdicts = await self._run(scripts.ADOPT, *arguments)
        self._note_due(due)
        return [kept == 1 for kept in verdicts]

    async def beat(self, leases: Sequence[Lease]) -> None:
        """Note that the handlers of tasks with a heartbeat timeout were heard of."""
        await self._run(scripts.BEAT, *(part for lease in leases for part in (lease.task_id, lease.label)))

    async def defer(self, lease: Lease, timeout_ms: int) -> bool:
        """Let a lease be finished later, by whoever has its token; False when it is lost."""
        return (await self.defer_all([(lease, timeout_ms)]))[0]

    async def defer_all(self, leases: Sequence[tuple[Lease, int]]) -> list[bool]:
        """The same for many (lease, milliseconds)."""
        arguments = [part for lease, ms in leases for part in (lease.task_id, lease.label, ms)]
        due, *verdicts = await self._run(scripts.DEFER, *arguments)
        self._note_due(due)
        return [done == 1 for done in verdicts]

    async def greet(self, sessions: Sequence[tuple[str, str, bytes]], session_ms: int) -> Greeted:
        """Make sessions (session, tenant/worker, instance key) known."""
        arguments = [part for session in sessions for part in session]
        ended, former = await self._run(scripts.GREET, session_ms, *arguments)
        return Greeted(int(ended), [name.decode() for name in former])

    async def renew(self, sessions: Sequence[str], session_ms: int) -> list[int]:
        """Extend sessions; returns the indexes of those that have ended on this shard."""
        return [index - 1 for index in await self._run(scripts.RENEW, session_ms, *sessions)]

    async def leave(self, sessions: Sequence[str]) -> None:
        """End sessions."""
        await self._run(scripts.LEAVE, *sessions)

    async def renew_polled(self, leases: Sequence[Lease]) -> list[list[Any]]:
        """Extend polled leases: [1] goes on, [1, reason] is to be cancelled, [0] lost, [2] unknown here."""
        arguments = [part for lease in leases for part in (lease.task_id, lease.label)]
        return list(await self._run(scripts.RENEW_POLLED, *arguments))

    async def recall(self, poll_key: str) -> list[tuple[Lease, str, int, bytes, bytes]]:
        """What an earlier poll still holds: lease, lane, when it ends, extras, specification."""
        reply = await self._run(scripts.RECALL, poll_key)
        found = []
        for at in range(0, len(reply), 8):
            task_id, attempt, label, lane, leased_ms, ends_ms, extras, spec = reply[at : at + 8]
            lease = self._lease(task_id, attempt, label, lane, leased_ms)
            found.append((lease, lane.decode(), int(float(ends_ms)), extras, spec))
        return found

    async def recovered(self, wait_ms: int, live: Sequence[str]) -> ShardState:
        """Say that this instance has adopted what it runs."""
        state = await self._run(scripts.RECOVERED, self._instance_id, wait_ms, *live)
        return ShardState.OPEN if state == b"open" else ShardState.RECOVERING

    # -- the call --------------------------------------------------------------------------------------

    async def _run(self, script: Script, *arguments: Argument) -> Any:
        if script not in scripts.AT_REST:
            self.on_work()
        again = script in scripts.OF_ANY_RING
        while True:
            connection = self._connection
            if connection is None:
                raise errors.ShardUnavailable(f"shard {self.name} does not answer")
            try:
                return await run_script(connection, script, self.epoch, self.ring_version, *arguments)
            except errors.EpochChanged:
                if connection is self._connection:
                    self.detach()
                self.on_trouble()
                raise
            except errors.ShardClosed:
                self.on_outdated()
                raise
            except errors.ShardUnavailable:
                self.on_trouble()
                raise
            except errors.RingOutdated:
                self.on_outdated()
                if not again:
                    raise
            # Nobody else would ask again before long.
            await self.catch_up()
            again = False

    def _pushed(self, push: list[Any]) -> None:
        if push[0] == b"message":
            self._doorbell.heard(self.name, push[2])

    def _note_due(self, due_ms: int) -> None:
        if due_ms >= 0:
            self.on_due(self.name, due_ms)

    def _over(self, fields: list[Any]) -> Over:
        task_id, attempt, label, lane, worker_id, leased_ms, kind = fields
        lease = self._lease(task_id, attempt, label, lane, leased_ms)
        return Over(lease, worker_id.decode(), kind.decode())

    def _lease(self, task_id: bytes, attempt: int, label: bytes, lane: bytes, leased_ms: bytes) -> Lease:
        epoch, _, number = label.partition(b":")
        tenant = lane.partition(b"/")[0].decode()
        return Lease(task_id, attempt, int(epoch), int(number), self.name, tenant, int(leased_ms))


async def run_script(connection: Connection, script: Script, *arguments: Argument) -> Any:
    """Run a script, loading it when the server does not have it."""
    try:
        return await connection.call("EVALSHA", script.sha, 0, *arguments)
    except errors.ShardError as error:
        if not str(error).startswith("NOSCRIPT"):
            raise
    await connection.call("SCRIPT", "LOAD", script.text)
    return await connection.call("EVALSHA", script.sha, 0, *arguments)


def poll_key(tenant: str, worker_id: str, request_id: str) -> str:
    """Under which a shard remembers what a poll has leased."""
    return keys.poll(tenant, worker_id, request_id)
