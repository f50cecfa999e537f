"""The ledger on a real PostgreSQL, below all use cases."""

import asyncio

import psycopg
import pytest
from fixtures.ledger import NOW, SPEC, connection, count, finish, ledger, of, queues, task
from prometheus_client import REGISTRY

from meshq.contract.errors import InternalError
from meshq.contract.ids import lowest_id
from meshq.management.ledger import Inserted, RowsRefused
from meshq.management.model.claims import Claim
from meshq.management.model.reports import Finish, Retry, Start, Wish
from meshq.management.model.states import State
from meshq.management.model.task import NO_ID, PART_BYTES, TaskFilter, is_cut
from meshq.management.postgres.database import Database, LedgerConnection, durability
from meshq.management.postgres.ledger import PostgresLedger
from meshq.management.postgres.queues import PostgresQueues
from meshq.mesh.postgres.migrate import migrate, migrations

__all__ = ["connection", "ledger", "queues"]
PACKAGE = "meshq.management.postgres"


async def test_migrations_are_applied_once(database: str) -> None:
    first = Database(database, writers=1, readers=1)
    second = Database(database, writers=1, readers=1)
    await asyncio.gather(first.start(), second.start())
    await first.start()
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        assert await migrate(connection, PACKAGE) == []
        assert await count(connection, "migrations") == len(migrations(PACKAGE))
    await first.stop()
    await second.stop()


async def test_the_level_of_durability_is_a_metric(ledger: PostgresLedger) -> None:
    # The server of the tests does not flush.
    del ledger
    assert REGISTRY.get_sample_value("meshq_ledger_durable") == 0


async def test_a_ledger_that_is_newer_than_the_code_is_refused(database: str) -> None:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        await migrate(connection, PACKAGE)
        await connection.execute("INSERT INTO migrations VALUES (9999, 'from the future')")
    with pytest.raises(InternalError, match="9999"):
        await Database(database, writers=1, readers=1).start()


async def test_what_is_inserted_is_read_back(ledger: PostgresLedger) -> None:
    items = [task(queue="a"), task(queue="b", type="other")]
    assert await ledger.insert([of(*items)], NOW) == Inserted(frozenset(), repeat=False)
    rows = await ledger.get_tasks([item.task_id for item in items] + [NO_ID], full=True)
    assert rows.keys() == {item.task_id for item in items}
    row = rows[items[1].task_id]
    assert (row.queue, row.type, row.state, row.attempt, row.max_attempts) == ("b", "other", 3, 1, 3)
    assert (row.ready_ms, row.spec, row.end_ms, row.ended) == (NOW, SPEC, None, False)
    basic = await ledger.get_tasks([items[0].task_id], full=False)
    assert basic[items[0].task_id].spec is None


async def test_specifications_are_read_as_far_as_they_are_wanted(ledger: PostgresLedger) -> None:
    items = [task()._replace(spec=bytes([number]) * 100) for number in range(4)]
    await ledger.insert([of(*items)], NOW)
    await ledger.finish([finish(items[1])], NOW)
    ids = [item.task_id for item in items]
    specs = {item.task_id: item.spec for item in items}
    assert await ledger.specs([NO_ID, *ids[::-1], NO_ID], 401) == (specs, 6)
    # The one that exceeds the bytes is the last; a task that is named twice counts twice.
    assert await ledger.specs([NO_ID, *ids], 201) == ({id_: specs[id_] for id_ in ids[:3]}, 4)
    assert await ledger.specs([ids[0], ids[0], ids[1]], 200) == ({ids[0]: specs[ids[0]]}, 2)
    assert await ledger.specs(ids, 1) == ({ids[0]: specs[ids[0]]}, 1)
    assert await ledger.specs([NO_ID], 1) == ({}, 1)


async def test_a_claim_is_won_once(ledger: PostgresLedger) -> None:
    mine, theirs = task(), task()
    assert (await ledger.insert([of(mine, claim="c")], NOW)).won == {"c"}
    assert (await ledger.insert([of(theirs, claim="c"), of(task())], NOW)).won == frozenset()
    assert (await ledger.claims(["c", "unknown"])).keys() == {"c"}
    assert (await ledger.claims(["c"]))["c"] == Claim("c", 1, mine.task_id)
    assert (await ledger.get_tasks([mine.task_id, theirs.task_id], full=False)).keys() == {mine.task_id}
    assert await ledger.open_count() == 2


async def test_of_two_ledgers_that_race_for_a_claim_one_wins(ledger: PostgresLedger, database: str) -> None:
    pools = Database(database, writers=3, readers=1)
    await pools.start()
    other = PostgresLedger(pools)
    names = [f"c{number}" for number in range(40)]

    async def submit(target: PostgresLedger, order: list[str]) -> list[str]:
        return [
            name
            for name in order
            for won in [
                (await target.insert([of(task(), claim=name), of(task(), claim="x" + name)], NOW)).won
            ]
            if name in won
        ]

    won = await asyncio.gather(submit(ledger, names), submit(other, names), submit(other, names[::-1]))
    assert sorted(name for group in won for name in group) == sorted(names)
    assert await ledger.open_count() == 2 * len(names)
    await pools.stop()


async def test_a_bad_row_refuses_the_group(
    ledger: PostgresLedger, connection: psycopg.AsyncConnection[tuple[object, ...]]
) -> None:
    await connection.execute("ALTER TABLE open_tasks ADD CHECK (type <> 'bad')")
    good, bad = task(), task(type="bad")
    with pytest.raises(RowsRefused):
        await ledger.insert([of(good), of(bad)], NOW)
    assert await count(connection, "open_tasks") == 0


async def test_a_submission_is_stored_without_its_bad_rows(
    ledger: PostgresLedger, connection: psycopg.AsyncConnection[tuple[object, ...]]
) -> None:
    await connection.execute("ALTER TABLE open_tasks ADD CHECK (type <> 'bad')")
    items = [task(type="bad" if number in {3, 7} else "t") for number in range(10)]
    inserted, refused = await ledger.insert_apart(of(*items, claim="c"), NOW)
    assert inserted.won == {"c"}
    assert refused == {items[3].task_id, items[7].task_id}
    assert await count(connection, "open_tasks") == 8
    assert await ledger.open_count() == 8
    stored = (await ledger.claims(["c"]))["c"].answers
    assert [n for n in range(10) if stored[16 * n : 16 * n + 16] == NO_ID] == [3, 7]
    again, _ = await ledger.insert_apart(of(*items, claim="c"), NOW)
    assert again.won == frozenset()
    assert await ledger.open_count() == 8


async def test_of_two_reports_that_race_one_ends_the_task(
    ledger: PostgresLedger, queues: PostgresQueues
) -> None:
    items = [task() for _ in range(50)]
    await ledger.insert([of(*items)], NOW)
    succeeded, failed = await asyncio.gather(
        ledger.finish([finish(item) for item in items], NOW),
        ledger.finish([finish(item, State.FAILED) for item in items[::-1]], NOW),
    )
    ended = {row.task_id: row.state for row in succeeded + failed}
    assert len(succeeded) + len(failed) == len(ended) == 50
    rows = await ledger.get_tasks([item.task_id for item in items], full=True)
    assert {row.task_id: row.state for row in rows.values()} == ended
    assert all(row.spec == SPEC and row.worker_id == "w" for row in rows.values())
    (queue,) = await queues.page("default", "", 9, NOW)
    assert (queue.created, queue.succeeded + queue.failed) == (50, 50)


async def test_only_the_current_attempt_ends_a_task(ledger: PostgresLedger) -> None:
    item = task()
    await ledger.insert([of(item)], NOW)
    assert await ledger.finish([finish(item, attempt=2)], NOW) == []
    (changed,) = await ledger.retry([Retry(item.task_id, 1, 2, State.PENDING, NOW + 9, "LOST", "m")], NOW)
    assert (changed.attempt, changed.state, changed.ready_ms, changed.error_type) == (2, 3, NOW + 9, "LOST")
    assert await ledger.retry([Retry(item.task_id, 1, 2, State.PENDING, NOW, "", "")], NOW) == []
    (row,) = await ledger.finish([finish(item, attempt=2)], NOW)
    assert (row.state, row.error_type, row.end_ms) == (State.SUCCEEDED, None, NOW)


async def test_a_start_is_a_hint(ledger: PostgresLedger) -> None:
    item = task()
    await ledger.insert([of(item)], NOW)
    assert await ledger.start_attempts([Start(item.task_id, 2, NOW, "w")], NOW) == []
    (row,) = await ledger.start_attempts([Start(item.task_id, 1, NOW + 1, "w")], NOW)
    assert (row.state, row.start_ms, row.worker_id) == (State.RUNNING, NOW + 1, "w")
    assert await ledger.start_attempts([Start(item.task_id, 1, NOW + 2, "x")], NOW) == []
    (ended,) = await ledger.finish([Finish(item.task_id, 1, State.CANCELLED, 0, NOW)], NOW)
    assert (ended.start_ms, ended.worker_id) == (NOW + 1, "w")


async def test_the_first_wish_to_cancel_stands(ledger: PostgresLedger) -> None:
    item = task()
    await ledger.insert([of(item)], NOW)
    ((row, before),) = await ledger.cancel([Wish(item.task_id, "why")], NOW + 5)
    assert (row.state, row.cancel_reason, row.cancel_ms, before) == (6, "why", NOW + 5, State.PENDING)
    assert await ledger.cancel([Wish(item.task_id, "again"), Wish(NO_ID, "unknown")], NOW + 6) == []
    assert await ledger.retry([Retry(item.task_id, 1, 2, State.PENDING, NOW, "", "")], NOW) == []
    assert await ledger.start_attempts([Start(item.task_id, 1, NOW, "w")], NOW) == []
    (open_,) = await ledger.cancelling(NO_ID, NOW + 5, 10)
    assert (open_.task_id, open_.cancel_reason) == (item.task_id, "why")
    assert await ledger.cancelling(NO_ID, NOW + 4, 10) == []
    assert await ledger.cancelling(item.task_id, NOW + 5, 10) == []


async def test_a_task_that_is_being_moved_is_never_missing(ledger: PostgresLedger) -> None:
    items = [task() for _ in range(200)]
    await ledger.insert([of(*items)], NOW)
    ids = [item.task_id for item in items]
    done = asyncio.Event()

    async def read() -> None:
        while not done.is_set():
            assert len(await ledger.get_tasks(ids, full=False)) == 200
            page = await ledger.list_tasks(TaskFilter("default"), None, 1_000)
            assert len(page) == 200

    readers = [asyncio.create_task(read()) for _ in range(2)]
    for item in items:
        await ledger.finish([finish(item)], NOW)
    done.set()
    await asyncio.gather(*readers)


async def test_pages_are_stable_while_tasks_come_and_end(ledger: PostgresLedger) -> None:
    items = [task() for _ in range(25)]
    await ledger.insert([of(*items)], NOW)
    await ledger.finish([finish(item) for item in items[::2]], NOW)
    seen: list[bytes] = []
    before = None
    while page := await ledger.list_tasks(TaskFilter("default"), before, 7):
        seen += [row.task_id for row in page]
        before = seen[-1]
        await ledger.insert([of(task(), task())], NOW)
        await ledger.finish([finish(items[len(seen) % 25])], NOW)
    assert seen == sorted((item.task_id for item in items), reverse=True)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (TaskFilter("default", queue="a"), {0, 2}),
        (TaskFilter("default", type="u"), {1, 2}),
        (TaskFilter("default", states=(State.SUCCEEDED,)), {2}),
        (TaskFilter("default", states=(State.SUCCEEDED, State.PENDING), queue="a"), {0, 2}),
        (TaskFilter("default", states=(State.FAILED,)), set()),
        (TaskFilter("other"), set()),
        (TaskFilter("default", max_create_ms=0), set()),
        (TaskFilter("default", min_create_ms=0), {0, 1, 2}),
    ],
)
async def test_all_filters_must_hold(ledger: PostgresLedger, wanted: TaskFilter, expected: set[int]) -> None:
    items = [task(queue="a"), task(queue="b", type="u"), task(queue="a", type="u")]
    await ledger.insert([of(*items)], NOW)
    await ledger.finish([finish(items[2])], NOW)
    found = {row.task_id for row in await ledger.list_tasks(wanted, None, 10)}
    assert found == {items[index].task_id for index in expected}


async def test_queues_are_counted_over_all_writers(
    ledger: PostgresLedger, queues: PostgresQueues, database: str
) -> None:
    pools = Database(database, writers=2, readers=1)
    await pools.start()
    other = PostgresLedger(pools)
    items = [task(queue=name) for name in ("a", "b", "a")]
    await ledger.insert([of(items[0], items[1])], NOW)
    await other.insert([of(items[2])], NOW)
    await asyncio.gather(*(other.finish([finish(item, State.CANCELLED)], NOW) for item in items[:2]))
    first, second = await queues.page("default", "", 5, NOW)
    assert (first.name, first.created, first.cancelled, first.open) == ("a", 2, 1, 1)
    assert (second.name, second.created, second.cancelled, second.open) == ("b", 1, 1, 0)
    assert first.arrival_rate == pytest.approx(2 / 60, rel=0.01)
    assert [item.name for item in await queues.page("default", "a", 5, NOW)] == ["b"]
    assert [item.name for item in await queues.named("default", ["b", "none"], NOW)] == ["b"]
    later = await queues.page("default", "", 1, NOW + 60_000)
    assert later[0].arrival_rate == pytest.approx(2 / 60 / 2.718, rel=0.01)
    assert (await queues.page("default", "", 1, NOW + 10**12))[0].arrival_rate == 0
    await pools.stop()


async def test_rates_survive_long_silence(ledger: PostgresLedger, queues: PostgresQueues) -> None:
    now_ms = NOW
    for _ in range(30):
        await ledger.insert([of(task())], now_ms)
        now_ms += 3_600_000
    (queue,) = await queues.page("default", "", 1, now_ms)
    assert (queue.created, queue.completion_rate) == (30, 0)


async def test_each_writing_connection_has_a_slot_of_its_own(
    ledger: PostgresLedger, connection: psycopg.AsyncConnection[tuple[object, ...]]
) -> None:
    for _ in range(10):
        await asyncio.gather(*(ledger.insert([of(task())], NOW) for _ in range(6)))
    cursor = await connection.execute("SELECT count(DISTINCT slot), sum(created) FROM queue_counters")
    assert await cursor.fetchone() in {(slots, 60) for slots in (1, 2, 3)}


async def test_no_single_task_is_planned_for(database: str) -> None:
    pools = Database(database, writers=1, readers=1)
    await pools.start()
    ledger = PostgresLedger(pools)
    for _ in range(8):
        item = task()
        await ledger.insert([of(item, claim=item.task_id.hex())], NOW)
        await ledger.finish([finish(item)], NOW)

    async def custom_plans(connection: LedgerConnection) -> list[str]:
        cursor = await connection.execute(
            "SELECT statement FROM pg_prepared_statements WHERE custom_plans > 0"
        )
        return [statement for (statement,) in await cursor.fetchall()]

    assert await pools.run(custom_plans) == []
    await pools.stop()


async def test_the_sweep_sees_what_is_open_untouched_and_due(ledger: PostgresLedger) -> None:
    items = [task(), task(state=State.WAITING), task(ready_ms=NOW + 10**9, state=State.SCHEDULED), task()]
    await ledger.insert([of(*items)], NOW)
    await ledger.cancel([Wish(items[3].task_id, "")], NOW)
    made_ms = int.from_bytes(items[-1].task_id[:6], "big") + 1
    found = await ledger.untouched(NO_ID, max(made_ms, NOW), NOW + 1, 10)
    assert [item.task_id for item in found] == [items[0].task_id]
    assert await ledger.untouched(items[0].task_id, made_ms, NOW + 1, 10) == []
    assert await ledger.untouched(NO_ID, NOW - 60_000, NOW + 1, 10) == []
    assert await ledger.untouched(NO_ID, made_ms, NOW - 10, 10) == []
    attempts = [(item.task_id, 1) for item in items]
    (sendable,) = [s for s in await ledger.sendables(attempts) if s.task_id == items[0].task_id]
    assert (sendable.attempt, sendable.repeat, sendable.spec, sendable.queue) == (1, True, SPEC, "q")
    assert {s.task_id for s in await ledger.sendables(attempts)} == {items[0].task_id, items[2].task_id}
    assert await ledger.sendables([(items[0].task_id, 2)]) == []


async def test_the_promoter_sees_what_comes_near(ledger: PostgresLedger) -> None:
    items = [task(ready_ms=NOW + offset, state=State.SCHEDULED) for offset in (30, 10, 20)]
    await ledger.insert([of(*items, task())], NOW)
    assert (await ledger.outlook("o", NOW)).due_ms == NOW + 10
    assert (await ledger.outlook("o", NOW + 30)).due_ms is None
    first = await ledger.due((NOW, NO_ID), NOW + 20, 10)
    assert [item.ready_ms - NOW for item in first] == [10, 20]
    rest = await ledger.due((first[-1].ready_ms, first[-1].task_id), NOW + 99, 10)
    assert [item.task_id for item in rest] == [items[0].task_id]


async def test_deleting_leaves_word_for_execution(ledger: PostgresLedger) -> None:
    item, other = task(), task()
    await ledger.insert([of(item, other)], NOW)
    assert not await ledger.delete(item.task_id, NOW)
    await ledger.finish([finish(item)], NOW)
    assert await ledger.delete(item.task_id, NOW)
    assert not await ledger.delete(item.task_id, NOW)
    assert await ledger.deletions(10) == [item.task_id]
    await ledger.forget_deletions([item.task_id])
    assert await ledger.deletions(10) == []


async def test_claims_expire_by_age(ledger: PostgresLedger) -> None:
    for age in range(5):
        await ledger.insert([of(task(), claim=f"c{age}")], NOW - age)
    assert await ledger.expire_claims(NOW - 1, 2) == 2
    assert await ledger.expire_claims(NOW - 1, 2) == 1
    assert (await ledger.claims([f"c{age}" for age in range(5)])).keys() == {"c0", "c1"}


async def test_word_for_the_sweeper_is_kept(ledger: PostgresLedger) -> None:
    assert (await ledger.outlook("o", 0)).sweep_ms == 0
    await ledger.request_sweep(NOW)
    await ledger.request_sweep(NOW - 5)
    assert (await ledger.outlook("o", 0)).sweep_ms == NOW


async def test_an_id_range_is_the_time_of_creation(ledger: PostgresLedger) -> None:
    item = task()
    await ledger.insert([of(item)], NOW)
    made_ms = int.from_bytes(item.task_id[:6], "big")
    assert lowest_id(made_ms).bytes <= item.task_id < lowest_id(made_ms + 1).bytes
    inside = TaskFilter("default", min_create_ms=made_ms, max_create_ms=made_ms + 1)
    outside = TaskFilter("default", min_create_ms=made_ms + 1)
    assert len(await ledger.list_tasks(inside, None, 5)) == 1
    assert await ledger.list_tasks(outside, None, 5) == []


@pytest.mark.parametrize(
    ("found", "sound"),
    [((True, "", 0), True), ((True, "", 1), False), ((True, "*", 1), True), ((False, "*", 1), False)],
)
def test_durability_is_what_the_settings_amount_to(found: tuple[bool, str, int], sound: bool) -> None:
    assert durability(*found).sound is sound


async def test_what_is_dispatched_again_is_read_in_parts(ledger: PostgresLedger) -> None:
    size = 1 << 20
    count = 3 * PART_BYTES // size // 2
    waiting = [task(ready_ms=NOW + 1 + number, state=State.SCHEDULED) for number in range(count)]
    large = [item._replace(spec=b"s" * size) for item in (*waiting, *(task() for _ in range(count)))]
    for item in large:
        await ledger.insert([of(item)], NOW)
    attempts = [(item.task_id, 1) for item in large[count:]]
    part = await ledger.sendables(attempts)
    assert [(item.task_id, item.attempt) for item in part] == attempts[: PART_BYTES // size]
    assert is_cut(part)
    rest = await ledger.sendables(attempts[len(part) :])
    assert len(part) + len(rest) == count
    assert not is_cut(rest)
    near = await ledger.due((NOW, NO_ID), NOW + 1_000, 1_000)
    assert [item.task_id for item in near] == [item.task_id for item in waiting][: PART_BYTES // size]
