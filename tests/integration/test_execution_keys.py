"""Limits per key while the ring changes: under load, for the first time, and with silent shards."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fixtures.execution import Cluster, Instance, cluster, polled, traits, wait_until
from fixtures.queues import KEYS, configured, ended, finished, keyed, of_keys, settle
from fixtures.shards import item, lease, now_ms, shard

from meshq.execution.model import Bucket, QueueItem, ShardQueueConfig, Spread, Traits
from meshq.execution.postgres.ring import RingTable
from meshq.execution.queues.strays import Strays
from meshq.execution.ring.carrier import Carrier
from meshq.execution.ring.hashring import Ring, RingShard
from meshq.execution.ring.shard import Shard
from meshq.execution.ring.slots import SLOTS, slot_of
from meshq.v1.task_pb2 import Task

__all__ = ["shard"]
ALL = bytes([255]) * (SLOTS // 8)
NONE = bytes(SLOTS // 8)


async def draining(instance: Instance, *names: str) -> None:
    """Make a version of the ring in which these shards drain, of which this instance hears."""

    async def edit(ring: Ring) -> list[RingShard]:
        return [replace(member, draining=member.name in names) for member in ring.shards]

    ring = await RingTable(instance.execution.database).change(edit)
    await instance.execution.follower.run_once()
    assert instance.execution.shards.ring.version == ring.version


async def settled(*instances: Instance) -> None:
    """Wait until no shard that takes tasks has anything of other shards' keys."""

    async def all_are() -> bool:
        for instance in instances:
            standings = await instance.execution.handover.look()
            for name, standing in standings.items():
                found = instance.execution.shards.get(name)
                takes = found is not None and found.member.takes
                if standing is None or not standing.confirmed or (takes and not standing.settled):
                    return False
        return True

    await wait_until(all_are)


class Load:
    """Workers that count what they run of each key."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.done = 0

    async def work(self, instance: Instance, until: int) -> None:
        while self.done < until:
            items = await polled(instance, 0.5, max_tasks=5)
            await asyncio.gather(*(self._handle(instance, found) for found in items))

    async def _handle(self, instance: Instance, found: Any) -> None:
        key = found.task.labels["key"]
        self.running[key] += 1
        self.most[key] = max(self.most[key], self.running[key])
        await asyncio.sleep(0.01)
        self.running[key] -= 1
        await finished(instance, [found])
        self.done += 1


async def offer(system: Cluster, instance: Instance, count: int) -> None:
    """Queue tasks of many keys, in turns; none of them is to be rejected."""
    dispatcher = system.dispatcher(instance)
    for _ in range(count // 20):
        items = []
        for number in range(20):
            found = dispatcher.item(traits=traits(limit_key=f"key-{number}"))
            task_id = str(uuid.UUID(bytes=found.task_id))
            found.task = Task(task_id=task_id, labels={"key": f"key-{number}"}).SerializeToString()
            items.append(found)
        assert await dispatcher.send(*items) == {}
        await asyncio.sleep(0.05)


async def test_limits_per_key_hold_under_load_while_shards_come_and_go(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        system.ledger.answer = settle
        await draining(first, "shard-3")
        assert await configured(first, 1, max_running_per_key=2)
        load = Load()
        count = 800

        async def change() -> None:
            for who, names in ((first, ()), (second, ("shard-1",)), (first, ()), (second, ("shard-2",))):
                begun = load.done
                await draining(who, *names)
                await wait_until(lambda: load.done > min(begun + 100, count - 1))  # noqa: B023

        async with asyncio.timeout(100), asyncio.TaskGroup() as group:
            for instance in (first, second):
                group.create_task(offer(system, instance, count // 2))
                for _ in range(4):
                    group.create_task(load.work(instance, count))
            group.create_task(change())
        assert load.done == count
        assert len(load.most) == 20
        assert max(load.most.values()) <= 2
        await settled(first, second)


async def test_keys_that_run_where_they_no_longer_belong_count_from_the_first_limit_on(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        system.ledger.answer = settle
        await draining(first, "shard-3")
        await keyed(system, first, 4)
        early = await polled(first, max_tasks=12)
        assert len(early) == 12
        await draining(second)
        await keyed(system, second, 1)
        assert await configured(second, 1, max_running_per_key=1)
        running = Counter(found.task.labels["key"] for found in early)
        also = await polled(first, 1, max_tasks=100)
        got = Counter(found.task.labels["key"] for found in also)
        assert not [key for key in got if running[key] + got[key] > 1]
        await ended(system, first, [*early, *also])

        async def all_others() -> bool:
            items = await polled(second, 0.2, max_tasks=100)
            assert max(Counter(found.task.labels["key"] for found in items).values(), default=0) <= 1
            await finished(second, items)
            got.update(found.task.labels["key"] for found in items)
            return got.total() == 5 * len(KEYS) - 12

        await wait_until(all_others)
        await settled(first)


async def test_nothing_is_rejected_by_an_instance_that_hears_late(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        await draining(first, "shard-3")
        # The shards have heard of it before the second instance.
        await first.execution.handover.look()
        assert (
            await system.dispatcher(second).send(*(system.dispatcher(second).item() for _ in range(50))) == {}
        )
        assert second.execution.shards.ring.version == first.execution.shards.ring.version


async def test_keys_wait_for_a_silent_shard_and_others_do_not(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(lease_ttl=5.0)
        await draining(instance, "shard-3")
        assert await configured(instance, 1, max_running_per_key=1)
        await settled(instance)
        keeper = instance.execution.shards._keepers["shard-1"]
        await keeper._repeater.stop()
        keeper.shard.detach()
        await draining(instance)
        ring = instance.execution.shards.ring
        there = {key: ring.owner(instance.execution.queues.routing_key(_of(key))) for key in KEYS}
        await keyed(system, instance, 1, "".join(key for key, name in there.items() if name != "shard-1"))
        kept = {key for key, name in there.items() if name == "shard-2"}
        new = {key for key, name in there.items() if name == "shard-3"}
        assert set(await of_keys(instance, 3)) == kept
        got: Counter[str] = Counter()

        async def all_new() -> bool:
            got.update(await of_keys(instance, 0.2))
            return set(got) == new

        # After a lease time it is not waited for any more.
        await wait_until(all_new)
        await keeper.start()
        await instance.open()


def _of(key: str) -> Any:
    return item(lane="default/default/t/", traits=Traits(key))


# -- one shard ---------------------------------------------------------------------------------------


async def spread(found: Shard, **limits: Any) -> None:
    """Limits per key of which everything is known."""
    config = ShardQueueConfig("default/q", 1, **limits)
    for step in (Spread.UNCOUNTED, Spread.COUNTED):
        await found.configure([config._replace(spread=step)])


async def test_keys_are_looked_after_while_shards_come_and_go(database: str, shards: dict[str, str]) -> None:
    """An instance connects to a shard before it uses the ring that has it, which may take a while."""
    async with cluster(database, shards) as system:
        instance = await system.start()
        assert await configured(instance, 1, max_running_per_key=1)
        known = instance.execution.shards
        coming = Ring(known.ring.version + 1, [*known.ring.shards, RingShard("coming", "127.0.0.1:1")])
        change = asyncio.create_task(known.use(coming))
        await wait_until(lambda: known.get("coming"))
        assert (await instance.execution.handover.look()).keys() == shards.keys()
        assert not await configured(instance, 2, max_running_per_key=2)
        await change


async def test_a_shard_serves_slots_that_are_its_own_and_confirmed(shard: Shard) -> None:
    await spread(shard, max_running_per_key=5)
    await shard.enqueue([item(traits=Traits("k")) for _ in range(4)])
    assert (await lease(shard, 10)).tasks == []
    standing = await shard.slots.own(ALL)
    assert (standing.known, standing.confirmed) == (True, False)
    assert (await lease(shard, 10)).tasks == []
    assert not await shard.slots.confirm(ALL, [])
    assert await shard.slots.confirm(ALL, ["default/q"])
    await shard.expire(1_000)
    assert len((await lease(shard, 2)).tasks) == 14
    # It keeps all in the next ring, and none in the one after that.
    shard.ring_version = 2
    assert (await shard.slots.own(ALL)).confirmed
    await shard.expire(1_000)
    assert len((await lease(shard, 1)).tasks) == 7
    shard.ring_version = 3
    await shard.slots.own(NONE)
    assert (await lease(shard, 10)).tasks == []
    assert await shard.slots.stray_leases("default/q", b"0") == (b"0", {"k": 3})
    assert await shard.departures.hand_over([], 1_000, strays_only=True) is None
    assert await shard.slots.confirm(NONE, ["default/q"])
    _, parked = await shard.slots.parked_strays("default/q", b"0", 10)
    looked_at, (moved,) = await shard.departures.hand_over(parked, 1_000, strays_only=True) or (0, [])
    assert (looked_at, moved.traits) == (1, Traits("k"))


async def test_what_cannot_be_queued_elsewhere_goes_back_and_waits(shard: Shard) -> None:
    """Who is asked again at once for what a full shard refuses would keep the machine busy with that."""
    await spread(shard, max_running_per_key=5)
    await shard.slots.own(NONE)
    assert await shard.slots.confirm(NONE, ["default/q"])
    tasks = [item(traits=Traits(key)) for key in "abc"]
    await shard.enqueue(tasks)
    offered: list[bytes] = []

    async def take_only_b(items: Sequence[QueueItem]) -> list[int]:
        offered.extend(found.task_id for found in items)
        return [index for index, found in enumerate(items) if found.traits != Traits("b")]

    strays = Strays(Carrier(take_only_b))
    assert not await strays.move(shard, await shard.slots.own(), ["default/q"], leased=False)
    assert sorted(offered) == sorted(task.task_id for task in tasks)
    _, known = await shard.compare([(task.task_id, task.attempt) for task in tasks])
    assert known == [True, False, True]


async def test_a_shard_is_settled_only_if_nothing_has_changed_since(shard: Shard) -> None:
    await spread(shard, max_running_per_key=5)
    changes = (await shard.slots.own(ALL)).changes
    assert not await shard.slots.settle(changes, ["default/q"])
    assert await shard.slots.confirm(ALL, ["default/q"])
    assert not await shard.slots.settle(changes - 1, ["default/q"])
    assert await shard.slots.settle(changes, ["default/q"])
    assert (await shard.slots.own()).settled
    # A second queue gets limits per key: there may be keys of it that belong elsewhere.
    other = ShardQueueConfig("default/other", 1, max_running_per_key=1, spread=Spread.UNCOUNTED)
    await shard.configure([other])
    standing = await shard.slots.own()
    assert not standing.settled
    both = ["default/other", "default/q"]
    assert not await shard.slots.settle(standing.changes, both)
    await shard.configure([other._replace(spread=Spread.COUNTED)])
    # Who has not heard of the limits of one of the queues has not looked for what is astray of it.
    assert not await shard.slots.settle(standing.changes, ["default/q"])
    assert await shard.slots.settle(standing.changes, both)


async def test_rates_of_keys_begin_empty_where_the_key_has_come_from_elsewhere(shard: Shard) -> None:
    rate = Bucket(1, 3_600_000, 2)
    half = bytearray(NONE)
    slot = slot_of("default/q", "kept")
    half[slot >> 3] |= 1 << (slot & 7)
    await spread(shard, rate_per_key=rate)
    await shard.slots.own(bytes(half))
    # The queue gets its limits after that, so that nothing can have been counted elsewhere.
    await shard.slots.confirm(bytes(half), ["default/q"])
    await shard.configure([ShardQueueConfig("default/q", 2)])
    await wait_until(lambda: now_ms() % 10 == 0)
    config = ShardQueueConfig("default/q", 3, rate_per_key=rate, spread=Spread.COUNTED)
    await shard.configure([config])
    await shard.enqueue([item(traits=Traits(key)) for key in ("kept", "come") for _ in range(3)])
    assert len((await lease(shard, 10)).tasks) == 2 * 7
    shard.ring_version = 2
    await shard.slots.own(ALL)
    assert await shard.slots.confirm(ALL, ["default/q"])
    await shard.expire(1_000)
    assert (await lease(shard, 10)).tasks == []
