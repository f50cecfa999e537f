"""Fairness keys of a queue take turns over its task types, on a real shard."""

import pytest
from fixtures.shards import everything, ids, item, lease, now_ms, queued, shard, task_of

from meshq.execution.model import ShardQueueConfig, Traits
from meshq.execution.ring.shard import Shard

__all__ = ["shard"]

A, B, C = (f"default/q/{kind}" for kind in "abc")


async def lanes_of(shard: Shard, task_ids: list[bytes]) -> list[str]:
    return [(await task_of(shard, task_id))[b"lane"].decode() for task_id in task_ids]


async def one_by_one(shard: Shard, count: int, *classes: str) -> list[str]:
    found = [ids(await lease(shard, 1, classes))[0] for _ in range(count)]
    return await lanes_of(shard, found)


@pytest.mark.parametrize("frame", [1, 20, 100])
@pytest.mark.parametrize("small", ["aaa", "small"])
async def test_a_backlog_of_one_type_does_not_delay_another_keys_first_task_of_another(
    shard: Shard, frame: int, small: str
) -> None:
    await queued(shard, 600, lane=f"{A}/big", ready_ms=now_ms() - 60_000)
    await queued(shard, 100, lane=f"{B}/big", ready_ms=now_ms() - 60_000)
    for _ in range(5):
        await lease(shard, frame, [A, B])
        (first,) = await queued(shard, 1, lane=f"{B}/{small}")
        served = [task_id for _ in range(2) for task_id in ids(await lease(shard, frame, [A, B]))]
        if first not in served:
            served += ids(await lease(shard, frame, [A, B]))
        assert first in served


async def test_weights_count_over_types(shard: Shard) -> None:
    await queued(shard, 300, lane=f"{A}/x", traits=Traits(fairness_weight=3.0))
    await queued(shard, 300, lane=f"{B}/y", ready_ms=now_ms() - 60_000)
    lanes = await one_by_one(shard, 80, A, B)
    assert lanes.count(f"{A}/x") == pytest.approx(60, abs=3)


async def test_two_types_of_a_key_are_one_share(shard: Shard) -> None:
    for class_ in (A, B):
        await queued(shard, 200, lane=f"{class_}/x", ready_ms=now_ms() - 60_000)
    await queued(shard, 200, lane=f"{C}/y")
    lanes = await one_by_one(shard, 60, A, B, C)
    assert lanes.count(f"{C}/y") == pytest.approx(30, abs=2)


@pytest.mark.parametrize("frame", [1, 7])
async def test_a_key_keeps_its_order_over_types_while_others_have_their_turns(
    shard: Shard, frame: int
) -> None:
    base = now_ms() - 900_000
    own = [item(lane=f"{(A, B, C)[n % 3]}/x", ready_ms=base + n, priority=n * 7 % 10) for n in range(60)]
    await shard.enqueue(own)
    await queued(shard, 40, lane=f"{A}/y")
    await queued(shard, 40, lane=f"{B}/z", ready_ms=base - 1)
    served = []
    while taken := ids(await lease(shard, frame, [A, B, C])):
        served += taken
    assert len(served) == 140
    expected = sorted(own, key=lambda found: found.ready_ms - found.priority * 60_000)
    mine = {found.task_id for found in own}
    assert [found for found in served if found in mine] == [found.task_id for found in expected]


async def test_what_nobody_asks_for_gathers_no_claim_and_blocks_nobody(shard: Shard) -> None:
    await queued(shard, 300, lane=f"{A}/idle")
    await queued(shard, 300, lane=f"{B}/busy")
    await queued(shard, 10, lane=f"{C}/other")
    await one_by_one(shard, 150, B, C)
    lanes = await one_by_one(shard, 40, A, B)
    assert lanes.count(f"{A}/idle") == pytest.approx(20, abs=2)


async def test_what_other_workers_take_is_no_debt(shard: Shard) -> None:
    for class_ in (A, B):
        await queued(shard, 300, lane=f"{class_}/x")
    await queued(shard, 300, lane=f"{B}/y")
    await one_by_one(shard, 200, A)
    lanes = await one_by_one(shard, 40, B)
    assert lanes.count(f"{B}/x") == pytest.approx(20, abs=2)
    lanes = await one_by_one(shard, 40, A, B)
    assert lanes.count(f"{B}/y") == pytest.approx(20, abs=2)


async def test_turns_are_kept_by_a_queue_at_its_limit(shard: Shard) -> None:
    await shard.configure([ShardQueueConfig("default/q", 1, max_running=1_000)])
    await queued(shard, 60, lane=f"{A}/x", ready_ms=now_ms() - 60_000)
    await queued(shard, 60, lane=f"{B}/y")
    lanes = []
    for version in range(20):
        await shard.configure([ShardQueueConfig("default/q", version + 2, max_running=version + 1)])
        lanes += await lanes_of(shard, ids(await lease(shard, 5, [A, B])))
    assert lanes.count(f"{B}/y") == pytest.approx(10, abs=1)


async def test_queues_go_by_their_oldest_tasks(shard: Shard) -> None:
    base = now_ms() - 60_000
    old = await queued(shard, 10, lane=f"{A}/x", ready_ms=base)
    await queued(shard, 10, lane="default/r/a/x", ready_ms=base + 10)
    new = await queued(shard, 2, lane=f"{B}/y", ready_ms=base + 20)
    served = ids(await lease(shard, 12, [A, B, "default/r/a"]))
    assert set(new) < set(served)
    assert set(old) < set(served)


async def test_many_types_with_many_keys_leave_nothing_behind(shard: Shard) -> None:
    classes = [f"default/q/t{n}" for n in range(200)]
    own = [item(lane=f"{classes[n % 200]}/k{n % 9}") for n in range(1_000)]
    assert not await shard.enqueue(own)
    served: list[bytes] = []
    while taken := ids(await lease(shard, 400, classes)):
        served += taken
    assert sorted(served) == sorted(found.task_id for found in own)
    left = await everything(shard)
    assert not [key for key in left if key.startswith((b"mq:lane", b"mq:clocks", b"mq:types"))]
