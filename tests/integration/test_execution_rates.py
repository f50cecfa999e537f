"""Rates and weights on a real shard: tokens of queues and keys, shares of fairness keys."""

from typing import Any

import pytest
from fixtures.execution import wait_until
from fixtures.limited import (
    HOUR,
    configured,
    explained,
    finish,
    held_now,
    keyed,
    leased_all,
    left_of,
    waiting,
)
from fixtures.shards import CLASS, figures, ids, lease, now_ms, queued, shard

from meshq.execution.model import Bucket, Traits
from meshq.execution.ring import keys
from meshq.execution.ring.shard import Shard

__all__ = ["shard"]


async def test_starts_keep_to_a_rate_and_its_burst(shard: Shard) -> None:
    bell = waiting(shard)
    await configured(shard, rate=Bucket(20, 1_000, 5))
    started = now_ms()
    tasks = await queued(shard, 15)
    served = ids(await lease(shard, 100))
    assert served == tasks[:5]
    found = await explained(shard, tasks[5])
    assert (found.state, found.why, found.limit) == ("ready", "rate", 20)
    assert 0 < found.due_ms - now_ms() <= 50

    rounds = 0

    async def all_served() -> bool:
        nonlocal rounds
        await shard.expire(1_000)
        found = ids(await lease(shard, 100))
        rounds += bool(found)
        served.extend(found)
        assert len(served) <= 5 + (now_ms() - started) * 20 / 1_000 + 0.01
        return len(served) == 15

    await wait_until(all_served)
    assert now_ms() - started >= 500
    assert served == tasks
    # Where the machine stands still for a while, tokens of several rings are there at one.
    assert bell.rings >= min(5, rounds)


async def test_heavier_tasks_take_more_tokens_and_wait_for_them(shard: Shard) -> None:
    await configured(shard, rate=Bucket(1, HOUR, 10))
    heavy = await queued(shard, 3, traits=Traits(rate_units=4))
    assert ids(await lease(shard, 100)) == heavy[:2]
    # What is lighter does not overtake; what is heavier than the bucket needs a full one.
    await queued(shard, 1)
    assert ids(await lease(shard, 100)) == []
    await configured(shard, version=2, rate=Bucket(1_000, 1, 10))
    await queued(shard, 1, traits=Traits(rate_units=1_000))
    await wait_until(lambda: leased_all(shard, 5))


async def test_a_key_without_tokens_keeps_only_its_own_tasks(shard: Shard) -> None:
    due: list[int] = []
    shard.on_due = lambda _name, ms: due.append(ms)
    await configured(shard, rate_per_key=Bucket(10, 1_000, 2))
    slow = await keyed(shard, 4, "slow")
    other = await keyed(shard, 2, "other")
    plain = await queued(shard, 1)
    assert ids(await lease(shard, 100)) == [*slow[:2], *other, *plain]
    assert 0 < due[-1] <= 100
    found = await explained(shard, slow[2])
    assert (found.state, found.why, found.limit) == ("parked", "key_rate", 10)
    bell = waiting(shard)
    await wait_until(lambda: leased_all(shard, 7))
    assert bell.rings >= 1
    assert await left_of(shard, "mq:parked-lanes:default/q/slow", "mq:parked-keys:default/q") == []
    # Full buckets are forgotten.
    await wait_until(lambda: tokens_forgotten(shard))


async def tokens_forgotten(shard: Shard) -> bool:
    return await left_of(shard, "mq:tokens:default/q/slow", "mq:tokens:default/q/other") == []


async def test_both_limits_of_a_key_hold_together(shard: Shard) -> None:
    await configured(shard, max_running_per_key=2, rate_per_key=Bucket(50, 1_000, 1))
    await keyed(shard, 12, "k")
    started, served = now_ms(), 0

    async def all_served() -> bool:
        nonlocal served
        await shard.expire(1_000)
        held = await held_now(shard)
        served += len(held)
        assert (await figures(shard))[2] <= 2
        assert served <= 1 + (now_ms() - started) * 50 / 1_000 + 0.01
        await finish(shard, *held)
        return served == 12

    await wait_until(all_served)


async def leased_some(shard: Shard) -> bool:
    await shard.expire(1_000)
    return bool(await held_now(shard))


async def test_buckets_begin_empty_where_their_queue_comes_to(shard: Shard) -> None:
    rate = Bucket(1, HOUR, 2)
    await configured(shard, rate_per_key=rate)
    await keyed(shard, 1, "here")
    assert len(await held_now(shard)) == 1
    # With limits as a whole keys come from other shards, where their tokens may just have been taken.
    await configured(shard, version=2, rate_per_key=rate, max_running=100)
    await keyed(shard, 3, "there")
    assert await held_now(shard) == []
    await configured(shard, version=3, rate=rate, away=True)
    await configured(shard, version=3, rate=rate)
    await queued(shard, 1)
    assert await held_now(shard) == []
    # An empty bucket gets its first tokens with the next millisecond.
    await configured(shard, version=4, rate=Bucket(1_000, 1, 2))
    await wait_until(lambda: leased_some(shard))


@pytest.mark.parametrize("limit", ["rate", "rate_per_key"])
async def test_buckets_begin_empty_where_their_queue_comes_back_to(shard: Shard, limit: str) -> None:
    limits: dict[str, Any] = {limit: Bucket(1, HOUR, 2)}
    await configured(shard, **limits)
    await keyed(shard, 1, "k")
    assert len(await held_now(shard)) == 1
    # The second token may have been taken where the queue was meanwhile.
    await configured(shard, away=True, **limits)
    await configured(shard, **limits)
    await keyed(shard, 1, "k")
    assert await held_now(shard) == []


@pytest.mark.parametrize("limit", ["rate", "rate_per_key"])
async def test_buckets_begin_empty_on_a_shard_that_begins_anew(shard: Shard, limit: str) -> None:
    limits: dict[str, Any] = {limit: Bucket(5, 1_000, 2)}
    await configured(shard, anew=True, **limits)
    tasks = await keyed(shard, 2, "k")
    assert await held_now(shard) == []
    due = (await explained(shard, tasks[0])).due_ms
    assert 0 < due - now_ms() <= 200
    # All instances tell the shard, and the first one counts.
    await configured(shard, anew=True, paused=True, **limits)
    await configured(shard, anew=True, **limits)
    assert (await explained(shard, tasks[0])).due_ms <= due + 1
    await wait_until(lambda: leased_all(shard, 2))


@pytest.mark.parametrize("limit", ["rate", "rate_per_key"])
async def test_buckets_of_a_first_rate_begin_full(shard: Shard, limit: str) -> None:
    # The queue was known before the shard began anew, but nobody has taken tokens of it.
    await configured(shard, anew=True, max_running=10)
    limits: dict[str, Any] = {limit: Bucket(1, HOUR, 2)}
    await configured(shard, version=2, **limits)
    await keyed(shard, 3, "k")
    assert len(await held_now(shard)) == 2


async def test_weights_divide_a_class(shard: Shard) -> None:
    for name, weight in (("a", 3.0), ("b", 1.0), ("c", 0.5)):
        await queued(shard, 400, lane=f"{CLASS}/{name}", traits=Traits(fairness_weight=weight))
    served = {"a": 0, "b": 0, "c": 0}
    lanes = await lanes_of(shard, 180)
    for lane in lanes:
        served[lane.rpartition("/")[2]] += 1
    assert served["a"] == pytest.approx(120, abs=6)
    assert served["b"] == pytest.approx(40, abs=4)
    assert served["c"] == pytest.approx(20, abs=4)


async def lanes_of(shard: Shard, count: int) -> list[str]:
    assert shard._connection
    found = []
    for _ in range(count):
        (task_id,) = ids(await lease(shard, 1))
        found.append((await shard._connection.call("HGET", keys.task(task_id), "lane")).decode())
    return found


async def test_a_batch_is_divided_by_weights(shard: Shard) -> None:
    assert shard._connection
    for name, weight in (("a", 4.0), ("b", 1.0)):
        await queued(shard, 500, lane=f"{CLASS}/{name}", traits=Traits(fairness_weight=weight))
    taken = [task_id for _ in range(4) for task_id in ids(await lease(shard, 100))]
    lanes = [await shard._connection.call("HGET", keys.task(task_id), "lane") for task_id in taken]
    assert lanes.count(f"{CLASS}/a".encode()) == pytest.approx(320, abs=40)


async def test_the_weight_of_the_latest_task_counts(shard: Shard) -> None:
    for weight in (100.0, 1.0):
        await queued(shard, 20, lane=f"{CLASS}/a", traits=Traits(fairness_weight=weight))
    await queued(shard, 20, lane=f"{CLASS}/b")
    lanes = await lanes_of(shard, 20)
    assert lanes.count(f"{CLASS}/a") == pytest.approx(10, abs=1)
    assert await left_of(shard, "mq:weights:default/q/t") == []
