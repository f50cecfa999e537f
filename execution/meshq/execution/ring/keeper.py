"""Keeps one shard in use: connects, looks at its identity, and recovers it after a wipe.

A shard's identity is (epoch, run id, replication id), and its content is of one generation of the database.
The first time and whenever they do not fit any more, one instance begins a new epoch, and the shard is
RECOVERING until every live instance has adopted the leases that its sessions hold, or one lease time has
passed. An instance uses a shard only after it has adopted on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol

from prometheus_client import Counter

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.execution.model import Lease, ShardQueueConfig
from meshq.execution.ring import keys, scripts
from meshq.execution.ring.connection import Connection, open_connection
from meshq.execution.ring.doorbell import Doorbell
from meshq.execution.ring.errors import ShardClosed, ShardError, ShardUnavailable
from meshq.execution.ring.generations import UNNAMED, Generations
from meshq.execution.ring.load import parse_load
from meshq.execution.ring.primary import Passwords, Primary, primary_of
from meshq.execution.ring.servers import SECTIONS, judge, parse_hash, parse_info
from meshq.execution.ring.shard import Held, Shard, ShardState, run_script
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_LOOK_SECONDS: Final = 1.0
_WORK_SECONDS: Final = 5.0
_REST_LOOK_SECONDS: Final = 3.0
"""Between looks where this instance had nothing to do for so long, and its sessions have nothing from there.
What comes then is followed by a look at once."""
_RECOVERY_LOOK_SECONDS: Final = 0.1
_ANSWER_SECONDS: Final = 3.0
_MEMORY_MARK: Final = 0.85
_ADOPT_SECONDS: Final = 30.0
_ADOPT_AT_ONCE: Final = 500
_NO_HISTORY: Final = "0" * 40
_BEGUN: Final = Counter("meshq_shard_epochs", "Epochs of shards that this instance has begun.", ["shard"])


class Holders(Protocol):
    """Who has sessions with leases."""

    def greetings(self) -> Sequence[tuple[str, str, bytes]]:
        """All sessions: session, tenant/worker, instance key."""

    def held_on(self, shard: str) -> Sequence[Held]:
        """The leases of all sessions on a shard."""

    def lost(self, session: str, lease: Lease) -> None:
        """A lease of the session is gone."""


class Configs(Protocol):
    """How queues are set."""

    async def __call__(self, shard: str, /, *, anew: bool) -> Sequence[ShardQueueConfig]:
        """What a shard has to know; all that anybody has set of queues where it begins anew."""


async def _nothing(_shard: str) -> Sequence[Held]:
    return ()


async def _no_configs(_shard: str, /, *, anew: bool) -> Sequence[ShardQueueConfig]:  # noqa: ARG001
    return ()


class Surroundings(NamedTuple):
    """What recovering needs from the rest of the instance.

    Attributes:
        next_epoch: An epoch that was never used.
        generations: The history that this is.
        ended: Which of some attempts (id, attempt) have ended.
        live: The ids of all running instances.
        holders: Whose leases are adopted.
        compare: Called when a shard was recovered.
        lease_ms: How long a session lives without being heard.
        poll_ms: How long adopted polled leases live without being renewed.
        configs: What a shard of that name has to know of queues before anything is leased from it.
        others: Leases on a shard of that name that belong to no session.
    """

    next_epoch: Callable[[], Awaitable[int]]
    generations: Generations
    ended: Callable[[Sequence[tuple[bytes, int]]], Awaitable[Collection[tuple[bytes, int]]]]
    live: Callable[[], Collection[str]]
    holders: Holders
    compare: Callable[[], None]
    lease_ms: int
    poll_ms: int
    configs: Configs = _no_configs
    others: Callable[[str], Awaitable[Sequence[Held]]] = _nothing


class Identity(NamedTuple):
    """What tells one content of a server from another."""

    run_id: str
    replication_id: str


class Keeper:
    """See the module.

    Args:
        shard: The shard to keep in use.
        instance_id: This instance.
        doorbell: Gets the shard's news.
        around: The rest of the instance.
        passwords: Of the server, and of who knows where it is.

    Attributes:
        added: Set where the shard has just come into the ring, so that nothing can be missing there.
    """

    def __init__(
        self, shard: Shard, instance_id: str, doorbell: Doorbell, around: Surroundings, passwords: Passwords
    ) -> None:
        self.shard = shard
        self._instance_id = instance_id
        self._doorbell = doorbell
        self._around = around
        self._passwords = passwords
        self._primary: Primary | None = None
        self._connection: Connection | None = None
        self.added = False
        self._compare_due = False
        self._complaint = ""
        self._worked = monotonic()
        self._rests = False
        self._repeater = Repeater(f"shard {shard.name}", self.run_once, _LOOK_SECONDS)
        shard.on_trouble = self._repeater.wake
        shard.on_work = self._work_came

    async def start(self) -> None:
        """Connect and go on looking after the shard."""
        await self._repeater.start()

    async def stop(self) -> None:
        """Let go of the shard."""
        await self._repeater.stop()
        self._drop()
        if self._primary is not None:
            self._primary.close()

    async def run_once(self) -> float:
        """Look at the shard once; returns the seconds until the next look."""
        self._rests = False
        try:
            await self._look()
        except (ShardError, MeshqError, TimeoutError) as error:
            self._complain(str(error) or "it does not answer")
        except Exception as error:  # noqa: BLE001
            # Nobody knows what the shard is, or how far it was made ready.
            self._complain(f"{error!r}, which is a fault of this program; it is tried again", error)
        else:
            return self._until_next()
        self._drop()
        return _LOOK_SECONDS

    def _until_next(self) -> float:
        if self.shard.state is not ShardState.OPEN:
            return _RECOVERY_LOOK_SECONDS
        idle = monotonic() - self._worked > _WORK_SECONDS
        self._rests = idle and not self._around.holders.held_on(self.shard.name)
        return _REST_LOOK_SECONDS if self._rests else _LOOK_SECONDS

    def _work_came(self) -> None:
        self._worked = monotonic()
        if self._rests:
            # What was seen last may be from some seconds ago.
            self._rests = False
            self._repeater.wake()

    async def _look(self) -> None:
        connection = await self._connected()
        async with asyncio.timeout(_ANSWER_SECONDS):
            answers = await asyncio.gather(
                connection.call("INFO", *SECTIONS), connection.call("HGETALL", keys.META)
            )
        info, meta = parse_info(answers[0]), parse_hash(answers[1])
        judge(info, self.shard.server)
        self._note_memory(info)
        if self._is_closed(meta):
            del meta["run_id"]  # what it holds is of no use, as if another server had come
        identity = Identity(info["run_id"], info["master_replid"])
        if not (_is_same(meta, info) and self._is_ours(meta)):
            self.shard.detach()
            async with asyncio.timeout(_ADOPT_SECONDS):
                await self._claim(connection, identity, meta)
                meta = parse_hash(await connection.call("HGETALL", keys.META))
            if self._is_closed(meta):
                raise ShardClosed("it was taken out of the ring and comes back just now")
        async with asyncio.timeout(_ADOPT_SECONDS):
            await self._use(connection, int(meta["epoch"]), meta["state"])

    async def _connected(self) -> Connection:
        primary = self._primary or self._new_primary()
        if self._connection is None or self._connection.closed or await primary.moved():
            self._drop()
            server = str(await primary.find())
            self._connection = connection = await open_connection(server, self._name(), self._passwords.shard)
            self.shard.server = server
            connection.on_closed = lambda: self._closed(connection)
            for script in scripts.ALL:
                connection.call("SCRIPT", "LOAD", script.text).add_done_callback(_ignore)
        return self._connection

    def _new_primary(self) -> Primary:
        address, wake = self.shard.member.address, self._repeater.wake
        try:
            self._primary = primary_of(address, self._name(), self._passwords, wake)
        except ValueError as error:
            raise ShardUnavailable(f"its address cannot be used: {error}") from error
        return self._primary

    def _name(self) -> str:
        return f"meshq-{self._instance_id}"

    def _note_memory(self, info: dict[str, str]) -> None:
        self.shard.load = load = parse_load(info)
        self.shard.full = load.max_memory > 0 and load.used_memory > _MEMORY_MARK * load.max_memory

    def _is_closed(self, meta: dict[str, str]) -> bool:
        """Whether it had left the ring and is there again, so that it has to begin anew.

        Raises:
            ShardClosed: It has left the ring as far as this instance knows.
        """
        if meta.get("state") != "closed":
            return False
        if self._is_ours(meta) and self.shard.ring_version <= int(meta["ring"]):
            self.shard.on_outdated()
            raise ShardClosed("it was taken out of the ring")
        return True

    def _is_ours(self, meta: dict[str, str]) -> bool:
        return meta.get("generation", UNNAMED) == self._around.generations.current.name

    async def _claim(self, connection: Connection, identity: Identity, meta: dict[str, str]) -> None:
        """Begin a new epoch, unless it is this instance that has not heard of a new generation."""
        known = self._around.generations.current
        generation = await self._around.generations.refresh()
        if generation != known and self._is_ours(meta):
            return
        epoch = await self._around.next_epoch()
        seen = meta.get("epoch", "")
        won = await run_script(
            connection, scripts.OPEN_EPOCH, epoch, self.shard.ring_version, seen, *identity, generation.name
        )
        if int(won) == epoch:
            _BEGUN.labels(self.shard.name).inc()
            _log.info("shard begins a new epoch", shard=self.shard.name, epoch=epoch)

    async def _use(self, connection: Connection, epoch: int, state: str) -> None:
        shard = self.shard
        if not shard.usable or shard.epoch != epoch:
            await self._enter(connection, epoch, recovering=state != "open")
        was = shard.state
        if state != "open":
            shard.state = await shard.recovered(self._around.lease_ms, self._live())
        else:
            shard.state = ShardState.OPEN
        if shard.state is ShardState.OPEN and was is not ShardState.OPEN:
            # What has limits was not handed out before.
            self._doorbell.ring_all(shard.name)
        if shard.state is ShardState.OPEN and self._compare_due:
            self._compare_due = False
            self._around.compare()

    async def _enter(self, connection: Connection, epoch: int, *, recovering: bool) -> None:
        """Configure it, adopt what the sessions of this instance run, then let everybody use the shard."""
        shard = self.shard
        shard.first_epoch = self._around.generations.current.first_epoch
        aside = Shard(shard.member, self._instance_id, self._doorbell)
        aside.ring_version, aside.first_epoch = shard.ring_version, shard.first_epoch
        aside.attach(connection, epoch)
        configs = await self._around.configs(shard.name, anew=recovering)
        for at in range(0, len(configs), MAX_FRAME_ITEMS):
            await aside.configure(configs[at : at + MAX_FRAME_ITEMS], anew=recovering)
        if shard.epoch != epoch:
            held = list(self._around.holders.held_on(shard.name))
            if recovering:
                held += await self._around.others(shard.name)
            await self._adopt(aside, held)
        missing = shard.epoch not in {0, epoch} or (recovering and not self.added)
        self._compare_due, self.added = self._compare_due or missing, False
        shard.attach(connection, epoch)
        connection.send("SUBSCRIBE", keys.bell(self._instance_id))
        self._doorbell.ring_all(shard.name)
        self._complaint = ""
        _log.info("shard in use", shard=shard.name, epoch=epoch)

    async def _adopt(self, shard: Shard, held: Sequence[Held]) -> None:
        around = self._around
        greetings = around.holders.greetings()
        for at in range(0, len(greetings), _ADOPT_AT_ONCE):
            await shard.greet(greetings[at : at + _ADOPT_AT_ONCE], around.lease_ms)
        for at in range(0, len(held), _ADOPT_AT_ONCE):
            part = held[at : at + _ADOPT_AT_ONCE]
            ended = await around.ended([(item.lease.task_id, item.lease.attempt) for item in part])
            running = [item for item in part if (item.lease.task_id, item.lease.attempt) not in ended]
            kept = await shard.adopt(running, around.poll_ms) if running else []
            for item, is_kept in zip(running, kept, strict=True):
                if not is_kept:
                    around.holders.lost(item.session, item.lease)

    def _live(self) -> list[str]:
        return sorted({self._instance_id, *self._around.live()})

    def _closed(self, connection: Connection) -> None:
        if connection is self._connection:
            self.shard.detach()
            self._repeater.wake()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self.shard.server = ""
        self.shard.detach()
        if connection is not None:
            connection.close()

    def _complain(self, text: str, fault: Exception | None = None) -> None:
        if text != self._complaint:
            self._complaint = text
            _log.warning("shard cannot be used", shard=self.shard.name, reason=text, exc_info=fault)


def _is_same(meta: dict[str, str], info: dict[str, str]) -> bool:
    """Whether the content is still the one of which the server knows.

    A server takes another replication id when it is promoted, and then says of which history it is the next;
    but also, without a history, when its first replica joins it or its last one has been gone for long.
    """
    if meta.get("run_id") != info["run_id"]:
        return False
    promoted = info.get("master_replid2", _NO_HISTORY) != _NO_HISTORY
    return not promoted or meta.get("replication_id") == info["master_replid"]


def _ignore(answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled():
        answer.exception()
