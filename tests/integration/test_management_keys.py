"""Unique keys, and the order of tasks with the same ordering key, on a real PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import count, pairwise

import psycopg
import pytest

from meshq.contract.ids import new_task_id
from meshq.management.model.chains import ChainKey
from meshq.management.model.claims import Answer, Claim, Submission, Verdict, decoded_answers
from meshq.management.model.reports import Finish, Start
from meshq.management.model.states import State
from meshq.management.model.task import NewTask, Special, TaskId, Unique
from meshq.management.model.uniqueness import Policy, Scope
from meshq.management.postgres.database import Database
from meshq.management.postgres.ledger import PostgresLedger

NOW = int(time.time() * 1_000)
DAY = 86_400_000
CHAIN = ChainKey("default", "q", "k")
FIRST = ChainKey("", "", "")
Connection = psycopg.AsyncConnection[tuple[object, ...]]


def task(special: Special | None = None, *, ready_ms: int = NOW, state: State = State.PENDING) -> NewTask:
    return NewTask(new_task_id().bytes, "default", "q", "t", state, 3, ready_ms, b"spec", special=special)


def unique(
    key: str = "u",
    policy: Policy = Policy.RETURN_EXISTING,
    scope: Scope = Scope.UNTIL_FINISHED,
    until_ms: int | None = None,
) -> NewTask:
    return task(Special(traits=b"t", unique=Unique(key, scope, policy, until_ms)))


def ordered(key: str = "k", **more: int) -> NewTask:
    return task(Special(traits=b"t", ordering_key=key), **more)  # type: ignore[arg-type]


def of(*tasks: NewTask, claim: str = "") -> Submission:
    ids = b"".join(item.task_id for item in tasks)
    return Submission(list(tasks), Claim(claim, 1, ids, len(tasks)) if claim else None, 0)


def end(task_id: TaskId, state: State = State.SUCCEEDED) -> Finish:
    return Finish(task_id, 1, state, NOW, NOW)


@pytest.fixture
async def ledgers(database: str) -> AsyncIterator[list[PostgresLedger]]:
    """Two, each with connections of its own, as two instances have them."""
    pools = [Database(database, writers=5, readers=2) for _ in range(2)]
    for pool in pools:
        await pool.start()
    yield [PostgresLedger(pool) for pool in pools]
    for pool in pools:
        await pool.stop()


@pytest.fixture
def ledger(ledgers: list[PostgresLedger]) -> PostgresLedger:
    return ledgers[0]


async def states(ledger: PostgresLedger, *tasks: NewTask) -> list[int | None]:
    rows = await ledger.get_tasks([item.task_id for item in tasks], full=False)
    return [rows[item.task_id].state if item.task_id in rows else None for item in tasks]


async def test_the_columns_of_a_special_task_are_kept(ledger: PostgresLedger) -> None:
    special = Special(
        traits=b"traits",
        priority=7,
        fairness_key="f",
        announce_start=True,
        start_by_ms=NOW + 1,
        close_by_ms=NOW + 2,
        labels=["a=b", 'c="\\,{}', "d="],
        redriven_from=new_task_id().bytes,
    )
    item, plain = task(special), task()
    await ledger.insert([of(item, plain)], NOW)
    rows = await ledger.get_tasks([item.task_id, plain.task_id], full=True)
    row = rows[item.task_id]
    assert (row.labels, row.redriven_from, row.traits) == (special.labels, special.redriven_from, b"traits")
    (sendable,) = await ledger.sendables([(item.task_id, 1)])
    assert (sendable.priority, sendable.fairness_key, sendable.announce_start) == (7, "f", True)
    assert (sendable.start_by_ms, sendable.traits, sendable.started) == (NOW + 1, b"traits", False)
    assert rows[plain.task_id].traits is None
    await ledger.finish([end(item.task_id)], NOW)
    ended = (await ledger.get_tasks([item.task_id], full=True))[item.task_id]
    assert (ended.labels, ended.redriven_from, ended.traits) == (row.labels, row.redriven_from, row.traits)


async def test_a_key_is_held_until_the_task_has_ended(ledger: PostgresLedger) -> None:
    first, second, third = unique(), unique(), unique()
    assert (await ledger.insert_keyed([of(first)], NOW)).others == {}
    inserted = await ledger.insert_keyed([of(second)], NOW)
    assert inserted.others == {second.task_id: Answer(first.task_id, Verdict.EXISTING)}
    await ledger.finish([end(first.task_id)], NOW)
    assert (await ledger.insert_keyed([of(third)], NOW)).others == {}
    assert await states(ledger, first, second, third) == [State.SUCCEEDED, None, State.PENDING]


async def test_a_key_is_of_its_queue(ledger: PostgresLedger) -> None:
    first, other = unique(), unique()._replace(queue="other")
    assert (await ledger.insert_keyed([of(first, other)], NOW)).others == {}


async def test_a_task_may_be_rejected(ledger: PostgresLedger) -> None:
    first, second = unique(), unique(policy=Policy.REJECT)
    inserted = await ledger.insert_keyed([of(first), of(second)], NOW)
    assert inserted.others == {second.task_id: Answer(first.task_id, Verdict.TAKEN)}


async def test_a_key_may_be_let_go_at_the_start(ledger: PostgresLedger) -> None:
    first, second, third = (unique(scope=Scope.UNTIL_STARTED) for _ in range(3))
    await ledger.insert_keyed([of(first)], NOW)
    assert (await ledger.insert_keyed([of(second)], NOW)).others
    (row,) = await ledger.start_attempts([Start(first.task_id, 1, NOW, "w")], NOW)
    assert row.state == State.RUNNING
    assert (await ledger.insert_keyed([of(third)], NOW)).others == {}
    # The start of an earlier holder is nothing to the present one.
    assert await ledger.start_attempts([Start(first.task_id, 1, NOW, "w")], NOW) == []
    assert (await ledger.insert_keyed([of(second)], NOW)).others


async def test_a_window_stays_closed_when_the_task_has_ended(ledger: PostgresLedger) -> None:
    first, second, third = (unique(scope=Scope.WINDOW, until_ms=NOW + 100) for _ in range(3))
    await ledger.insert_keyed([of(first)], NOW)
    await ledger.finish([end(first.task_id)], NOW)
    inserted = await ledger.insert_keyed([of(second)], NOW + 99)
    assert inserted.others == {second.task_id: Answer(first.task_id, Verdict.EXISTING)}
    assert (await ledger.insert_keyed([of(third)], NOW + 100)).others == {}


async def test_a_window_is_over_when_the_task_is_gone(ledger: PostgresLedger) -> None:
    def windowed(key: str) -> NewTask:
        return unique(key, scope=Scope.WINDOW, until_ms=NOW + 30 * DAY)

    deleted, expired = windowed("a"), windowed("b")
    await ledger.insert_keyed([of(deleted, expired)], NOW)
    await ledger.finish([end(deleted.task_id), end(expired.task_id)], NOW)
    assert await ledger.delete(deleted.task_id, NOW)
    heir, other, late, last = windowed("a"), windowed("b"), windowed("b"), windowed("a")
    inserted = await ledger.insert_keyed([of(heir, other)], NOW)
    assert inserted.others == {other.task_id: Answer(expired.task_id, Verdict.EXISTING)}
    # Ended tasks are kept for seven days.
    assert (await ledger.insert_keyed([of(late)], NOW + 8 * DAY)).others == {}
    inserted = await ledger.insert_keyed([of(last)], NOW + 8 * DAY)
    assert inserted.others == {last.task_id: Answer(heir.task_id, Verdict.EXISTING)}


async def test_a_window_may_reject_and_be_replaced(ledger: PostgresLedger) -> None:
    def windowed(policy: Policy) -> NewTask:
        return unique(policy=policy, scope=Scope.WINDOW, until_ms=NOW + 100)

    first, rejected, heir, last = map(
        windowed, (Policy.REJECT, Policy.REJECT, Policy.REPLACE, Policy.REPLACE)
    )
    await ledger.insert_keyed([of(first)], NOW)
    for _ in range(2):
        inserted = await ledger.insert_keyed([of(rejected)], NOW)
        assert inserted.others == {rejected.task_id: Answer(first.task_id, Verdict.TAKEN)}
        await ledger.finish([end(first.task_id)], NOW)
    # What has ended needs no cancelling; what is open does.
    inserted = await ledger.insert_keyed([of(heir)], NOW)
    assert (inserted.others, inserted.replaced) == ({}, [])
    inserted = await ledger.insert_keyed([of(rejected)], NOW)
    assert inserted.others == {rejected.task_id: Answer(heir.task_id, Verdict.TAKEN)}
    inserted = await ledger.insert_keyed([of(last)], NOW)
    assert [row.task_id for row, _ in inserted.replaced] == [heir.task_id]
    assert await states(ledger, first, heir, last) == [State.SUCCEEDED, State.CANCELLING, State.PENDING]


async def test_a_task_may_take_the_place_of_another(ledger: PostgresLedger) -> None:
    first, second, third = (unique(policy=Policy.REPLACE) for _ in range(3))
    assert (await ledger.insert_keyed([of(first)], NOW)).replaced == []
    # The second is replaced by the third within one transaction.
    inserted = await ledger.insert_keyed([of(second, third)], NOW)
    assert inserted.others == {}
    assert {row.task_id for row, _ in inserted.replaced} == {first.task_id, second.task_id}
    assert await states(ledger, first, second, third) == [State.CANCELLING, State.CANCELLING, State.PENDING]
    (row, before) = inserted.replaced[0]
    assert before == State.PENDING
    assert row.cancel_reason is not None
    assert row.cancel_reason.startswith("replaced by ")
    assert (await ledger.insert_keyed([of(unique(policy=Policy.REJECT))], NOW)).others


async def test_a_claim_keeps_what_was_answered(ledger: PostgresLedger) -> None:
    first, second, third = unique(), unique(), unique(policy=Policy.REJECT)
    await ledger.insert_keyed([of(first)], NOW)
    plain = task()
    inserted = await ledger.insert_keyed([of(second, plain, third, claim="c")], NOW)
    assert inserted.won == {"c"}
    kept = (await ledger.claims(["c"]))["c"].answers
    assert decoded_answers(kept, 3) == [
        Answer(first.task_id, Verdict.EXISTING),
        Answer(plain.task_id),
        Answer(first.task_id, Verdict.TAKEN),
    ]
    assert (await ledger.insert_keyed([of(unique("v"), claim="c")], NOW)).won == frozenset()
    assert await ledger.open_count() == 2


async def test_of_many_that_want_a_key_at_once_one_gets_it(ledgers: list[PostgresLedger]) -> None:
    for _ in range(20):
        tasks = [unique() for _ in range(16)]
        inserted = await asyncio.gather(
            *(ledgers[number % 2].insert_keyed([of(item)], NOW) for number, item in enumerate(tasks))
        )
        others = [answer.task_id for item in inserted for answer in item.others.values()]
        assert len(others) == 15
        (holder,) = set(others)
        await ledgers[0].finish([end(holder)], NOW)


async def test_of_many_that_replace_each_other_one_stays(ledgers: list[PostgresLedger]) -> None:
    tasks = [unique(policy=Policy.REPLACE) for _ in range(40)]
    inserted = await asyncio.gather(
        *(ledgers[number % 2].insert_keyed([of(item)], NOW) for number, item in enumerate(tasks))
    )
    assert sum(len(item.replaced) for item in inserted) == 39
    assert (await states(ledgers[0], *tasks)).count(State.PENDING) == 1


async def test_groups_that_want_the_same_keys_in_any_order_do_not_block(
    ledgers: list[PostgresLedger],
) -> None:
    async def write(ledger: PostgresLedger, keys: list[str]) -> None:
        for _ in range(10):
            special = [Special(traits=b"t", unique=Unique(f"u{key}", 2, 3), ordering_key=key) for key in keys]
            await ledger.insert_keyed([of(*map(task, special))], NOW)

    keys = [str(number) for number in range(20)]
    await asyncio.gather(*(write(ledgers[n % 2], keys[:: (-1) ** n]) for n in range(6)))


async def test_a_task_waits_for_the_one_before(ledger: PostgresLedger) -> None:
    first, second, third = ordered(), ordered(), ordered(ready_ms=NOW + 9**9)
    assert (await ledger.insert_keyed([of(first, second)], NOW)).waiting == {second.task_id}
    assert (await ledger.insert_keyed([of(third)], NOW)).waiting == {third.task_id}
    assert await states(ledger, first, second, third) == [State.PENDING, State.WAITING, State.WAITING]
    assert await ledger.release([CHAIN], NOW) == []
    (ended,) = await ledger.finish([end(first.task_id)], NOW)
    assert ended.chain == CHAIN
    ((row, sendable),) = await ledger.release([CHAIN], NOW + 5)
    assert (row.task_id, row.state, row.ready_ms) == (second.task_id, State.PENDING, NOW + 5)
    assert (sendable.task_id, sendable.attempt, sendable.spec, sendable.repeat) == (
        second.task_id,
        1,
        b"spec",
        False,
    )
    (group,) = await ledger.finish_quietly([end(second.task_id)], NOW)
    assert group == (State.SUCCEEDED, [second.task_id], 0, frozenset({CHAIN}))
    ((row, _),) = await ledger.release([CHAIN], NOW)
    assert (row.task_id, row.state, row.ready_ms) == (third.task_id, State.SCHEDULED, NOW + 9**9)


async def test_chains_are_apart_by_queue_and_key(ledger: PostgresLedger) -> None:
    tasks = [ordered("a"), ordered("b"), ordered("a")._replace(queue="other")]
    assert (await ledger.insert_keyed([of(*tasks)], NOW)).waiting == frozenset()


async def test_chains_that_nobody_released_are_found(ledger: PostgresLedger) -> None:
    keys = [f"k{number:02}" for number in range(30)]
    heads = [ordered(key) for key in keys]
    await ledger.insert_keyed([of(*heads), of(*(ordered(key) for key in keys))], NOW)
    await ledger.finish([end(head.task_id) for head in heads[::3]], NOW)
    found: list[str] = []
    after = FIRST
    while page := await ledger.chains(after, 7):
        after = page[-1][0]
        found += [item.key for item, waits in page if waits]
    assert found == keys[::3]
    released = await ledger.release([CHAIN._replace(key=key) for key in found], NOW)
    assert len(released) == 10
    assert [waits for _, waits in await ledger.chains(FIRST, 100)] == [False] * 30


async def test_the_order_of_making_is_the_order_of_starting(ledgers: list[PostgresLedger]) -> None:
    """Writers over two instances add to a chain while it is worked off, one task after the other."""
    started: list[TaskId] = []
    wanted = 300
    numbers = count()
    waiting: set[TaskId] = set()
    ready: asyncio.Queue[TaskId] = asyncio.Queue()

    async def create(ledger: PostgresLedger) -> None:
        while next(numbers) < wanted:
            item = ordered()
            inserted = await ledger.insert_keyed([of(item)], NOW)
            if inserted.waiting:
                waiting.add(item.task_id)
            else:
                ready.put_nowait(item.task_id)

    async def work() -> None:
        ledger = ledgers[1]
        while len(started) < wanted:
            task_id = await ready.get()
            started.append(task_id)
            assert ready.empty(), "two tasks of a chain are under way"
            assert len(await ledger.finish([end(task_id)], NOW)) == 1
            for row, _ in await ledger.release([CHAIN], NOW):
                ready.put_nowait(row.task_id)

    async with asyncio.timeout(30):
        await asyncio.gather(work(), *(create(ledgers[number % 2]) for number in range(8)))
    assert len(set(started)) == wanted
    assert waiting <= set(started)


async def test_a_long_chain_is_worked_off_in_its_order(ledger: PostgresLedger) -> None:
    tasks = [ordered() for _ in range(1_000)]
    await ledger.insert_keyed([of(*tasks)], NOW)
    for before, after in pairwise(tasks):
        await ledger.finish_quietly([end(before.task_id)], NOW)
        ((row, _),) = await ledger.release([CHAIN], NOW)
        assert row.task_id == after.task_id


async def test_keys_that_nobody_uses_are_forgotten(ledger: PostgresLedger, database: str) -> None:
    held = [unique("open"), unique("window", scope=Scope.WINDOW, until_ms=NOW + 1_000), ordered("open")]
    over = [unique("ended"), unique("past", scope=Scope.WINDOW, until_ms=NOW - 1_000), ordered("ended")]
    await ledger.insert_keyed([of(*held, *over)], NOW)
    await ledger.finish([end(item.task_id) for item in (held[1], *over)], NOW)
    after: ChainKey | None = FIRST
    while after:
        after = await ledger.forget_unique_keys(after, NOW, 3)
    after = FIRST
    while after:
        after = await ledger.forget_chains(after, 1)
    async with await psycopg.AsyncConnection.connect(database) as connection:
        cursor = await connection.execute("SELECT key FROM unique_keys ORDER BY key")
        assert [key for (key,) in await cursor.fetchall()] == ["open", "window"]
        cursor = await connection.execute("SELECT key FROM ordering_keys")
        assert [key for (key,) in await cursor.fetchall()] == ["open"]
    # The counter begins anew, which is nobody's matter.
    assert (await ledger.insert_keyed([of(ordered("ended"), ordered("open"))], NOW)).waiting


async def test_forgetting_and_taking_keys_at_once_loses_none(ledgers: list[PostgresLedger]) -> None:
    stop = asyncio.Event()

    async def forget() -> None:
        while not stop.is_set():
            await ledgers[0].forget_unique_keys(FIRST, NOW, 100)
            await ledgers[0].forget_chains(FIRST, 100)

    async def use() -> None:
        for _ in range(60):
            special = Special(traits=b"t", unique=Unique("u", 2, 1), ordering_key="k")
            first, second = task(special), task(special._replace(unique=Unique("v", 2, 1)))
            inserted = await ledgers[1].insert_keyed([of(first, second)], NOW)
            assert not inserted.others
            assert inserted.waiting == {second.task_id}
            again = await ledgers[1].insert_keyed([of(task(special))], NOW)
            assert again.others
            await ledgers[1].finish([end(first.task_id)], NOW)
            ((row, _),) = await ledgers[1].release([CHAIN], NOW)
            assert row.task_id == second.task_id
            await ledgers[1].finish([end(second.task_id)], NOW)
        stop.set()

    await asyncio.gather(forget(), use())
