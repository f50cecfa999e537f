"""Shards are asked less often while there is nothing to do, and at once when there is something again."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fixtures.execution import Instance, cluster, polled, wait_until

from meshq.execution.queues import handover
from meshq.execution.ring import keeper as keepers
from meshq.execution.ring.connection import Connection, open_connection
from meshq.execution.ring.keeper import Keeper
from meshq.execution.sessions import allocator

NEVER = 600.0
OFTEN = 0.05


@pytest.fixture
def at_rest_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "_WORK_SECONDS", 0.0)
    monkeypatch.setattr(keepers, "_REST_LOOK_SECONDS", NEVER)


@pytest.fixture
async def stranger(shards: dict[str, str]) -> AsyncIterator[Connection]:
    connection = await open_connection(shards["shard-1"], "somebody")
    yield connection
    await connection.call("CONFIG", "SET", "maxmemory", 0)
    connection.close()


def keeper_of(instance: Instance) -> Keeper:
    return instance.execution.shards._keepers["shard-1"]


async def resting(instance: Instance) -> None:
    await wait_until(lambda: keeper_of(instance)._rests, "rest")


@pytest.mark.usefixtures("at_rest_at_once")
async def test_work_is_followed_by_a_look(
    database: str, shards: dict[str, str], stranger: Connection
) -> None:
    async with cluster(database, {"shard-1": shards["shard-1"]}) as system:
        instance = await system.start()
        await resting(instance)
        await stranger.call("CONFIG", "SET", "maxmemory", 1 << 40)
        await system.dispatcher(instance).many(1)
        await wait_until(lambda: keeper_of(instance).shard.load.max_memory == 1 << 40, "a look")


@pytest.mark.usefixtures("at_rest_at_once")
async def test_what_another_instance_queues_is_followed_by_a_look(
    database: str, shards: dict[str, str], stranger: Connection
) -> None:
    async with cluster(database, {"shard-1": shards["shard-1"]}) as system:
        first, second = await system.start(), await system.start()
        await resting(second)
        await stranger.call("CONFIG", "SET", "maxmemory", 1 << 40)
        await system.dispatcher(first).many(1)
        assert len(await polled(second, 5)) == 1
        await wait_until(lambda: keeper_of(second).shard.load.max_memory == 1 << 40, "a look")


@pytest.mark.usefixtures("at_rest_at_once")
async def test_an_emptied_shard_is_noticed_at_rest(
    database: str, shards: dict[str, str], stranger: Connection
) -> None:
    async with cluster(database, {"shard-1": shards["shard-1"]}) as system:
        instance = await system.start()
        await resting(instance)
        shard = keeper_of(instance).shard
        before = shard.epoch
        await stranger.call("FLUSHALL")
        await wait_until(lambda: shard.epoch > before, "a new epoch")


async def test_what_runs_all_the_time_is_no_work(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, {"shard-1": shards["shard-1"]}) as system:
        instance = await system.start()
        execution = instance.execution
        await system.worker(instance, "w").connect(credit=1)

        async def calm() -> bool:
            return await execution.handover.run_once() == handover._CALM_SECONDS

        await wait_until(calm, "settled limits of keys")
        worked: list[int] = []
        keeper_of(instance).shard.on_work = lambda: worked.append(1)
        for part in (execution.sessions, execution.expirer, execution.gauges, execution.handover):
            await part.run_once()
        (group,) = execution.sessions._allocator._groups.values()
        group._stocks[0].forget()
        await group._fill()
        assert not worked
        await system.dispatcher(instance).many(1)
        assert worked


async def test_a_shard_with_leases_is_not_at_rest(
    database: str, shards: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "_WORK_SECONDS", 0.0)
    async with cluster(database, {"shard-1": shards["shard-1"]}) as system:
        instance = await system.start()
        worker = await system.worker(instance, "w").connect(credit=1)
        await system.dispatcher(instance).many(1)
        (token,) = await worker.next_task()
        assert await keeper_of(instance).run_once() == keepers._LOOK_SECONDS
        await worker.finish(token)
        await wait_until(lambda: not instance.execution.sessions.held_on("shard-1"), "the end")
        assert await keeper_of(instance).run_once() == keepers._REST_LOOK_SECONDS


async def test_lost_bells_are_made_up_for_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_SAFETY_SECONDS", OFTEN)
    monkeypatch.setattr(allocator, "_MOST_SAFETY_SECONDS", 4 * OFTEN)
    means: Any = type("Nothing", (), {"shards": None, "doorbell": None})
    group = allocator.Group(((1, ("t/q/x",)),), means)
    group.sessions.append(type("Waiting", (), {"room": 1}))  # type: ignore[arg-type]
    pauses = []
    for _ in range(4):
        pauses.append(group._patience)
        await group._wait()
    assert pauses == [OFTEN, 2 * OFTEN, 4 * OFTEN, 4 * OFTEN]
    group.wake()
    await group._wait()
    assert group._patience == OFTEN
