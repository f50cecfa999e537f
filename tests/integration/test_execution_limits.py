"""What limits of a queue do on a real shard: pauses, slots, moving; and why tasks wait."""

import asyncio

from fixtures.execution import opened_shard, wait_until
from fixtures.limited import (
    HOUR,
    SCOPE,
    configured,
    explained,
    finish,
    held_now,
    keyed,
    leased_all,
    left_of,
    waiting,
)
from fixtures.shards import CLASS, done, figures, ids, item, lease, leases, now_ms, queued, shard

from meshq.execution.model import Explained, Lease, QueueItem, Traits
from meshq.execution.ring import keys
from meshq.execution.ring.shard import Held, Shard

__all__ = ["shard"]


async def test_a_paused_queue_hands_nothing_out_until_it_is_resumed(shard: Shard) -> None:
    bell = waiting(shard)
    (first,) = await queued(shard, 1)
    assert await configured(shard, paused=True) == 0
    assert await held_now(shard) == []
    assert (await explained(shard, first)).why == "paused"
    # New tasks of a paused queue wake nobody; other queues go on.
    await queued(shard, 1)
    (other,) = await queued(shard, 1, lane="default/other/t/")
    assert ids(await lease(shard, 5, [CLASS, "default/other/t"])) == [other]
    assert bell.rings == 0
    await configured(shard, version=2)
    await wait_until(lambda: bell.rings == 1)
    assert len(await held_now(shard)) == 2


async def test_an_older_version_changes_nothing(shard: Shard) -> None:
    await queued(shard, 1)
    await configured(shard, version=5, paused=True)
    await configured(shard, version=4)
    assert await held_now(shard) == []
    # The same version may come again with other news of where the queue lives.
    await configured(shard, version=5)
    assert len(await held_now(shard)) == 1
    assert await configured(shard, version=5) == 1


async def test_a_queue_never_has_more_leases_than_its_limit(shard: Shard) -> None:
    bell = waiting(shard)
    await configured(shard, max_running=3)
    tasks = await queued(shard, 10)
    held = await held_now(shard, 2)
    held += await held_now(shard)
    assert [found.task_id for found in held] == tasks[:3]
    assert await held_now(shard) == []
    assert await explained(shard, tasks[3]) == Explained("ready", "limit", 0, 3, 3, 0)
    # Whoever waits is called when a lease ends, however it ends.
    await finish(shard, held[0])
    await wait_until(lambda: bell.rings == 1)
    (next_one,) = await held_now(shard)
    assert next_one.task_id == tasks[3]
    await shard.release([next_one])
    await wait_until(lambda: bell.rings == 2)
    assert [found.task_id for found in await held_now(shard)] == [tasks[3]]
    # A lower limit ends nothing, and a higher one counts at once.
    await configured(shard, version=2, max_running=2)
    await finish(shard, held[1])
    assert await held_now(shard) == []
    await configured(shard, version=3, max_running=4)
    assert len(await held_now(shard)) == 2
    await configured(shard, version=4)
    assert len(await held_now(shard)) == 4


async def test_many_instances_together_keep_to_the_limit(shards: dict[str, str]) -> None:
    async with (
        opened_shard(shards["shard-1"], "e-1") as first,
        opened_shard(shards["shard-1"], "e-2") as second,
    ):
        await configured(first, max_running=20)
        await queued(first, 200)
        finished = 0
        while finished < 200:
            parts = await asyncio.gather(*(held_now(shard, 9) for shard in (first, second, first)))
            held = [found for part in parts for found in part]
            assert 0 < len(held) <= 20
            assert (await figures(first))[2] == len(held)
            await finish(second, *held)
            finished += len(held)


async def test_a_busy_key_keeps_only_its_own_tasks(shard: Shard) -> None:
    await configured(shard, max_running_per_key=2)
    loud = await keyed(shard, 50, "loud")
    quiet = await keyed(shard, 1, "quiet")
    plain = await queued(shard, 1)
    held = await held_now(shard, 5)
    assert [found.task_id for found in held] == [*loud[:2], *quiet, *plain]
    assert await figures(shard) == (48, 0, 4)
    assert await explained(shard, loud[4]) == Explained("parked", "key", 0, 2, 2, 2)
    # New ones stand behind the parked ones; one that ends brings the next one back.
    (last,) = await keyed(shard, 1, "loud")
    assert (await explained(shard, last)).ahead == 48
    for expected in [*loud[2:], last]:
        await finish(shard, held.pop(0))
        (found,) = await held_now(shard)
        assert found.task_id == expected
        held.insert(1, found)
    await finish(shard, *held)
    assert await figures(shard) == (0, 0, 0)
    assert (
        await left_of(
            shard,
            "mq:running:default/q",
            "mq:parked:4/loud/default/q/t/",
            "mq:parked-lanes:default/q/loud",
            "mq:parked-keys:default/q",
        )
        == []
    )


async def test_every_way_in_which_a_lease_ends_frees_its_key(shard: Shard) -> None:
    await configured(shard, max_running_per_key=1)
    tasks = await keyed(shard, 8, "k")

    async def one() -> Lease:
        (found,) = await held_now(shard)
        return found

    first = await one()
    await shard.apply([done(first, "run", next_attempt=2, not_before_ms=now_ms() + HOUR)])
    second = await one()
    await shard.apply([done(second, "later", next_attempt=2)])
    third = await one()
    await shard.enqueue([item(third.task_id, attempt=2, ready_ms=now_ms() + HOUR, traits=Traits("k"))])
    fourth = await one()
    await shard.apply([done(fourth, "gone")])
    fifth = await one()
    await shard.withdraw([(fifth.task_id, 1, "stop", "cancel")])
    await shard.release([fifth])
    sixth = leases(shard, await lease(shard, 1, delivery_ms=1))[0]
    await wait_until(lambda: returning(shard))
    assert await held_now(shard) == []
    await shard.take_back([sixth])
    assert (await one()).task_id == sixth.task_id
    found = [held.task_id for held in (first, second, third, fourth, fifth, sixth)]
    assert found == tasks[:6]


async def returning(shard: Shard) -> bool:
    return any(found.returning for found in (await shard.expire(60_000))[1])


async def test_what_is_withdrawn_while_it_waits_for_its_key_is_in_nobodys_way(shard: Shard) -> None:
    await configured(shard, max_running_per_key=1)
    tasks = await keyed(shard, 5, "k")
    (held,) = await held_now(shard)
    assert await shard.withdraw([(tasks[2], 1, "", "cancel")]) == [1]
    await finish(shard, held)
    # The one that has come back to the lane goes as well: the next one takes its place there.
    assert await shard.withdraw([(tasks[1], 1, "", "recall")]) == [1]
    (held,) = await held_now(shard)
    assert held.task_id == tasks[3]
    await shard.withdraw([(tasks[4], 1, "", "cancel")])
    await finish(shard, held)
    assert (
        await left_of(shard, "mq:parked:1/k/default/q/t/", "mq:parked-keys:default/q", "mq:running:default/q")
        == []
    )


async def test_a_changed_limit_per_key_brings_parked_tasks_back(shard: Shard) -> None:
    bell = waiting(shard)
    await configured(shard, max_running_per_key=1)
    for number in range(70):
        await keyed(shard, 4, f"k{number}")
    assert len(await held_now(shard, 1_000)) == 70
    await configured(shard, version=2, max_running_per_key=2)

    async def leased(count: int) -> bool:
        await shard.expire(1_000)
        await held_now(shard, 1_000)
        return (await figures(shard))[2] == count

    await wait_until(lambda: leased(140))
    assert bell.rings >= 1
    await configured(shard, version=3)
    await wait_until(lambda: leased(280))
    assert await left_of(shard, "mq:wakes", "mq:parked-keys:default/q") == []


async def test_priority_holds_among_the_tasks_of_a_key(shard: Shard) -> None:
    await configured(shard, max_running_per_key=1)
    first, second = await keyed(shard, 2, "k")
    (held,) = await held_now(shard)
    (urgent,) = await keyed(shard, 1, "k", priority=9)
    await finish(shard, held)
    (held,) = await held_now(shard)
    assert held.task_id == urgent
    await finish(shard, held)
    assert ids(await lease(shard, 5)) == [second]
    assert first != second


async def test_a_type_without_workers_does_not_keep_the_key_from_others(shard: Shard) -> None:
    await configured(shard, max_running_per_key=1)
    (first,) = await keyed(shard, 1, "k")
    (held,) = await held_now(shard)
    idle = await keyed(shard, 3, "k", lane="default/q/idle/")
    busy = await keyed(shard, 3, "k")
    assert ids(await lease(shard, 9, [CLASS, "default/q/idle"])) == []
    assert held.task_id == first
    for expected in busy:
        await finish(shard, held)
        (held,) = await held_now(shard)
        assert held.task_id == expected
    await finish(shard, held)
    assert ids(await lease(shard, 9, ["default/q/idle"])) == idle[:1]


async def test_adopted_leases_count_although_there_is_no_room(shard: Shard) -> None:
    await configured(shard, max_running=1, max_running_per_key=1)
    old = [Lease(item().task_id, 1, 3, number, shard.name, "default", now_ms()) for number in (1, 2)]
    extras = b"0 1 1 0 0 0 k"
    assert (
        await shard.adopt([Held(found, "e-1/x", "w", f"{CLASS}/", extras) for found in old], 1_000)
        == [True] * 2
    )
    (task,) = await keyed(shard, 1, "k")
    assert await held_now(shard) == []
    await finish(shard, old[0])
    assert await held_now(shard) == []
    assert (await explained(shard, task)).in_use == 1
    await finish(shard, old[1])
    assert len(await held_now(shard)) == 1


async def test_nothing_limited_is_handed_out_before_the_shard_has_recovered(shard: Shard) -> None:
    assert shard._connection
    await configured(shard, max_running=5)
    await shard._connection.call("HSET", keys.META, "state", "recovering")
    (limited,) = await queued(shard, 1)
    (free,) = await queued(shard, 1, lane="default/free/t/")
    assert ids(await lease(shard, 5, [CLASS, "default/free/t"])) == [free]
    assert (await explained(shard, limited)).why == "recovering"
    assert (await shard.recovered(60_000, ["e-1"])).name == "OPEN"
    assert ids(await lease(shard, 5)) == [limited]


async def test_a_queue_that_comes_home_waits_for_what_others_have_leased(shard: Shard) -> None:
    (first, *_) = await queued(shard, 5)
    await configured(shard, max_running=3, hold=True)
    assert await held_now(shard) == []
    assert (await explained(shard, first)).why == "limit"
    await configured(shard, max_running=3, foreign=2)
    held = await held_now(shard)
    assert len(held) == 1
    assert await explained(shard, (await queued(shard, 1))[0]) == Explained("ready", "limit", 0, 3, 3, 4)
    bell = waiting(shard)
    await configured(shard, max_running=3, foreign=1)
    await wait_until(lambda: bell.rings == 1)
    assert len(await held_now(shard)) == 1


async def test_what_keys_have_on_other_shards_counts(shard: Shard) -> None:
    assert await shard.running([SCOPE], 2) == [{}]
    await configured(shard, max_running_per_key=2, foreign=3, foreign_keys=(("a", 2), ("b b", 1)))
    for key in ("a", "b b", "c"):
        await keyed(shard, 3, key)
    held = await held_now(shard)
    assert len(held) == 3
    assert await shard.running([SCOPE, "default/none"], 2) == [{"b b": 1, "c": 2}, {}]
    assert await shard.running([SCOPE], 1) == [None]
    await configured(shard, max_running_per_key=2, foreign=2, foreign_keys=(("a", 1), ("b b", 1)))
    await wait_until(lambda: leased_all(shard, 4))
    await finish(shard, *held)
    await wait_until(lambda: leased_all(shard, 3))
    await configured(shard, max_running_per_key=2)
    await wait_until(lambda: leased_all(shard, 5))
    assert await left_of(shard, "mq:foreign:default/q") == []


async def test_a_queue_that_lives_elsewhere_is_moved_there(shard: Shard) -> None:
    await configured(shard, max_running_per_key=1)
    parked = [item(traits=Traits("k"), priority=3) for _ in range(3)]
    plain = [item(lane="default/q/u/somebody", spec=b"other") for _ in range(3)]
    delayed = item(ready_ms=now_ms() + 200, traits=Traits(start_by_ms=now_ms() + HOUR))
    known = item()
    await shard.enqueue([*parked, *plain, delayed])
    (held,) = await held_now(shard)
    await shard.enqueue([known])
    assert await configured(shard, version=2, away=True) == 1
    assert await held_now(shard) == []
    new = item()
    assert await shard.enqueue([known, new, item()]) == ([], [1, 2])
    assert (await explained(shard, known.task_id)).why == "moving"
    moved: dict[bytes, QueueItem] = {}

    async def all_moved() -> bool:
        await shard.expire(1_000)
        part = await shard.departures.move_away(SCOPE, 2)
        assert len(part) <= 2
        moved.update({found.task_id: found for found in part})
        return len(moved) == 7

    await wait_until(all_moved)
    for original in (*parked[1:], *plain, delayed, known):
        expected = original._replace(repeat=True)
        assert moved[original.task_id] == expected
    assert held.task_id == parked[0].task_id
    await finish(shard, held)
    assert await figures(shard) == (0, 0, 0)
    assert (
        await left_of(
            shard, "mq:deadlines", "mq:lanes:default/q/t", "mq:types:default/q", "mq:parked-keys:default/q"
        )
        == []
    )
    assert await shard.outcomes([known.task_id]) == [b""]
    # What lives here stays.
    await configured(shard, version=3)
    await queued(shard, 1)
    assert await shard.departures.move_away(SCOPE, 10) == []


async def test_tasks_say_what_they_wait_for(shard: Shard) -> None:
    due = now_ms() + HOUR
    first, second, third = await queued(shard, 3)
    (delayed,) = await queued(shard, 1, ready_ms=due)
    await lease(shard, 1)
    assert await shard.explain([first, second, third, delayed, item().task_id]) == [
        Explained("leased"),
        Explained("ready", "line"),
        Explained("ready", "line", ahead=1),
        Explained("delayed", "not_due", due),
        Explained("none"),
    ]


async def test_parked_tasks_show_in_the_age_of_a_queue(shard: Shard) -> None:
    await configured(shard, max_running_per_key=1)
    oldest = now_ms() - 5_000
    await keyed(shard, 3, "k", ready_ms=oldest)
    await held_now(shard)
    (depth,) = await shard.describe([SCOPE])
    assert depth == (2, 0, 1, oldest)


async def test_whoever_got_all_asks_again(shard: Shard) -> None:
    await queued(shard, 2)
    assert (await lease(shard, 2)).head == float("-inf")
    assert (await lease(shard, 2)).head is None
