"""Each script on a real shard."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

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
    poll,
    queued,
    task_of,
)

from meshq.contract.ids import new_task_id
from meshq.execution.model import Lease, Over
from meshq.execution.ring import keys
from meshq.execution.ring.doorbell import Doorbell
from meshq.execution.ring.errors import EpochChanged, RingOutdated, ShardClosed, ShardFull
from meshq.execution.ring.shard import Held, Owner, Shard


@pytest.fixture
async def shard(shards: dict[str, str]) -> AsyncIterator[Shard]:
    async with opened_shard(shards["shard-1"]) as found:
        yield found


async def settled(shard: Shard, closing_ms: int = 10_000) -> list[Over]:
    """Expire until something is to be closed."""
    return list(await wait_until(lambda: expired(shard, closing_ms)))


async def expired(shard: Shard, closing_ms: int = 10_000) -> list[Over]:
    """Expire, take back what was not acknowledged, and return what is to be closed."""
    over = (await shard.expire(closing_ms))[1]
    returning = [found.lease for found in over if found.returning]
    if returning:
        await shard.take_back(returning)
    return [found for found in over if not found.returning]


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


async def test_an_instance_that_waits_is_called_once(shard: Shard) -> None:
    waiter = Bell()
    shard._doorbell.wait_for([CLASS, "default/q/other"], waiter)
    await queued(shard, 1)
    taken = await lease(shard, 1, [CLASS, "default/q/other"])
    assert ids(taken)
    await queued(shard, 1, lane="default/elsewhere/t/")
    assert waiter.rings == 0
    # It got all that it wanted, so nothing was noted; now something is.
    assert ids(await lease(shard, 1, [CLASS, "default/q/other"])) == []
    await queued(shard, 5, lane="default/q/other/")
    await wait_until(lambda: waiter.rings == 1)
    await queued(shard, 5, lane="default/q/other/")
    assert len(ids(await lease(shard, 20, ["default/q/other"]))) == 10
    assert waiter.rings == 1
    await queued(shard, 1)
    await wait_until(lambda: waiter.rings == 2)


async def test_received_leases_live_with_their_session(shard: Shard) -> None:
    await shard.greet([(SESSION, "default/w", b"k")], 60_000)
    await queued(shard, 2)
    held = leases(shard, await lease(shard, 2, delivery_ms=200))
    assert await shard.received(
        [(held[0], SESSION), (held[0], "e-1/other"), (held[1]._replace(number=99), SESSION)]
    ) == [1, 2]
    heard = News()
    shard._doorbell.sessions = heard

    async def back() -> bool:
        await expired(shard)
        return await figures(shard) == (1, 0, 1)

    await wait_until(back)
    await wait_until(lambda: heard.lost_leases == [(SESSION, held[1])])
    assert await shard.received([(held[1], SESSION)]) == [0]
    (again,) = leases(shard, await lease(shard, 2))
    assert again.attempt == 1
    assert again.number != held[1].number


async def test_ended_sessions_are_handed_out_until_somebody_has_closed_them(shard: Shard) -> None:
    await shard.greet([(SESSION, "default/w", b"k")], 300)
    await queued(shard, 3)
    held = leases(shard, await lease(shard, 3, session_ms=300))
    await shard.received([(found, SESSION) for found in held[:2]])
    closing = await settled(shard, 200)
    assert {(found.lease.task_id, found.lease.number) for found in closing} == {
        (found.task_id, found.number) for found in held[:2]
    }
    assert {found.worker_id for found in closing} == {"w"}
    # What was not acknowledged went back and costs no attempt.
    assert await figures(shard) == (1, 0, 2)
    assert {found.lease for found in await settled(shard, 60_000)} == {found.lease for found in closing}
    assert await expired(shard) == []
    await shard.apply([done(found.lease, "run", next_attempt=2, not_before_ms=now_ms()) for found in closing])
    taken = await lease(shard, 3)
    assert sorted(taken.tasks[1::7]) == [1, 2, 2]


async def test_an_unacknowledged_delivery_waits_until_somebody_has_looked_for_its_end(shard: Shard) -> None:
    await queued(shard, 3)
    held = leases(shard, await lease(shard, 3, delivery_ms=1))
    over = (await wait_until(lambda: over_of(shard)))[:3]
    assert all(found.returning for found in over)
    assert await figures(shard) == (0, 0, 3)
    # A worker that comes back with its lease keeps it; an end that was found is applied; the last goes back.
    back = Held(held[0], "e-1/x-2", "w", f"{CLASS}/")
    assert await shard.adopt([back], 1_000) == [True]
    await shard.apply([done(held[1])])
    await shard.take_back(held)
    assert await figures(shard) == (1, 0, 1)
    assert ids(await lease(shard, 3)) == [held[2].task_id]
    # One that is withdrawn meanwhile is dropped.
    (fourth,) = await queued(shard, 1)
    (found,) = leases(shard, await lease(shard, 1, delivery_ms=1))
    await wait_until(lambda: over_of(shard))
    assert await shard.withdraw([(fourth, 1, "stop", "cancel")]) == [2]
    await shard.take_back([found])
    assert await shard.withdraw([(fourth, 1, "stop", "cancel")]) == [3]


async def over_of(shard: Shard) -> list[Over]:
    return (await shard.expire(60_000))[1]


async def test_a_task_that_kills_its_workers_before_they_answer_costs_attempts_in_the_end(
    shard: Shard,
) -> None:
    await queued(shard, 1)
    for death in range(3):
        session = f"e-1/x-{death}"
        await shard.greet([(session, f"default/w{death}", b"k")], 1)
        taken = await lease(shard, 1, session=session, session_ms=1)
        assert len(ids(taken)) == 1
        closing = await wait_until(partial(ended_session, shard, session))
        assert len(closing[0]) == (1 if death == 2 else 0)


async def ended_session(shard: Shard, session: str) -> list[Any] | None:
    closing = await expired(shard, 60_000)
    assert shard._connection
    gone = await shard._connection.call("ZSCORE", "mq:sessions", session) is None
    return [closing] if gone else None


async def test_a_session_that_leaves_proves_nothing(shard: Shard) -> None:
    await queued(shard, 1)
    for index in range(5):
        session = f"e-1/x-{index}"
        await shard.greet([(session, "default/w", b"k")], 60_000)
        assert len(ids(await lease(shard, 1, session=session))) == 1
        await shard.leave([session])
        assert await expired(shard) == []
    assert await figures(shard) == (1, 0, 0)


async def test_renewing_keeps_a_session_and_tells_of_ended_ones(shard: Shard) -> None:
    sessions = [f"e-1/x-{index}" for index in range(3)]
    await shard.greet([(session, f"default/{index}", b"k") for index, session in enumerate(sessions)], 60_000)
    await shard.leave([sessions[1]])
    assert await shard.renew([*sessions, "e-1/unknown"], 60_000) == [1, 3]
    await shard.expire(1_000)
    assert await shard.renew(sessions, 60_000) == [1]


async def test_another_start_of_a_worker_ends_its_last_session(shard: Shard) -> None:
    heard = News()
    shard._doorbell.sessions = heard
    await shard.greet([("e-1/x-1", "default/w", b"first")], 60_000)
    assert await shard.greet([("e-1/x-2", "default/w", b"first")], 60_000) == 0
    assert await shard.greet([("e-1/x-3", "default/w", b"other start")], 60_000) == 1
    await wait_until(lambda: heard.ends == ["e-1/x-2"])
    assert await shard.renew(["e-1/x-1", "e-1/x-2", "e-1/x-3"], 60_000) == [1]


async def test_released_tasks_keep_their_place(shard: Shard) -> None:
    first, second = await queued(shard, 2)
    held = leases(shard, await lease(shard, 1))
    assert await shard.release([held[0], held[0]._replace(number=9)]) == [True, False]
    assert ids(await lease(shard, 2)) == [first, second]
    assert await shard.release([held[0]]) == [False]


async def test_directives_compare_the_attempt(shard: Shard) -> None:
    await queued(shard, 1)
    (held,) = leases(shard, await lease(shard, 1))
    run = done(held, "run", next_attempt=2, not_before_ms=now_ms() - 5)
    await shard.apply([run])
    await shard.apply([run])
    assert await figures(shard) == (1, 0, 0)
    (again,) = leases(shard, await lease(shard, 1))
    assert again.attempt == 2
    # A late repetition of the old directive does not take the second attempt away.
    await shard.apply([run])
    assert await figures(shard) == (0, 0, 1)
    await shard.apply([done(again, "run", next_attempt=3, not_before_ms=now_ms() + 60_000)])
    assert await figures(shard) == (0, 1, 0)
    await shard.apply([done(again, "gone")])
    assert await figures(shard) == (0, 0, 0)
    assert await shard.compare([(held.task_id, 1), (held.task_id, 3), (b"n" * 16, 1)]) == (
        False,
        [True, True, False],
    )


async def test_the_other_holder_of_an_ended_attempt_is_told(shard: Shard) -> None:
    heard = News()
    shard._doorbell.sessions = heard
    await queued(shard, 1)
    (first,) = leases(shard, await lease(shard, 1, delivery_ms=1))

    async def again() -> list[Lease]:
        await expired(shard)
        return leases(shard, await lease(shard, 1, session="e-1/x-2"))

    (second,) = await wait_until(again)
    await shard.apply([done(first)])
    await wait_until(lambda: ("e-1/x-2", second) in heard.lost_leases)
    assert await figures(shard) == (0, 0, 0)


async def test_withdrawals_find_tasks_wherever_they_are(shard: Shard) -> None:
    heard = News()
    shard._doorbell.sessions = heard
    (running,) = await queued(shard, 1)
    (held,) = leases(shard, await lease(shard, 1))
    (ready,) = await queued(shard, 1)
    (delayed,) = await queued(shard, 1, ready_ms=now_ms() + 60_000)
    unknown = new_task_id().bytes
    items = [(task_id, 1, "why not", "cancel") for task_id in (running, ready, delayed, unknown)]
    assert await shard.withdraw(items) == [2, 1, 1, 3]
    await wait_until(lambda: heard.cancels == [(SESSION, held, "why not")])
    assert await figures(shard) == (0, 0, 1)
    await shard.enqueue([item(task_id) for task_id in (ready, delayed, unknown)])
    assert await figures(shard) == (0, 0, 1)
    # One that is to be cancelled does not go back to the lane.
    await shard.release([held])
    assert await figures(shard) == (0, 0, 0)
    assert await shard.withdraw(items[:1]) == [3]


async def test_polled_leases_have_deadlines_of_their_own(shard: Shard) -> None:
    await queued(shard, 2)
    kept, lost = await poll(shard, 2, 400)
    assert await shard.renew_polled([kept, lost._replace(number=99), lost._replace(task_id=b"x" * 16)]) == [
        [1],
        [0],
        [2],
    ]
    deadline = time.monotonic() + 5

    async def closed() -> list[Any]:
        assert time.monotonic() < deadline
        await shard.renew_polled([kept])
        return (await shard.expire(60_000))[1]

    closing = await wait_until(closed)
    assert [found.lease.task_id for found in closing] == [lost.task_id]
    assert await shard.renew_polled([lost]) == [[0]]
    await shard.withdraw([(kept.task_id, 1, "enough", "cancel")])
    assert await shard.renew_polled([kept]) == [[1, b"enough"]]


async def test_a_poll_is_found_again_by_its_request_id(shard: Shard) -> None:
    await queued(shard, 3)
    key = keys.poll("default", "w", "r-1")
    held = await poll(shard, 2, poll_key=key)
    found = await shard.recall(key)
    assert {lease_ for lease_, *_ in found} == set(held)
    assert all(spec == b"spec" and ends > now_ms() for _, _, ends, _, spec in found)
    await shard.apply([done(held[0])])
    assert [lease_ for lease_, *_ in await shard.recall(key)] == [held[1]]
    assert await shard.recall(keys.poll("default", "w", "r-2")) == []


async def test_leases_move_between_sessions_and_over_epochs(shard: Shard) -> None:
    await queued(shard, 2)
    known, waiting = leases(shard, await lease(shard, 2))
    await shard.release([waiting])
    old = Lease(new_task_id().bytes, 1, 3, 12, shard.name, "default", now_ms())
    taken_over = waiting._replace(epoch=3, number=13)
    ended = old._replace(task_id=new_task_id().bytes)
    await shard.withdraw([(ended.task_id, 1, "", "cancel")])
    wrong = known._replace(number=77)
    unknown = old._replace(task_id=new_task_id().bytes, epoch=shard.epoch)
    held = [
        Held(found, "e-2/y-1", "w", f"{CLASS}/") for found in (known, old, taken_over, ended, wrong, unknown)
    ]
    assert await shard.adopt(held, 1_000) == [True, True, True, False, False, False]
    assert await figures(shard) == (0, 0, 3)
    assert await shard.received([(known, SESSION), (known, "e-2/y-1"), (old, "e-2/y-1")]) == [0]
    # What was made anew has no specification: it cannot run again from here.
    await shard.apply([done(old, "run", next_attempt=2, not_before_ms=now_ms())])
    await shard.apply([done(taken_over, "run", next_attempt=2, not_before_ms=now_ms())])
    assert ids(await lease(shard, 5)) == [taken_over.task_id]


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
        await queued(first, 1)
        await wait_until(lambda: [bell.rings for bell in bells] == [1, 2])
