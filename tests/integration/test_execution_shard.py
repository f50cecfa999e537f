"""Each script about queueing on a real shard: order, turns, delays, calls; and shards that refuse."""

import asyncio

import pytest
from fixtures.execution import opened_shard, wait_until
from fixtures.shards import (
    CLASS,
    SESSION,
    Bell,
    News,
    done,
    everything,
    figures,
    ids,
    item,
    lease,
    leased_ids,
    leases,
    now_ms,
    queued,
    shard,
    task_of,
)

from meshq.execution.ring import keys, scripts
from meshq.execution.ring.doorbell import Doorbell
from meshq.execution.ring.errors import EpochChanged, RingOutdated, ShardClosed, ShardFull
from meshq.execution.ring.shard import Owner, Shard, run_script

__all__ = ["shard"]


async def test_tasks_say_of_which_class_they_are_in_any_order_of_classes(shard: Shard) -> None:
    classes = ("default/q/b", "default/p/b", "default/none/a", "default/q/a")
    expected: dict[bytes, str] = {}
    for name in (classes[0], classes[1], classes[3]):
        expected |= dict.fromkeys(await queued(shard, 2, lane=f"{name}/"), name)
    tasks = (await lease(shard, 10, classes)).tasks
    found = {tasks[at]: classes[tasks[at + 4] - 1] for at in range(0, len(tasks), 7)}
    assert found == expected


async def test_tasks_come_out_in_the_order_of_their_times(shard: Shard) -> None:
    base = now_ms() - 10_000
    items = [item(ready_ms=base + offset) for offset in (500, 100, 300)]
    await shard.enqueue(items)
    later = [item(ready_ms=base + 300) for _ in range(5)]
    await shard.enqueue(later)
    taken = await lease(shard, 10)
    expected = [items[1], items[2], *later, items[0]]
    assert ids(taken) == [found.task_id for found in expected]
    assert taken.tasks[6::7] == [b"spec"] * 8
    assert taken.head is None
    assert await figures(shard) == (0, 0, 8)


async def test_priority_goes_first_and_waiting_makes_up_for_it(shard: Shard) -> None:
    base = now_ms()
    urgent = item(priority=9, ready_ms=base - 1)
    old = item(ready_ms=base - 11 * 60_000)
    plain = item(ready_ms=base - 2)
    await shard.enqueue([plain, old, urgent])
    assert ids(await lease(shard, 3)) == [old.task_id, urgent.task_id, plain.task_id]


async def test_a_known_attempt_is_queued_once(shard: Shard) -> None:
    first = item()
    await shard.enqueue([first, first])
    await shard.enqueue([first._replace(repeat=True), first._replace(lane="default/other/t/")])
    assert await figures(shard) == (1, 0, 0)
    (held,) = leases(shard, await lease(shard, 5))
    await shard.enqueue([first])
    assert await figures(shard) == (0, 0, 1)
    await shard.apply([done(held)])
    await shard.enqueue([first, first._replace(attempt=2)])
    assert await figures(shard) == (0, 0, 0)


async def test_a_later_attempt_replaces_an_older_one(shard: Shard) -> None:
    doorbell = shard._doorbell
    heard = News()
    doorbell.sessions = heard
    first = item()
    await shard.enqueue([first])
    (held,) = leases(shard, await lease(shard, 1))
    await shard.enqueue([first._replace(attempt=2, spec=b"second")])
    assert await figures(shard) == (1, 0, 0)
    await wait_until(lambda: heard.lost_leases == [(SESSION, held)])
    (again,) = leases(shard, await lease(shard, 1))
    assert again.attempt == 2


async def test_a_thousand_items_are_one_call(shard: Shard) -> None:
    wanted = await queued(shard, 1_000)
    taken = await lease(shard, 1_000)
    assert sorted(ids(taken)) == sorted(wanted)
    held = leases(shard, taken)
    assert len({found.number for found in held}) == 1_000
    assert await shard.received([(found, SESSION) for found in held]) == []
    await shard.apply([done(found) for found in held])
    assert await figures(shard) == (0, 0, 0)
    assert len([text for text in await shard.outcomes(wanted) if text]) == 1_000
    known = await shard.compare([(task_id, 1) for task_id in wanted])
    assert known == (False, [True] * 1_000)


async def test_nothing_is_left_behind(shard: Shard) -> None:
    wanted = [*await queued(shard, 20), *await queued(shard, 20, lane=f"{CLASS}/somebody")]
    await shard.apply([done(found) for found in leases(shard, await lease(shard, 40))])
    await shard.leave([SESSION])
    await shard.expire(1_000)
    left = {key.partition(b"s:")[0] for key in await everything(shard)}
    assert len(wanted) == 40
    assert left == {b"mq:meta", b"mq:totals", b"mq:queue:default/q", b"mq:tombstone"}


async def test_lease_calls_keep_to_bytes_and_say_what_is_left(shard: Shard) -> None:
    await queued(shard, 5, spec=b"x" * 400)
    taken = await lease(shard, 5, wanted_bytes=1_000)
    assert len(ids(taken)) == 2
    assert taken.head is not None
    # One task always goes, however large it is.
    assert len(ids(await lease(shard, 5, wanted_bytes=1))) == 1


async def test_tasks_are_shared_among_owners(shard: Shard) -> None:
    await queued(shard, 10)
    owners = [Owner(f"e-1/x-{index}", "w", room) for index, room in enumerate((2, 100, 4))]
    taken = await shard.lease(
        owners, [CLASS], wanted=10, wanted_bytes=1 << 20, lease_ms=60_000, session_ms=60_000
    )
    counts = [taken.tasks[3::7].count(index) for index in (1, 2, 3)]
    assert counts == [2, 4, 4]


async def test_two_fairness_keys_take_turns(shard: Shard) -> None:
    many = await queued(shard, 100, lane=f"{CLASS}/loud", ready_ms=now_ms() - 60_000)
    few = await queued(shard, 10, lane=f"{CLASS}/quiet")
    order = [ids(await lease(shard, 1))[0] for _ in range(20)]
    assert sum(task_id in few for task_id in order) == 10
    assert sum(task_id in many for task_id in order) == 10
    # One that comes again and again cannot starve the other.
    served = []
    for _ in range(10):
        await queued(shard, 1, lane=f"{CLASS}/aaa")
        served += [ids(await lease(shard, 1))[0] for _ in range(2)]
    assert sum(task_id in many for task_id in served) >= 9
    batch = ids(await lease(shard, 200))
    assert set(batch) <= set(many) | {*served} or batch


async def test_a_batch_is_shared_by_fairness_keys(shard: Shard) -> None:
    for name in ("a", "b", "c"):
        await queued(shard, 200, lane=f"{CLASS}/{name}")
    taken = await lease(shard, 300)
    lanes = [(await task_of(shard, task_id))[b"lane"] for task_id in ids(taken)]
    assert all(80 <= lanes.count(f"{CLASS}/{name}".encode()) <= 120 for name in ("a", "b", "c"))


async def test_classes_are_served_by_their_oldest_heads(shard: Shard) -> None:
    base = now_ms() - 10_000
    order = []
    for offset in range(10):
        found = item(lane=f"default/q{offset % 3}/t{offset % 2}/", ready_ms=base + offset)
        order.append(found.task_id)
        await shard.enqueue([found])
    classes = [f"default/q{queue}/t{kind}" for queue in range(3) for kind in range(2)]
    assert ids(await lease(shard, 10, classes)) == order
    assert ids(await lease(shard, 10, classes)) == []


async def test_only_wanted_classes_are_leased(shard: Shard) -> None:
    await queued(shard, 3)
    assert ids(await lease(shard, 3, ["default/q/other", "default/other/t", "other/q/t"])) == []
    assert await figures(shard) == (3, 0, 0)


async def test_delayed_tasks_come_at_their_time(shard: Shard) -> None:
    due: list[int] = []
    shard.on_due = lambda _name, ms: due.append(ms)
    await queued(shard, 2, ready_ms=now_ms() + 400)
    await queued(shard, 1, ready_ms=now_ms() + 60_000)
    assert await figures(shard) == (0, 3, 0)
    assert 0 < due[0] <= 400
    assert ids(await lease(shard, 5)) == []
    taken = await wait_until(lambda: leased_ids(shard))
    assert len(taken) == 2
    assert await figures(shard) == (0, 1, 2)


async def test_promotion_rings_whoever_waits(shard: Shard) -> None:
    doorbell = shard._doorbell
    waiter = Bell()
    doorbell.wait_for([CLASS], waiter)
    assert ids(await lease(shard, 1)) == []
    await queued(shard, 1, ready_ms=now_ms() + 200)
    assert waiter.rings == 0

    async def rung() -> int:
        await shard.expire(1_000)
        return waiter.rings

    await wait_until(rung)
    assert len(await leased_ids(shard)) == 1


async def test_an_instance_that_waits_is_called_once(shard: Shard, shards: dict[str, str]) -> None:
    waiter = Bell()
    shard._doorbell.wait_for([CLASS, "default/q/other"], waiter)
    async with opened_shard(shards["shard-1"], "e-2") as other:
        await queued(other, 1)
        taken = await lease(shard, 1, [CLASS, "default/q/other"])
        assert ids(taken)
        await queued(other, 1, lane="default/elsewhere/t/")
        assert waiter.rings == 0
        # It got all that it wanted, so nothing was noted; now something is.
        assert ids(await lease(shard, 1, [CLASS, "default/q/other"])) == []
        await queued(other, 5, lane="default/q/other/")
        await wait_until(lambda: waiter.rings == 1)
        await queued(other, 5, lane="default/q/other/")
        assert len(ids(await lease(shard, 20, ["default/q/other"]))) == 10
        assert waiter.rings == 1
        await queued(other, 1)
        await wait_until(lambda: waiter.rings == 2)


async def test_classes_may_be_named_in_any_order(shard: Shard) -> None:
    classes = [CLASS, "default/r/t", "default/q/other"]
    (queued_id,) = await queued(shard, 1, lane="default/q/other/")
    taken = await lease(shard, 1, classes)
    assert ids(taken) == [queued_id]
    assert classes[taken.tasks[4] - 1] == "default/q/other"


async def test_who_waits_where_tasks_are_queued_asks_behind_them(shard: Shard) -> None:
    waiter = Bell()
    shard._doorbell.wait_for([CLASS], waiter)
    # The first call finds nothing, and the shard notes that the instance waits.
    empty, refused, taken = await asyncio.gather(
        lease(shard, 5), shard.enqueue([item() for _ in range(3)]), lease(shard, 5)
    )
    assert (ids(empty), bool(refused), len(ids(taken))) == ([], False, 3)
    assert waiter.expected == 1
    await shard.enqueue([item(lane="default/q/other/"), item(lane="default/q/t/a/key")])
    assert waiter.expected == 2
    assert len(ids(await lease(shard, 5))) == 1
    # A push would have come before that answer.
    assert waiter.rings == 0


async def test_scripts_refuse_what_is_not_the_shard_that_was_meant(shard: Shard) -> None:
    assert shard._connection
    connection = shard._connection
    shard.ring_version = 5
    await shard.totals()
    shard.ring_version = 4
    with pytest.raises(RingOutdated):
        await shard.totals()
    shard.ring_version = 5
    await connection.call("HSET", keys.META, "state", "closed")
    with pytest.raises(ShardClosed):
        await shard.enqueue([item()])
    await connection.call("HSET", keys.META, "state", "open")
    troubles: list[int] = []
    shard.on_trouble = lambda: troubles.append(1)
    await connection.call("FLUSHALL")
    with pytest.raises(EpochChanged):
        await shard.enqueue([item()])
    assert troubles == [1]
    assert not shard.usable


async def test_repeats_wait_for_a_recovery_and_new_tasks_do_not(shard: Shard) -> None:
    assert shard._connection
    await shard._connection.call("HSET", keys.META, "state", "recovering")
    assert await shard.enqueue([item(), item(repeat=True), item()]) == ([1], [])
    assert (await shard.compare([(b"x" * 16, 1)]))[0] is True
    assert (await shard.recovered(60_000, ["e-1", "e-2"])).name == "RECOVERING"
    assert (await shard.recovered(0, ["e-1", "e-2"])).name == "OPEN"


async def test_a_closed_shard_begins_anew_only_in_a_later_ring(shard: Shard) -> None:
    """Who has not heard of the change may be in the midst of claiming it."""
    connection = shard._connection
    assert connection
    await shard.close()

    async def claimed(ring: int, generation: str) -> int:
        claim = (shard.epoch + 1, ring, shard.epoch, "run", "replication", generation)
        return int(await run_script(connection, scripts.OPEN_EPOCH, *claim))

    assert await claimed(shard.ring_version, "generation") == shard.epoch
    with pytest.raises(ShardClosed):
        await shard.enqueue([item()])
    assert await claimed(shard.ring_version + 1, "generation") == shard.epoch + 1


async def test_a_full_shard_takes_nothing_and_gives_everything(shard: Shard) -> None:
    assert shard._connection
    await queued(shard, 3, spec=b"x" * 1_000)
    await shard._connection.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(ShardFull):
        await shard.enqueue([item()])
    held = leases(shard, await lease(shard, 3))
    await shard.received([(found, SESSION) for found in held])
    await shard.apply([done(found) for found in held])
    await shard._connection.call("CONFIG", "SET", "maxmemory", "0")
    shard.full = True
    with pytest.raises(ShardFull):
        await shard.enqueue([item()])


async def test_queues_are_described(shard: Shard) -> None:
    oldest = now_ms() - 5_000
    await queued(shard, 1, ready_ms=oldest)
    await queued(shard, 1, lane="default/q/other/key")
    await queued(shard, 1, lane="default/r/t/", ready_ms=now_ms() + 60_000)
    depths = await shard.describe(["default/q", "default/r", "default/none"])
    assert [tuple(depth) for depth in depths] == [(2, 0, 0, oldest), (0, 1, 0, 0), (0, 0, 0, 0)]


async def test_instances_are_called_on_their_own_channels(shards: dict[str, str]) -> None:
    bells = [Bell(), Bell()]
    doorbells = [Doorbell(), Doorbell()]
    for bell, doorbell in zip(bells, doorbells, strict=True):
        doorbell.wait_for([CLASS], bell)
    async with (
        opened_shard(shards["shard-1"], "e-1", doorbell=doorbells[0]) as first,
        opened_shard(shards["shard-1"], "e-2", doorbell=doorbells[1]) as second,
    ):
        await lease(second, 1, session="e-2/x-1")
        await queued(first, 1)
        await wait_until(lambda: bells[1].rings == 1)
        assert bells[0].rings == 0
        await asyncio.gather(lease(first, 5), lease(second, 5, session="e-2/x-1"))
        async with opened_shard(shards["shard-1"], "e-3") as third:
            await queued(third, 1)
        await wait_until(lambda: [bell.rings for bell in bells] == [1, 2])
