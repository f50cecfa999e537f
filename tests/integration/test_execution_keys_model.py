"""Limits per key while the ring changes: random steps of two instances on three real shards, beside a model.

The instances hear of versions of the ring at different times, cannot reach some shards for a while, and
shards are wiped. Whatever happens, no key has more leases than its limit, on all shards together. At the end
all is worked off, so that nothing was held back or forgotten.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from fixtures.shards import done, item, leases, now_ms
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from meshq.execution.model import Lease, QueueItem, ShardQueueConfig, Spread, Traits
from meshq.execution.queues.configs import Configured, QueueConfigs
from meshq.execution.queues.handover import Handover
from meshq.execution.queues.strays import Strays
from meshq.execution.ring import scripts
from meshq.execution.ring.carrier import Carrier
from meshq.execution.ring.connection import Connection, open_connection
from meshq.execution.ring.doorbell import Doorbell
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.extras import encode_extras
from meshq.execution.ring.hashring import Ring, RingShard
from meshq.execution.ring.mover import Mover
from meshq.execution.ring.shard import Held, Owner, Shard, ShardState, run_script

SCOPE = "default/q"
CLASS = f"{SCOPE}/t"
KEYS = "abdi"
HOUR = 3_600_000
NAMES = ("shard-1", "shard-2", "shard-3")


class NoStore:
    """Keeps no settings."""

    async def store(self, rows: Sequence[Any]) -> list[tuple[str, str]]:
        return []

    async def load(self) -> list[tuple[bytes, bool]]:
        return []


class Fleet:
    """The shards as one instance sees them, which it hears of when it is told."""

    def __init__(self, name: str, addresses: dict[str, str]) -> None:
        self.ring = Ring(0, ())
        self.shards = {
            shard: Shard(RingShard(shard, address), name, Doorbell()) for shard, address in addresses.items()
        }
        self.connections: dict[str, Connection] = {}

    async def open(self) -> None:
        for name, shard in self.shards.items():
            self.connections[name] = await open_connection(shard.member.address, "test")

    def use(self, ring: Ring) -> None:
        self.ring = ring
        for member in ring.shards:
            self.shards[member.name].member = member
            self.shards[member.name].ring_version = ring.version

    def all(self) -> list[Shard]:
        return [self.shards[member.name] for member in self.ring.shards]

    def usable(self) -> list[Shard]:
        return [shard for shard in self.all() if shard.usable]

    def get(self, name: str) -> Shard | None:
        return self.shards[name]

    def owner(self, key: bytes) -> Shard | None:
        name = self.ring.owner(key)
        return self.shards[name] if name else None


class Instance:
    """What of an instance keeps the limits of keys."""

    def __init__(self, name: str, addresses: dict[str, str]) -> None:
        self.fleet = Fleet(name, addresses)
        self.configs = QueueConfigs(NoStore(), lambda _: None)  # type: ignore[arg-type, return-value]
        shards: Any = self.fleet
        carrier = Carrier(self.requeue)
        self.handover = Handover(self.configs, shards, Strays(carrier), patience=HOUR)
        self.mover = Mover(shards, carrier)

    async def look(self) -> None:
        await self.handover.run_once()
        await self.mover.run_once()

    async def requeue(self, items: Sequence[QueueItem]) -> list[int]:
        refused = []
        for index, found in enumerate(items):
            shard = self.fleet.owner(self.configs.routing_key(found))
            assert shard
            try:
                if await shard.enqueue([found]):
                    refused.append(index)
            except ShardError:
                refused.append(index)
        return refused


class KeysMachine(RuleBasedStateMachine):
    """See the module."""

    addresses: dict[str, str]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.instances = [Instance(name, self.addresses) for name in ("e-1", "e-2")]
        self.most = 0
        self.version = 0
        self.limited: set[int] = set()
        self.epoch = 1
        self.epochs: dict[str, int] = {}
        self.recovering: set[str] = set()
        self.open: dict[bytes, QueueItem] = {}
        self.held: dict[bytes, tuple[Lease, QueueItem]] = {}
        self.before: Counter[str] = Counter()

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run(step)

    def teardown(self) -> None:
        try:
            if self.limited:
                for who in {0, 1} - self.limited:
                    self.an_instance_hears_of_the_limit(who)
            if self.epochs:
                self.run(self._work_off())
        finally:
            for instance in self.instances:
                for connection in instance.fleet.connections.values():
                    connection.close()
            self.run(asyncio.sleep(0))
            self.loop.close()

    @initialize(most=st.integers(1, 2), taking=st.sets(st.sampled_from(NAMES), min_size=1))
    def begin(self, most: int, taking: set[str]) -> None:
        self.most = most
        for instance in self.instances:
            self.run(instance.fleet.open())
        for name in NAMES:
            self.run(self._new_epoch(name))
        self._next_ring(taking)
        for instance in self.instances:
            instance.fleet.use(self.ring)
        for name in NAMES:
            self.run(self._recover(name))
        if most == 1:
            for who in (0, 1):
                self.an_instance_hears_of_the_limit(who)

    # -- the ring ---------------------------------------------------------------------------------------

    def _next_ring(self, taking: set[str]) -> None:
        self.version += 1
        members = [RingShard(name, self.addresses[name], draining=name not in taking) for name in NAMES]
        self.ring = Ring(self.version, members)

    @rule(taking=st.sets(st.sampled_from(NAMES), min_size=1), who=st.sampled_from([(0,), (1,), (0, 1)]))
    def the_ring_changes(self, taking: set[str], who: tuple[int, ...]) -> None:
        self._next_ring(taking)
        for index in who:
            self.instances[index].fleet.use(self.ring)

    @rule(who=st.integers(0, 1))
    def an_instance_hears_of_the_ring(self, who: int) -> None:
        self.instances[who].fleet.use(self.ring)

    @rule(who=st.integers(0, 1), times=st.integers(1, 3))
    def an_instance_looks(self, who: int, times: int) -> None:
        for _ in range(times):
            self.run(self.instances[who].look())

    # -- shards -----------------------------------------------------------------------------------------

    @rule(
        who=st.integers(0, 1),
        name=st.sampled_from(NAMES),
        what=st.sampled_from(["silent", "speaks", "speaks", "wiped", "recovers", "recovers"]),
    )
    def a_shard_has_trouble(self, who: int, name: str, what: str) -> None:
        if what == "silent":
            self.instances[who].fleet.shards[name].detach()
        elif what == "speaks":
            self.run(self._enter(self.instances[who], name))
        elif what == "wiped":
            self.run(self._new_epoch(name))
            for instance in self.instances:
                instance.fleet.shards[name].detach()
        elif name in self.recovering:
            self.run(self._recover(name))

    async def _new_epoch(self, name: str) -> None:
        connection = self.instances[0].fleet.connections[name]
        seen = await connection.call("HGET", "mq:meta", "epoch")
        self.epoch += 1
        ring = max(self.version, 1)
        await run_script(
            connection, scripts.OPEN_EPOCH, self.epoch, ring, seen or b"", "run", "replication", "generation"
        )
        self.epochs[name] = self.epoch
        self.recovering.add(name)

    async def _recover(self, name: str) -> None:
        """All instances adopt what workers have; then the shard is open."""
        for instance in self.instances:
            instance.fleet.use(self.ring)
            await self._enter(instance, name)
        shard = self.instances[0].fleet.shards[name]
        held = [
            Held(lease, "", "w", found.lane, encode_extras(found.traits), ttl_ms=HOUR)
            for lease, found in self.held.values()
            if lease.shard == name
        ]
        assert all(await shard.adopt(held, HOUR)) or not held
        for instance in self.instances:
            state = await instance.fleet.shards[name].recovered(HOUR, ["e-1", "e-2"])
        assert state is ShardState.OPEN
        self.recovering.discard(name)
        for instance in self.instances:
            instance.fleet.shards[name].state = ShardState.OPEN

    async def _enter(self, instance: Instance, name: str) -> None:
        """What a keeper does before anything is leased."""
        shard = instance.fleet.shards[name]
        shard.attach(instance.fleet.connections[name], self.epochs[name])
        shard.state = ShardState.RECOVERING if name in self.recovering else ShardState.OPEN
        try:
            for config in instance.configs.all():
                await shard.configure([config._replace(spread=Spread.UNCOUNTED)])
        except ShardError:
            shard.detach()

    # -- settings ---------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.limited) < len(self.instances))
    @rule(who=st.integers(0, 1))
    def an_instance_hears_of_the_limit(self, who: int) -> None:
        """One after the other; it holds from the first one on."""
        self.limited.add(who)
        instance = self.instances[who]
        config = ShardQueueConfig(SCOPE, 1, max_running_per_key=self.most)
        self.run(instance.configs.take([Configured("default", "q", config, b"")]))
        for name in NAMES:
            if instance.fleet.shards[name].usable:
                self.run(self._enter(instance, name))
        self.run(instance.handover.look())

    # -- tasks ------------------------------------------------------------------------------------------

    @rule(who=st.integers(0, 1), keys=st.lists(st.sampled_from(KEYS), min_size=2, max_size=8))
    def enqueue(self, who: int, keys: list[str]) -> None:
        for key in keys:
            found = item(lane=f"{CLASS}/", traits=Traits(key), ready_ms=now_ms() - 1)
            self.open[found.task_id] = found
            self.run(self.instances[who].requeue([found]))

    @rule(who=st.integers(0, 1), names=st.sampled_from([NAMES, NAMES, *((name,) for name in NAMES)]))
    def lease(self, who: int, names: tuple[str, ...]) -> None:
        for name in names:
            self.run(self._lease(self.instances[who].fleet.shards[name], 5))

    async def _lease(self, shard: Shard, count: int) -> int:
        try:
            taken = await shard.lease(
                [Owner("", "w", count)], [CLASS], wanted=count, wanted_bytes=1 << 20, lease_ms=HOUR
            )
        except ShardError:
            return 0
        found = leases(shard, taken)
        for lease in found:
            assert lease.task_id not in self.held, "leased twice"
            self.held[lease.task_id] = (lease, self.open[lease.task_id])
        return len(found)

    @rule(
        key=st.sampled_from(KEYS),
        taking=st.sets(st.sampled_from(NAMES), min_size=1),
        finished=st.booleans(),
        looking=st.lists(st.integers(0, 1), max_size=6),
    )
    def a_key_moves_while_it_runs(
        self, key: str, taking: set[str], finished: bool, looking: list[int]
    ) -> None:
        """What limits are exceeded by, if by anything: single steps seldom come in this order."""
        self.enqueue(0, [key] * 4)
        self.lease(0, NAMES)
        self.the_ring_changes(taking, (0, 1))
        if finished:
            for task_id in sorted(self.held):
                self.run(self._finish(task_id))
        for who in looking:
            self.run(self.instances[who].look())
        self.enqueue(1, [key] * 4)
        self.lease(1, NAMES)

    @precondition(lambda self: self.held)
    @rule(number=st.integers(0, 100), kind=st.sampled_from(["done", "run", "release"]))
    def finish(self, number: int, kind: str) -> None:
        task_id = sorted(self.held)[number % len(self.held)]
        self.run(self._finish(task_id, kind))

    async def _finish(self, task_id: bytes, kind: str = "done") -> None:
        """Its shard has to hear of it: a lease is one as long as its shard has it."""
        lease, found = self.held[task_id]
        again = found._replace(attempt=found.attempt + 1)
        for instance in self.instances:
            shard = instance.fleet.shards[lease.shard]
            try:
                if kind == "release":
                    gone = (await shard.release([lease]))[0]
                    assert gone
                elif kind == "run":
                    run = done(lease, "run", next_attempt=again.attempt, not_before_ms=now_ms() - 1)
                    await shard.apply([run])
                else:
                    await shard.apply([done(lease)])
            except ShardError:
                continue
            del self.held[task_id]
            if kind == "run":
                self.open[task_id] = again
            elif kind == "done":
                del self.open[task_id]
            return

    @invariant()
    def no_key_is_above_its_limit(self) -> None:
        running = Counter(found.traits.limit_key for _, found in self.held.values() if found.traits)
        if not self.limited:
            self.before = running
        # What ran before there was a limit may go on.
        self.before = Counter({key: min(running[key], count) for key, count in self.before.items()})
        above = {key for key, count in running.items() if count > max(self.most, self.before[key])}
        assert not above or not self.limited, f"{running}, and the limit is {self.most}"

    # -- the end ----------------------------------------------------------------------------------------

    async def _work_off(self) -> None:
        for name in sorted(self.recovering):
            await self._recover(name)
        for instance in self.instances:
            instance.fleet.use(self.ring)
            for name in NAMES:
                await self._enter(instance, name)
        for _ in range(200):
            for task_id in list(self.held):
                await self._finish(task_id)
            for instance in self.instances:
                await instance.look()
            await self._compare()
            if not self.open:
                break
            for shard in self.instances[0].fleet.all():
                await shard.expire(HOUR)
                await self._lease(shard, 10)
            self.no_key_is_above_its_limit()
        assert not self.open, f"{len(self.open)} tasks were forgotten"
        for instance in self.instances:
            await instance.look()
        standings = await self.instances[0].handover.look()
        assert all(
            standing and standing.settled
            for name, standing in standings.items()
            if not self.instances[0].fleet.shards[name].member.draining
        ), standings

    async def _compare(self) -> None:
        """Queue what no shard knows, as after a comparison with the ledger."""
        known: set[bytes] = set()
        tasks = list(self.open.items())
        for shard in self.instances[0].fleet.all():
            _, answers = await shard.compare([(task_id, found.attempt) for task_id, found in tasks])
            known |= {task_id for (task_id, _), is_known in zip(tasks, answers, strict=True) if is_known}
        await self.instances[0].requeue(
            [found._replace(repeat=True) for task_id, found in tasks if task_id not in known]
        )


@pytest.mark.timeout(400)
def test_no_key_exceeds_its_limit_whatever_happens_to_the_ring(shards: dict[str, str]) -> None:
    KeysMachine.addresses = shards
    run_state_machine_as_test(
        KeysMachine,
        settings=settings(
            max_examples=12,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            phases=[Phase.explicit, Phase.generate],  # shrinking would take minutes
        ),
    )
