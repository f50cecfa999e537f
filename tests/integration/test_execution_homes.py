"""Queues that come home to one shard: what is moved, what runs elsewhere, shards and instances that fail."""

from collections import Counter
from typing import Any

import pytest
from fixtures.execution import (
    Instance,
    cluster,
    polled,
    seconds,
    traits,
    wait_until,
)
from fixtures.limited import HOUR
from fixtures.queues import (
    KEYS,
    configured,
    depth,
    ended,
    finished,
    home_of,
    keyed,
    of_keys,
    reopened,
    settle,
    where,
)

from meshq.execution.queues import homes
from meshq.internal.v1 import dispatch_service_pb2 as pb


async def test_tasks_of_a_queue_that_gets_a_limit_come_together(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        system.ledger.answer = settle
        dispatcher = system.dispatcher(first)
        await dispatcher.many(60)
        early = await polled(first, max_tasks=9)
        assert await configured(second, 1, max_running=10)
        # Nine run wherever they were leased, so there is room for one.
        (one,) = await polled(second, 10, max_tasks=30)
        assert await polled(first, 0.3, max_tasks=30) == []
        home = home_of(first)
        await wait_until(lambda: only_at(first, home, 50), seconds=20)
        await finished(first, early)
        late: list[Any] = []

        async def more() -> bool:
            late.extend(await polled(second, 0.2, max_tasks=30))
            assert (await depth(first)).leased <= 10
            return len(late) == 9

        await wait_until(more, seconds=20)
        await dispatcher.many(10)
        await wait_until(lambda: only_at(first, home, 51), seconds=20)
        # Without the limit they may be anywhere again.
        assert await configured(first, 2)
        assert len(await polled(first, 5, max_tasks=100)) == 51
        await dispatcher.many(30)
        assert len([count for count in (await where(first)).values() if count]) > 1
        await finished(first, [*late, one])


async def only_at(instance: Instance, home: str, count: int) -> bool:
    return {name: ready for name, ready in (await where(instance)).items() if ready} == {home: count}


async def test_tasks_stay_where_they_are_while_the_home_of_their_queue_is_full(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        await system.dispatcher(instance).many(30)
        home = instance.execution.shards.get(home_of(instance))
        assert home
        assert home._connection
        away = sum(count for name, count in (await where(instance)).items() if name != home.name)
        assert away
        await home._connection.call("CONFIG", "SET", "maxmemory", "1000000")

        async def is_full() -> bool:
            return home.full

        await wait_until(is_full)
        assert await configured(instance, 1, max_running=100)
        await instance.execution.homes.run_once()
        assert sum((await where(instance)).values()) == 30
        await home._connection.call("CONFIG", "SET", "maxmemory", "0")
        await wait_until(lambda: only_at(instance, home.name, 30), seconds=20)


async def test_an_instance_that_has_missed_a_change_finds_out(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        assert await configured(first, 1, max_running=100)
        assert second.execution.queues.wide() == []
        await system.dispatcher(second).many(30)
        assert second.execution.queues.wide() == ["default/default"]
        assert await only_at(first, home_of(first), 30)


async def test_limits_per_key_hold_while_a_queue_gets_limits_as_a_whole(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        system.ledger.answer = settle
        assert await configured(first, 1, max_running_per_key=2)
        await keyed(system, first, 6)
        early = await polled(first, max_tasks=100)
        assert len(early) == 16
        assert await configured(second, 2, max_running=100, max_running_per_key=2)
        assert await of_keys(first, 0.3) == {}
        await wait_until(lambda: only_at(first, home_of(first), 32), seconds=20)
        await keyed(system, second, 1)
        assert await of_keys(second, 0.3) == {}
        # What ends on another shard makes room at home.
        (mine,) = [item for item in early if item.task.labels["key"] == "a"][:1]
        await ended(system, first, [mine])
        assert await of_keys(second, 10) == {"a": 1}
        assert await of_keys(second, 0.3) == {}
        await ended(system, first, [item for item in early if item is not mine])
        got: Counter[str] = Counter()

        async def all_again() -> bool:
            got.update(await of_keys(second, 0.2))
            return got.total() == 15

        await wait_until(all_again, seconds=20)
        assert got == {"a": 1} | dict.fromkeys(KEYS[1:], 2)


async def test_limits_per_key_hold_when_a_queue_loses_its_limits_as_a_whole(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        system.ledger.answer = settle
        assert await configured(first, 1, max_running=100, max_running_per_key=2)
        await keyed(system, first, 4)
        early = await polled(first, max_tasks=100)
        assert len(early) == 16
        # The one that is told has not heard of the first settings.
        assert await configured(second, 2, max_running_per_key=2)
        third = await system.start()
        for instance in (first, second, third):
            await keyed(system, instance, 1)
            assert await of_keys(instance, 0.2) == {}
        assert await only_at(first, home_of(first), 16 + 24)
        await ended(system, first, early)
        assert await of_keys(third, 5) == dict.fromkeys(KEYS, 2)
        # Without any limit they are spread again, and with new ones those that run are counted.
        assert await configured(third, 3)
        await keyed(system, third, 4)
        assert len([count for count in (await where(first)).values() if count]) > 1
        assert (await of_keys(first, 5)).total() > 0
        assert await configured(first, 4, max_running_per_key=2)
        await keyed(system, second, 1)
        assert await of_keys(second, 0.5) == {}


async def test_nothing_is_leased_while_too_many_keys_run_elsewhere(
    database: str, shards: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(homes, "_MOST_KEYS", 1)
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = settle
        assert await configured(instance, 1, max_running_per_key=2)
        await keyed(system, instance, 3)
        early = await polled(instance, max_tasks=100)
        assert await configured(instance, 2, max_running=100, max_running_per_key=2)
        await system.dispatcher(instance).many(3)
        assert await polled(instance, 0.3) == []
        left = {item.task.labels["key"]: item for item in early}["a"]
        await ended(system, instance, [item for item in early if item is not left])
        got: list[Any] = []

        async def all_others() -> bool:
            got.extend(await polled(instance, 0.2, max_tasks=100))
            return len(got) == 3 + 1 + len(KEYS) - 1

        await wait_until(all_others, seconds=20)


async def test_slots_of_a_crashed_instance_are_free_again(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(lease_ttl=1.0), await system.start(lease_ttl=1.0)
        system.ledger.answer = settle
        assert await configured(first, 1, max_running=3, max_running_per_key=2)
        doomed = await system.worker(first, "doomed").connect(credit=10)
        await system.dispatcher(second).many(10, traits=traits(limit_key="k"))
        await doomed.next_task(2)
        assert await polled(second) == []
        await first.crash()
        got: list[Any] = []

        async def all_done() -> bool:
            items = await polled(second, 0.2, max_tasks=100)
            assert len(items) <= 2
            got.extend(items)
            await finished(second, items)
            return len(got) == 10

        await wait_until(all_done, seconds=40)

        # The shards hear of the last ends after their workers have.
        async def nothing_left() -> bool:
            figures = await depth(second)
            return (figures.ready, figures.leased) == (0, 0)

        await wait_until(nothing_left)


async def test_slots_survive_a_wiped_home(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = settle
        assert await configured(instance, 1, max_running=3)
        worker = await system.worker(instance).connect(credit=2)
        dispatcher = system.dispatcher(instance)
        await dispatcher.many(2)
        tokens = await worker.next_task(2)
        held = instance.execution.sessions.all()[0].leases
        await wait_until(lambda: all(item.received for item in held.values()))
        before = {shard.name: shard.epoch for shard in instance.execution.shards.all()}
        for shard in instance.execution.shards.all():
            assert shard._connection
            await shard._connection.call("FLUSHALL")
        await wait_until(lambda: reopened(instance, before), seconds=30)
        await dispatcher.many(10)
        assert len(await polled(instance, 5)) == 1
        assert await polled(instance) == []
        await worker.finish(*tokens)
        assert len(await polled(instance, 5)) + len(await polled(instance, 1)) == 2


async def wiped(instance: Instance) -> dict[str, int]:
    """Wipe all shards; returns the epochs before."""
    before = {shard.name: shard.epoch for shard in instance.execution.shards.all()}
    for shard in instance.execution.shards.all():
        assert shard._connection
        await shard._connection.call("FLUSHALL")
    return before


@pytest.mark.parametrize("limit", ["rate", "rate_per_key"])
async def test_a_wiped_home_does_not_give_its_tokens_again(
    database: str, shards: dict[str, str], limit: str
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = settle
        rate: dict[str, Any] = {limit: pb.TokenBucket(units=2, period_ms=HOUR, burst=2)}
        # Once it has had a limit as a whole, the keys of a queue are counted at its home.
        assert await configured(instance, 1, max_running=10)
        assert await configured(instance, 2, **rate)
        dispatcher = system.dispatcher(instance)
        await dispatcher.many(3, traits=traits(limit_key="k"))
        await finished(instance, await leased(instance, 2))
        before = await wiped(instance)
        await wait_until(lambda: reopened(instance, before), seconds=30)
        await dispatcher.one(traits=traits(limit_key="k"))
        assert await polled(instance, 2) == []
        assert (await depth(instance)).ready == 1
        # Of a queue that is new nothing has been taken.
        assert await configured(instance, 3, "new", **rate)
        await dispatcher.many(3, queue="new", traits=traits(limit_key="k"))
        await leased(instance, 2, queues=["new"])
        assert await polled(instance, 0.2, queues=["new"]) == []


async def leased(instance: Instance, count: int, **fields: Any) -> list[Any]:
    got: list[Any] = []

    async def all_are() -> bool:
        got.extend(await polled(instance, 0.2, **fields))
        return len(got) == count

    await wait_until(all_are)
    return got


@pytest.mark.parametrize("settles", ["before", "after"])
async def test_slots_survive_an_instance_and_the_home_together(
    database: str, shards: dict[str, str], settles: str
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(lease_ttl=60), await system.start(lease_ttl=60)
        system.ledger.answer = settle
        assert await configured(first, 1, max_running=4, max_running_per_key=2)
        worker = await system.worker(first).connect(credit=3)
        dispatcher = system.dispatcher(second)
        await dispatcher.many(2, traits=traits(limit_key="k"))
        await dispatcher.one()
        tokens = await worker.next_task(3)
        held = first.execution.sessions.all()[0].leases
        await wait_until(lambda: all(item.received for item in held.values()))
        await first.crash()
        before: dict[str, int] = {}
        if settles == "after":
            before = await wiped(second)
        moved = await system.worker(second, held_leases=tokens).connect()
        assert [item.kept for item in moved.welcome.held_leases] == [True] * 3
        if settles == "before":
            before = await wiped(second)
        del system.peers.instances["execution-1"]
        await wait_until(lambda: reopened(second, before), seconds=30)
        await dispatcher.many(5, traits=traits(limit_key="k"))
        assert await polled(second) == []
        await dispatcher.many(5)
        assert len(await polled(second, 5)) == 1
        assert await polled(second) == []
        assert (await depth(second)).leased == 4
        await moved.finish(*tokens)
        got: list[Any] = []

        async def three() -> bool:
            got.extend(await polled(second, 0.5))
            return len(got) == 3

        await wait_until(three)
        assert await polled(second) == []
        assert (await depth(second)).leased == 4


async def test_slots_survive_a_wiped_home_while_their_worker_is_away(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(lease_ttl=60), await system.start(lease_ttl=60)
        system.ledger.answer = settle
        assert await configured(first, 1, max_running=2)
        worker = await system.worker(first).connect(credit=2)
        dispatcher = system.dispatcher(second)
        await dispatcher.many(2)
        tokens = await worker.next_task(2)
        held = first.execution.sessions.all()[0].leases
        await wait_until(lambda: all(item.received for item in held.values()))
        await worker.close()
        await wait_until(lambda: not first.execution.sessions.all())
        before = await wiped(second)
        for instance in (first, second):
            await wait_until(lambda: reopened(instance, before), seconds=30)  # noqa: B023
        await dispatcher.many(5)
        assert await polled(first) == []
        assert (await depth(second)).leased == 2
        moved = await system.worker(second, held_leases=tokens).connect()
        assert [item.kept for item in moved.welcome.held_leases] == [True] * 2
        assert await polled(second) == []
        # A second wipe: the instance where the worker was must not take its leases from where it is.
        before = await wiped(second)
        for instance in (first, second):
            await wait_until(lambda: reopened(instance, before), seconds=30)  # noqa: B023
        (session,) = second.execution.sessions.all()
        home = second.execution.shards.owner(b"default/default")
        assert home
        assert home._connection
        assert await home._connection.call("SCARD", f"mq:session:{session.id}") == 2
        await moved.finish(tokens[0])
        await wait_until(lambda: tokens[0] in moved.acks)
        await dispatcher.many(5)
        assert len(await polled(second, 5)) == 1


async def test_polled_leases_keep_their_slots_on_a_wiped_home(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        assert await configured(instance, 1, max_running=3, max_running_per_key=2)
        dispatcher = system.dispatcher(instance)
        await dispatcher.many(5, traits=traits(limit_key="k"))
        held = await polled(instance, lease_ttl=seconds(20))
        assert len(held) == 2
        before = {shard.name: shard.epoch for shard in instance.execution.shards.all()}
        for shard in instance.execution.shards.all():
            assert shard._connection
            await shard._connection.call("FLUSHALL")
        await wait_until(lambda: reopened(instance, before), seconds=30)
        await dispatcher.many(5, traits=traits(limit_key="k"))
        assert await polled(instance) == []
        await dispatcher.many(5, traits=traits(limit_key="other"))
        assert len(await polled(instance, 5)) == 1
        await finished(instance, held)
        assert len(await polled(instance, 5)) >= 1


async def test_a_silent_shard_delays_a_limit_for_a_lease_time_only(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(lease_ttl=1.0)
        home = home_of(instance)
        silent = next(shard for shard in instance.execution.shards.all() if shard.name != home)
        keeper = instance.execution.shards._keepers[silent.name]
        await keeper._repeater.stop()
        silent.detach()
        assert not await configured(instance, 1, max_running=2)
        await system.dispatcher(instance).many(10)
        assert await polled(instance) == []
        assert len(await polled(instance, 15)) == 2
        await keeper.start()
        await instance.open()
        assert await polled(instance) == []
