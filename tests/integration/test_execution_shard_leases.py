"""Each script about leases on a real shard: how they are kept, end, move and are withdrawn."""

import time
from functools import partial
from typing import Any

from fixtures.execution import wait_until
from fixtures.shards import (
    CLASS,
    SESSION,
    News,
    done,
    expired,
    figures,
    ids,
    item,
    lease,
    leases,
    now_ms,
    poll,
    queued,
    settled,
    shard,
)

from meshq.contract.ids import new_task_id
from meshq.execution.model import Lease, Over
from meshq.execution.ring import keys
from meshq.execution.ring.shard import Held, Shard

__all__ = ["shard"]


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
    assert await shard.greet([("e-1/x-2", "default/w", b"first")], 60_000) == (0, ["e-1/x-1"])
    assert await shard.greet([("e-1/x-2", "default/w", b"first")], 60_000) == (0, [])
    assert await shard.greet([("e-1/x-3", "default/w", b"other start")], 60_000) == (1, [])
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
