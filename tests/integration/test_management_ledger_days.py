"""The days of the ledger: partitions by the day on which tasks leave, on a real PostgreSQL."""

import asyncio
import uuid

import psycopg
from fixtures.ledger import NOW, TODAY, connection, count, finish, ledger, of, task
from fixtures.partitions import refuse_moves

from meshq.management.model.retention import DAY_MS, leaving
from meshq.management.model.task import TaskFilter
from meshq.management.postgres.database import Database
from meshq.management.postgres.ledger import PostgresLedger
from meshq.management.postgres.sql import statement

__all__ = ["connection", "ledger"]


async def test_days_are_prepared_filled_and_dropped(
    ledger: PostgresLedger, connection: psycopg.AsyncConnection[tuple[object, ...]]
) -> None:
    days = [TODAY - 1, TODAY, TODAY + 7]
    assert len(await ledger.prepare_days(days)) == 3
    assert await ledger.prepare_days(days) == []
    items = [task(), task()]
    await ledger.insert([of(*items)], NOW)
    await ledger.finish([finish(items[0])._replace(end_ms=NOW - 8 * DAY_MS), finish(items[1])], NOW)
    assert await count(connection, "finished_tasks_default") == 0
    assert await ledger.strayed_days() == set()
    assert await ledger.drop_days(NOW - DAY_MS) == []
    assert len(await ledger.drop_days(NOW)) == 1
    assert await count(connection, "finished_tasks") == 1


async def test_what_ended_before_its_day_was_prepared_moves_into_it(
    ledger: PostgresLedger, connection: psycopg.AsyncConnection[tuple[object, ...]]
) -> None:
    items = [task(), task()]
    await ledger.insert([of(*items)], NOW)
    await ledger.finish([finish(items[0]), finish(items[1])._replace(end_ms=NOW + DAY_MS)], NOW)
    assert await count(connection, "finished_tasks_default") == 2
    assert await ledger.strayed_days() == {TODAY + 7, TODAY + 8}
    assert len(await ledger.prepare_days([TODAY + 6, TODAY + 7])) == 2
    assert await ledger.strayed_days() == {TODAY + 8}
    assert await count(connection, "finished_tasks_default") == 1
    assert await count(connection, "finished_tasks") == 2
    assert (await ledger.get_tasks([items[0].task_id], full=True))[items[0].task_id].ended
    # The day takes what comes later, and keeps its rows apart like any other.
    late = task()
    await ledger.insert([of(late)], NOW)
    await ledger.finish([finish(late)], NOW)
    assert await count(connection, "finished_tasks_default") == 1
    assert len(await ledger.drop_days(NOW + 8 * DAY_MS)) == 2
    assert await count(connection, "finished_tasks") == 1


async def test_what_is_too_much_to_be_moved_leaves_row_by_row(
    ledger: PostgresLedger, connection: psycopg.AsyncConnection[tuple[object, ...]]
) -> None:
    items = [task() for _ in range(4)]
    await ledger.insert([of(*items)], NOW)
    old = [finish(item)._replace(end_ms=NOW - 8 * DAY_MS) for item in items[:3]]
    await ledger.finish([*old, finish(items[3])], NOW)
    await refuse_moves(connection, "finished_tasks_default")
    assert await ledger.prepare_days([TODAY - 1, TODAY + 7]) == []
    assert [await ledger.drop_strayed(NOW, 2) for _ in range(3)] == [2, 1, 0]
    assert (await ledger.get_tasks([item.task_id for item in items], full=True)).keys() == {items[3].task_id}
    assert await count(connection, "finished_tasks_default") == 1


async def test_the_planner_looks_only_where_an_id_can_be(
    ledger: PostgresLedger, connection: psycopg.AsyncConnection[tuple[object, ...]]
) -> None:
    """Looking for a task in every day of a year would cost as much as all else."""
    await ledger.prepare_days(range(TODAY, TODAY + 370))
    item = task()
    await ledger.insert([of(item)], NOW)
    await ledger.finish([finish(item)], NOW)
    first, behind = leaving([item.task_id], NOW)
    query = statement("get").replace("%(ids)s", f"'{{{uuid.UUID(bytes=item.task_id)}}}'")
    bounds = {"%(full)s": "false", "%(first)s": str(first), "%(behind)s": str(behind)}
    for name, value in bounds.items():
        query = query.replace(name, value)
    plan = await (await connection.execute(f"EXPLAIN {query}")).fetchall()
    days = {word for (line,) in plan for word in str(line).split() if word.startswith("finished_tasks_2")}
    assert 1 <= len({day[:23] for day in days}) <= 2


async def test_what_has_left_is_not_shown_although_its_day_still_stands(
    database: str, ledger: PostgresLedger, connection: psycopg.AsyncConnection[tuple[object, ...]]
) -> None:
    items = [task(), task()]
    await ledger.insert([of(*items)], NOW)
    await ledger.finish([finish(items[0])._replace(end_ms=NOW - 7 * DAY_MS - 1), finish(items[1])], NOW)
    ids = [item.task_id for item in items]
    assert (await ledger.get_tasks(ids, full=True)).keys() == {items[1].task_id}
    assert [row.task_id for row in await ledger.list_tasks(TaskFilter("default"), None, 5)] == ids[1:]
    assert not await ledger.delete(ids[0], NOW)
    assert await count(connection, "finished_tasks") == 2
    pools = Database(database, writers=1, readers=1)
    await pools.start()
    later = PostgresLedger(pools, lambda: NOW + 7 * DAY_MS + 1)
    assert await later.get_tasks(ids, full=True) == {}
    await pools.stop()


async def test_instances_that_start_together_prepare_the_same_days(database: str) -> None:
    pools = [Database(database, writers=2, readers=1) for _ in range(4)]
    for one in pools:
        await one.start()
    ledgers = [PostgresLedger(one) for one in pools]
    try:
        for week in range(20):
            days = range(week * 7, week * 7 + 7)
            created = await asyncio.gather(*(one.prepare_days(days) for one in ledgers))
            assert len({name for names in created for name in names}) == 7
    finally:
        for one in pools:
            await one.stop()
