"""The partitions of attempts on a real PostgreSQL: made for what is in use, dropped when tasks have left."""

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from fixtures.partitions import refuse_moves

from meshq.contract.errors import Reason, Unavailable
from meshq.contract.ids import lowest_id, new_task_id
from meshq.contract.limits import RETENTION_DAYS
from meshq.execution.model import Ended, Outcome
from meshq.execution.postgres import partitions
from meshq.execution.postgres.attempts import AttemptStore
from meshq.execution.postgres.database import Database
from meshq.execution.postgres.partitions import PartitionKeeper
from meshq.execution.postgres.sql import statement
from meshq.execution.spans import DAY_MS, Span
from meshq.mesh.postgres.migrate import migrate, migrations

PACKAGE = "meshq.execution.postgres"
# Long after every migration, so that all ids tell their retention.
START = (int(dt.datetime.now(dt.UTC).timestamp()) // 86_400 + 30) * DAY_MS


class World:
    """Management and the clock."""

    def __init__(self) -> None:
        self.now_ms = START
        self.held: list[bytes] = []
        self.silent = False
        self.asked = 0

    async def attempted(self, spans: Sequence[Span]) -> list[bool]:
        self.asked += len(spans)
        if self.silent:
            raise Unavailable("away", Reason.LEDGER_UNAVAILABLE)
        ranges = (span.ids() for span in spans)
        return [any(first <= task_id < behind for task_id in self.held) for first, behind in ranges]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def store(database: str) -> AsyncIterator[Database]:
    found = Database(database)
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def attempts(store: Database) -> AttemptStore:
    return AttemptStore(store)


@pytest.fixture
def keeper(store: Database, world: World) -> PartitionKeeper:
    return PartitionKeeper(store, world.attempted, lambda: world.now_ms)


@pytest.fixture
async def connection(
    database: str, store: Database
) -> AsyncIterator[psycopg.AsyncConnection[tuple[Any, ...]]]:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as found:
        yield found


def made(time_ms: int, retention: int = 7) -> bytes:
    """An id of a time and a retention."""
    return lowest_id(time_ms).bytes[:6] + new_task_id(RETENTION_DAYS.index(retention)).bytes[6:]


def end(task_id: bytes, attempt: int = 1, *, end_ms: int = START) -> Ended:
    return Ended(
        task_id, attempt, "default", Outcome.SUCCEEDED, 5, 1, "w", end_ms - 10, end_ms,
        b"result", None, "", "", "",
    )  # fmt: skip


async def tables(connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> dict[bytes, str]:
    """Where each task's attempts are."""
    cursor = await connection.execute("SELECT uuid_send(task_id), tableoid::regclass::text FROM attempts")
    return dict(await cursor.fetchall())


async def parts(connection: psycopg.AsyncConnection[tuple[Any, ...]], retention: int) -> list[str]:
    cursor = await connection.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass",
        [f"attempts_{retention}"],
    )
    return sorted(name for (name,) in await cursor.fetchall() if not name.endswith("default"))


def named(retention: int, time_ms: int) -> str:
    return f"attempts_{retention}_{dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC):%Y%m%d}"


async def test_the_days_of_the_default_retention_are_made_ahead(
    keeper: PartitionKeeper, attempts: AttemptStore, connection: psycopg.AsyncConnection[tuple[Any, ...]]
) -> None:
    await keeper.run_once()
    assert await parts(connection, 7) == [named(7, START + day * DAY_MS) for day in range(-1, 4)]
    for retention in (1, 30, 365):
        assert await parts(connection, retention) == []
    task_id = made(START)
    assert await attempts.insert([end(task_id)]) == 1
    assert await attempts.insert([end(task_id)]) == 0
    assert await tables(connection) == {task_id: named(7, START)}


async def test_a_retention_gets_its_days_once_it_is_used(
    keeper: PartitionKeeper,
    attempts: AttemptStore,
    world: World,
    connection: psycopg.AsyncConnection[tuple[Any, ...]],
) -> None:
    first = made(START, 30)
    await attempts.insert([end(first)])
    assert await tables(connection) == {first: "attempts_30_default"}
    await keeper.run_once()
    second = made(START + DAY_MS, 30)
    await attempts.insert([end(second), end(first, 2)])
    assert await tables(connection) == {first: named(30, START), second: named(30, START + DAY_MS)}
    assert [item.attempt for item in await attempts.list(first)] == [1, 2]
    # And no more of them once it is not.
    world.now_ms = START + 10 * DAY_MS
    await keeper.run_once()
    assert named(30, world.now_ms) not in await parts(connection, 30)


async def test_attempts_leave_a_day_after_their_tasks(
    keeper: PartitionKeeper,
    attempts: AttemptStore,
    world: World,
    connection: psycopg.AsyncConnection[tuple[Any, ...]],
) -> None:
    ids = {retention: made(START, retention) for retention in (1, 3, 7, 30)}
    await attempts.insert([end(task_id) for task_id in ids.values()])
    for days, left in (
        (2, {1, 3, 7, 30}),
        (3, {3, 7, 30}),
        (5, {7, 30}),
        (8, {7, 30}),
        (9, {30}),
        (32, set()),
    ):
        world.now_ms = START + days * DAY_MS
        await keeper.run_once()
        assert (await tables(connection)).keys() == {ids[item] for item in left}, days


async def test_a_partition_stays_for_the_latest_end_in_it(
    keeper: PartitionKeeper, attempts: AttemptStore, world: World
) -> None:
    early, late = made(START, 1), made(START, 1)
    await keeper.run_once()
    await attempts.insert([end(early), end(late, end_ms=START + 10 * DAY_MS)])
    world.now_ms = START + 12 * DAY_MS - 1
    await keeper.run_once()
    assert await attempts.ended([(early, 1), (late, 1)]) == {(early, 1), (late, 1)}
    world.now_ms = START + 12 * DAY_MS
    await keeper.run_once()
    assert await attempts.ended([(early, 1), (late, 1)]) == set()


async def test_nothing_goes_that_an_open_task_needs_or_while_management_is_silent(
    keeper: PartitionKeeper, attempts: AttemptStore, world: World
) -> None:
    needed, other = made(START), made(START + DAY_MS)
    await keeper.run_once()
    await attempts.insert([end(needed), end(other, end_ms=START + DAY_MS)])
    world.now_ms = START + 10 * DAY_MS
    world.silent = True
    await keeper.run_once()
    assert len(await attempts.ended([(needed, 1), (other, 1)])) == 2
    world.silent = False
    world.held = [needed]
    await keeper.run_once()
    assert await attempts.ended([(needed, 1), (other, 1)]) == {(needed, 1)}
    world.held = []
    await keeper.run_once()
    assert await attempts.ended([(needed, 1), (other, 1)]) == set()


async def test_management_is_not_asked_while_nothing_is_over(keeper: PartitionKeeper, world: World) -> None:
    await keeper.run_once()
    assert world.asked == 0


async def test_what_ended_where_no_partition_was_leaves_as_well(
    keeper: PartitionKeeper,
    attempts: AttemptStore,
    world: World,
    connection: psycopg.AsyncConnection[tuple[Any, ...]],
) -> None:
    """As after weeks in which nothing ran."""
    old = made(START - 40 * DAY_MS)
    await attempts.insert([end(old, end_ms=START)])
    await keeper.run_once()
    assert await tables(connection) == {old: named(7, START - 40 * DAY_MS)}
    world.now_ms = START + 8 * DAY_MS
    await keeper.run_once()
    assert await tables(connection) == {}


async def test_what_is_too_much_to_be_moved_leaves_all_the_same(
    keeper: PartitionKeeper,
    attempts: AttemptStore,
    world: World,
    connection: psycopg.AsyncConnection[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(partitions, "_ROWS_AT_A_TIME", 2)
    await refuse_moves(connection, "attempts_30_default")
    first, second = made(START, 30), made(START + DAY_MS, 30)
    await attempts.insert(
        [end(first, attempt) for attempt in (1, 2, 3)] + [end(second, end_ms=START + 5 * DAY_MS)]
    )
    world.held = [first]
    for days, left in ((31, {first, second}), (33, {first, second}), (35, {second}), (36, set())):
        world.now_ms = START + days * DAY_MS
        await keeper.run_once()
        assert await tables(connection) == dict.fromkeys(left, "attempts_30_default"), days
        if days > 32:
            world.held = []


async def test_deleted_tasks_leave_at_once(attempts: AttemptStore, keeper: PartitionKeeper) -> None:
    await keeper.run_once()
    ids = [made(START), made(START, 365)]
    await attempts.insert([end(task_id) for task_id in ids])
    await attempts.delete(ids)
    assert await attempts.ended([(task_id, 1) for task_id in ids]) == set()


async def test_statements_touch_only_the_partition_of_an_id(
    keeper: PartitionKeeper, attempts: AttemptStore, connection: psycopg.AsyncConnection[tuple[Any, ...]]
) -> None:
    ids = [made(START + day * DAY_MS, retention) for retention in RETENTION_DAYS for day in range(-1, 3)]
    await attempts.insert([end(task_id) for task_id in ids])
    await keeper.run_once()
    await connection.execute(
        "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"
    )
    query = b"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + statement("ended_attempts")
    wanted = [f"{{{ids[5].hex()}}}", "{1}"]
    plan = [line for (line,) in await (await connection.execute(query, wanted)).fetchall()]
    touched = [line for line in plan if "attempts_" in line and "never executed" not in line]
    assert len(touched) == 1, plan


async def test_attempts_from_before_are_carried_over(database: str, world: World) -> None:
    steps = [step for step in migrations(PACKAGE) if step.number < 3]
    day = START - 30 * DAY_MS
    ids = [made(day - age * DAY_MS, retention) for age in range(3) for retention in RETENTION_DAYS]
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        await connection.execute(
            "CREATE TABLE migrations (number int, name text, applied_time timestamptz DEFAULT now())"
        )
        for step in steps:
            await connection.execute(step.sql.encode())
            await connection.execute("INSERT INTO migrations VALUES (%s, %s)", [step.number, step.name])
        bounds = [lowest_id(time).hex for time in (day - DAY_MS, day, day + DAY_MS)]
        for number, (first, behind) in enumerate(pairwise(bounds)):
            await connection.execute(
                f"CREATE TABLE attempts_2026010{number} PARTITION OF attempts "
                f"FOR VALUES FROM ('{first}') TO ('{behind}')"
            )
        for task_id in ids:
            for attempt in (1, 2):
                await connection.execute(
                    "INSERT INTO attempts VALUES "
                    "(%s, %s, 2, 5, 1, 10, %s, 'default', 'w', '', 'why', 50, true)",
                    [task_id.hex(), attempt, day],
                )
        assert await migrate(connection, PACKAGE) == [step.name for step in migrations(PACKAGE)[2:]]
        where = await tables(connection)
        assert where.keys() == set(ids)
        assert not any(name.endswith("default") for name in where.values())
    store = Database(database)
    await store.start()
    attempts = AttemptStore(store)
    assert [item.attempt for item in await attempts.list(ids[0])] == [1, 2]
    found = (await attempts.get([(ids[3], 2)]))[(ids[3], 2)]
    assert (found.worker_id, found.error, found.retry_ms, found.non_retryable) == ("w", b"why", 50, True)
    # Their ids say nothing of a retention; the ledger keeps such tasks for the default one.
    keeper = PartitionKeeper(store, world.attempted, lambda: world.now_ms)
    world.now_ms = day + 6 * DAY_MS
    await keeper.run_once()
    keys = [(task_id, 1) for task_id in ids]
    assert await attempts.ended(keys) == set(keys)
    world.now_ms = day + 9 * DAY_MS
    await keeper.run_once()
    kept = {key for key in keys if RETENTION_DAYS[key[0][-1] & 7] > 7}
    assert await attempts.ended(keys) == kept
    await store.stop()
