"""What time does to tasks on a real shard: timeouts, grace, what is finished later, and what is put off."""

import pytest
from fixtures.execution import wait_until
from fixtures.limited import configured, finish, held_now, keyed
from fixtures.shards import (
    CLASS,
    SESSION,
    News,
    done,
    everything,
    figures,
    ids,
    item,
    lease,
    leases,
    now_ms,
    poll,
    queued,
    shard,
    task_of,
)

from meshq.execution.model import Bucket, Lease, Over, Traits
from meshq.execution.ring import keys
from meshq.execution.ring.extras import encode_extras, parse_extras
from meshq.execution.ring.shard import Held, Shard

__all__ = ["shard"]

HOUR = 3_600_000


async def over(shard: Shard, closing_ms: int = 60_000) -> list[Over]:
    return list(await wait_until(lambda: expired(shard, closing_ms)))


async def expired(shard: Shard, closing_ms: int) -> list[Over]:
    return (await shard.expire(closing_ms))[1]


async def deadlines(shard: Shard) -> int:
    assert shard._connection
    return int(await shard._connection.call("ZCARD", "mq:deadlines"))


async def nothing_left(shard: Shard) -> None:
    """Only what belongs to the shard, to queues as such and to who waits."""
    left = {key.partition(b"s:")[0] for key in await everything(shard)}
    assert left <= {
        b"mq:meta",
        b"mq:totals",
        b"mq:queue:default/q",
        b"mq:tombstone",
        b"mq:session",
        b"mq:sessions",
        b"mq:waiting:default/q",
    }
    assert await figures(shard) == (0, 0, 0)


async def test_traits_travel_with_the_task(shard: Shard) -> None:
    traits = Traits("a key with spaces", 5, 0.5, now_ms() + HOUR, 2_000, 300, announce=True)
    await queued(shard, 1, traits=traits)
    taken = await lease(shard, 1)
    assert parse_extras(taken.tasks[5]) == traits
    await queued(shard, 1, traits=Traits())
    assert (await lease(shard, 1)).tasks[5] == b""


async def test_a_task_that_is_not_leased_in_time_is_handed_out_as_such(shard: Shard) -> None:
    traits = Traits(start_by_ms=now_ms() + 20)
    (late,) = await queued(shard, 1, traits=traits)
    (found,) = await over(shard)
    assert (found.kind, found.lease.task_id, found.lease.number, found.worker_id) == ("start_by", late, 0, "")
    # It is in nobody's way, and counts as ready until it is settled.
    assert ids(await lease(shard, 1)) == []
    assert await figures(shard) == (1, 0, 0)
    assert await shard.withdraw([(late, 1, "", "recall")]) == [2]
    await shard.apply([done(found.lease)])
    await nothing_left(shard)


@pytest.mark.parametrize("configures", [False, True])
async def test_a_task_that_comes_too_late_is_not_leased(shard: Shard, configures: bool) -> None:
    due: list[int] = []
    shard.on_due = lambda _name, ms: due.append(ms)
    if configures:
        await configured(shard, max_running=10, rate=Bucket(1, HOUR, 2))
    late = await queued(shard, 3, traits=Traits(start_by_ms=now_ms() - 1))
    first, second = await queued(shard, 2, traits=Traits(start_by_ms=now_ms() + HOUR))
    due.clear()
    assert [found.task_id for found in await poll(shard, 1)] == [first]
    assert ids(await lease(shard, 5)) == [second]
    # They take no slots and no tokens, and count as ready until they are handed out, which is due at once.
    assert due == [0]
    assert await figures(shard) == (3, 0, 2)
    assert {(found.kind, found.lease.task_id) for found in await over(shard)} == {
        ("start_by", task_id) for task_id in late
    }
    assert ids(await lease(shard, 5)) == []


async def test_late_tasks_are_in_nobodys_way(shard: Shard) -> None:
    await queued(shard, 700, traits=Traits(start_by_ms=now_ms() - 1))
    (good,) = await queued(shard, 1)
    # One call does not look at all of them.
    assert ids(await lease(shard, 5)) == []
    assert ids(await lease(shard, 5)) == [good]


async def test_late_tasks_of_a_full_key_make_room_for_those_behind(shard: Shard) -> None:
    await configured(shard, max_running_per_key=1)
    await keyed(shard, 1, "k")
    (held,) = await held_now(shard)
    start_by = now_ms() + 300
    (late,) = await queued(shard, 1, traits=Traits("k", start_by_ms=start_by))
    (good,) = await keyed(shard, 1, "k")
    assert await held_now(shard) == []
    await wait_until(lambda: now_ms() > start_by)
    await finish(shard, held)
    assert await held_now(shard) == []
    (found,) = await over(shard)
    assert (found.kind, found.lease.task_id) == ("start_by", late)
    assert ids(await lease(shard, 5)) == [good]
    await shard.apply([done(found.lease)])
    assert await figures(shard) == (0, 0, 1)


async def test_what_was_leased_in_time_need_not_be_again(shard: Shard) -> None:
    traits = Traits(start_by_ms=now_ms() + HOUR, limit_key="k")
    await queued(shard, 2, traits=traits)
    first, second = leases(shard, await lease(shard, 2))
    assert await deadlines(shard) == 0
    # Not if it was given back before it began, and not any more once an attempt was made.
    await shard.release([first])
    assert await deadlines(shard) == 1
    await shard.apply([done(second, "run", next_attempt=2, not_before_ms=now_ms())])
    assert await deadlines(shard) == 1
    assert parse_extras((await task_of(shard, second.task_id))[b"extras"]) == Traits("k")


@pytest.mark.parametrize(
    ("traits", "kind"),
    [(Traits(start_to_close_ms=1), "start_to_close"), (Traits(heartbeat_ms=1, limit_key="k"), "heartbeat")],
)
async def test_an_attempt_that_takes_too_long_is_closed(shard: Shard, traits: Traits, kind: str) -> None:
    heard = News()
    shard._doorbell.sessions = heard
    await queued(shard, 2, traits=traits)
    (pushed,) = leases(shard, await lease(shard, 1))
    (polled,) = await poll(shard, 1)
    await shard.received([(pushed, SESSION)])
    found: dict[Lease, Over] = {}

    async def both() -> bool:
        found.update({closing.lease: closing for closing in await expired(shard, 1)})
        return len(found) == 2

    await wait_until(both)
    assert set(found) == {pushed, polled}
    assert {closing.kind for closing in found.values()} == {kind}
    await wait_until(lambda: heard.lost_leases == [(SESSION, pushed)])
    # Handed out again with the same reason until it is settled; the slots stay taken.
    assert {closing.kind for closing in await over(shard, 1)} == {kind}
    assert await figures(shard) == (0, 0, 2)
    await shard.apply([done(pushed), done(polled)])
    await shard.leave([SESSION])
    await shard.expire(1)
    await nothing_left(shard)


async def test_a_beat_puts_the_end_off(shard: Shard) -> None:
    await queued(shard, 2, traits=Traits(heartbeat_ms=300))
    kept, silent = leases(shard, await lease(shard, 2))
    (polled,) = await queued(shard, 1, traits=Traits(heartbeat_ms=300))
    (held,) = await poll(shard, 1)
    found: list[Over] = []

    async def silent_is_over() -> list[Over]:
        await shard.beat([kept, kept._replace(number=77)])
        assert await shard.renew_polled([held]) == [[1]]
        found.extend(await expired(shard, 60_000))
        return found

    await wait_until(silent_is_over)
    assert [closing.lease for closing in found] == [silent]
    assert held.task_id == polled
    await shard.apply([done(kept), done(silent), done(held)])
    assert await deadlines(shard) == 0


async def test_a_cancellation_that_nobody_confirms_is_settled_after_its_grace(shard: Shard) -> None:
    await queued(shard, 2)
    obeys, ignores = leases(shard, await lease(shard, 2))
    items = [(found.task_id, 1, "stop", "cancel") for found in (obeys, ignores)]
    assert await shard.withdraw(items, 30) == [2, 2]
    # Asking again does not prolong it.
    assert await shard.withdraw(items, HOUR) == [2, 2]
    await shard.apply([done(obeys)])
    (found,) = await over(shard)
    assert (found.kind, found.lease) == ("grace", ignores)
    await shard.apply([done(ignores)])
    assert await deadlines(shard) == 0


async def test_a_poller_hears_of_a_cancellation_before_its_grace_begins(shard: Shard) -> None:
    await queued(shard, 1)
    (held,) = await poll(shard, 1, 60_000)
    assert await shard.withdraw([(held.task_id, 1, "stop", "cancel")], 1_000) == [2]
    ends = int((await task_of(shard, held.task_id))[b"grace"])
    assert 60_000 < ends - now_ms() <= 61_000
    # The grace goes with the lease to whoever adopts it.
    assert await shard.adopt([Held(held, SESSION, "w", f"{CLASS}/")], 1_000) == [True]
    assert await deadlines(shard) == 1
    await shard.release([held])
    assert await deadlines(shard) == 0


async def test_a_recall_takes_an_attempt_and_leaves_the_task(shard: Shard) -> None:
    ready, delayed, running, later, unknown = (item() for _ in range(5))
    await shard.enqueue([running])
    await lease(shard, 1)
    await shard.enqueue([ready, delayed._replace(ready_ms=now_ms() + HOUR), later._replace(attempt=2)])
    items = [(found.task_id, 1, "", "recall") for found in (ready, delayed, running, later, unknown)]
    assert await shard.withdraw(items, 1_000) == [1, 1, 2, 2, 3]
    assert b"cancel" not in await task_of(shard, running.task_id)
    # A late dispatch of the same attempt is skipped, the next attempt is not.
    await shard.enqueue([ready, delayed, unknown])
    assert await figures(shard) == (1, 0, 1)
    await shard.enqueue([found._replace(attempt=2) for found in (ready, delayed, unknown)])
    assert await figures(shard) == (4, 0, 1)


async def test_what_comes_much_later_leaves_the_shard_without_being_over(shard: Shard) -> None:
    first = item()
    await shard.enqueue([first])
    (held,) = leases(shard, await lease(shard, 1))
    await shard.apply([done(held, "later", next_attempt=2)])
    assert await figures(shard) == (0, 0, 0)
    assert await shard.compare([(first.task_id, 1), (first.task_id, 2)]) == (False, [True, False])
    await shard.enqueue([first, first._replace(attempt=2)])
    assert await figures(shard) == (1, 0, 0)
    # A repetition of the old answer does not take the next attempt away.
    await shard.apply([done(held, "later", next_attempt=2)])
    assert await figures(shard) == (1, 0, 0)


async def test_a_lease_may_be_finished_later(shard: Shard) -> None:
    traits = Traits("k", start_to_close_ms=HOUR, heartbeat_ms=HOUR)
    await queued(shard, 2, traits=traits)
    held, other = leases(shard, await lease(shard, 2))
    await shard.received([(held, SESSION)])
    assert await shard.defer(held, 40)
    assert await shard.defer(other._replace(number=99), 40) is False
    assert await shard.defer_all([(other, HOUR)]) == [True]
    # It counts as running, and its session has nothing to do with it any more.
    assert await figures(shard) == (0, 0, 2)
    assert await deadlines(shard) == 0
    await shard.leave([SESSION])
    (found,) = await over(shard)
    assert (found.kind, found.lease, found.worker_id) == ("finish_later", held, "")
    assert await shard.renew_polled([other]) == [[1]]
    await shard.apply([done(held), done(other)])
    await nothing_left(shard)


async def test_what_is_finished_later_survives_a_new_epoch(shard: Shard) -> None:
    old = Lease(item().task_id, 1, 3, 12, shard.name, "default", now_ms())
    extras = encode_extras(Traits("k", start_to_close_ms=1, heartbeat_ms=1))
    held = Held(old, "", "w", f"{CLASS}/", extras, HOUR, now_ms() + 30)
    assert await shard.adopt([held], 1_000) == [True]
    (found,) = await over(shard)
    assert (found.kind, found.lease, found.worker_id) == ("finish_later", old, "w")
    # A lease of the same kind whose end is not known begins anew.
    assert await shard.adopt(
        [held._replace(lease=old._replace(number=13, task_id=item().task_id), ends_ms=0)], 1
    )
    assert await figures(shard) == (0, 0, 2)


async def test_adopting_begins_the_deadlines_of_the_lease_anew(shard: Shard) -> None:
    leased = now_ms() - 500
    old = Lease(item().task_id, 1, 3, 12, shard.name, "default", leased)
    extras = encode_extras(Traits("k", start_to_close_ms=600, heartbeat_ms=HOUR))
    assert await shard.adopt([Held(old, SESSION, "w", f"{CLASS}/", extras)], 1_000) == [True]
    assert shard._connection
    assert await shard._connection.call("HGETALL", "mq:running:default/q") == {b"k": b"1"}
    assert await deadlines(shard) == 2
    (found,) = await over(shard)
    assert (found.kind, found.lease) == ("start_to_close", old)
    await shard.apply([done(old)])
    assert await deadlines(shard) == 0
    assert await shard._connection.call("EXISTS", "mq:running:default/q", keys.task(old.task_id)) == 0
