"""Ends of attempts on a real PostgreSQL: the first one wins, and whatever is recorded is reported."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import psycopg
import pytest
from fixtures.execution import wait_until

from meshq.contract.errors import MeshqError, PreconditionFailed, Reason, Unavailable
from meshq.contract.ids import new_task_id
from meshq.execution.attempts.recorder import Recorder
from meshq.execution.conversion.results import lost, with_error_text
from meshq.execution.model import Ended, Lease, Outcome, Status
from meshq.execution.postgres.attempts import AttemptStore
from meshq.execution.postgres.database import Database
from meshq.execution.postgres.ring import RingTable
from meshq.execution.ring.hashring import Ring, RingShard
from meshq.local.servers import Postgres
from meshq.mesh.postgres.migrate import migrate, migrations

PACKAGE = "meshq.execution.postgres"


@pytest.fixture
async def store(database: str) -> AsyncIterator[Database]:
    found = Database(database)
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def attempts(store: Database) -> AttemptStore:
    return AttemptStore(store)


def end(task_id: bytes | None = None, attempt: int = 1, number: int = 1, **fields: object) -> Ended:
    ended = Ended(
        task_id or new_task_id().bytes, attempt, "default", Outcome.SUCCEEDED, 5, number, "w", 10, 20,
        b"result", None, "", "", "shard-1",
    )  # fmt: skip
    return ended._replace(**fields)  # type: ignore[arg-type]


class Reports:
    def __init__(self) -> None:
        self.full = False
        self.added: list[Ended] = []

    def add(self, ended: Ended) -> None:
        self.added.append(ended)


async def test_ends_are_read_as_they_were_written(attempts: AttemptStore) -> None:
    rows = [end() for _ in range(500)] + [end(success=None, error=b"error", outcome=Outcome.FAILED)]
    assert await attempts.insert(rows) == 501
    assert await attempts.insert([*rows[:10], end()]) == 1
    found = await attempts.get([row[:2] for row in rows])
    assert found == {row[:2]: row._replace(shard="") for row in rows}
    assert list(found) == [row[:2] for row in rows]
    missing = (new_task_id().bytes, 1)
    assert await attempts.ended([rows[3][:2], missing, (rows[3].task_id, 2)]) == {rows[3][:2]}
    assert await attempts.get([]) == {}
    assert await attempts.insert([]) == 0


async def test_ends_are_read_as_far_as_their_results_are_wanted(attempts: AttemptStore) -> None:
    rows = [end(success=bytes(100)), end(success=None, error=bytes(100)), end(success=None), end()]
    await attempts.insert(rows)
    keys = [row[:2] for row in rows]
    missing = (new_task_id().bytes, 1)
    found, count = await attempts.get_within([missing, *keys, missing], 300)
    assert (list(found), count) == (keys, 6)
    found, count = await attempts.get_within([missing, *keys], 200)
    assert (list(found), count) == (keys[:2], 3)
    found, count = await attempts.get_within([keys[0], keys[0], keys[1]], 200)
    assert (list(found), count) == (keys[:1], 2)
    assert await attempts.get_within([missing], 1) == ({}, 1)


async def test_attempts_of_a_task_are_listed_and_forgotten(attempts: AttemptStore) -> None:
    task_id = new_task_id().bytes
    await attempts.insert([end(task_id, attempt, success=b"large" * 100) for attempt in (3, 1, 2)])
    listed = await attempts.list(task_id)
    assert [row.attempt for row in listed] == [1, 2, 3]
    assert all(row.success is None for row in listed)
    await attempts.delete([task_id])
    assert await attempts.list(task_id) == []


async def test_the_first_end_wins(attempts: AttemptStore) -> None:
    reports = Reports()
    recorder = Recorder(attempts, reports, with_error_text)
    await recorder.start()
    first = end(number=1)
    rival = first._replace(number=2, success=b"rival", shard="shard-2")
    assert await recorder.record([first]) == [Status.ACCEPTED]
    assert await recorder.record([rival, first, end()]) == [
        Status.LEASE_LOST,
        Status.ACCEPTED,
        Status.ACCEPTED,
    ]
    # The rival's shard hears of what is recorded, for it may hold the task under the rival's lease.
    assert [(row.success, row.shard) for row in reports.added[:3]] == [
        (b"result", "shard-1"),
        (b"result", "shard-2"),
        (b"result", "shard-1"),
    ]
    await recorder.stop()


async def test_a_lost_attempt_is_lost_even_to_its_own_lease(attempts: AttemptStore) -> None:
    reports = Reports()
    recorder = Recorder(attempts, reports, with_error_text)
    await recorder.start()
    late = end()
    lease = Lease(late.task_id, 1, late.epoch, late.number, "shard-1", "default", 10)
    assert await recorder.record([lost(lease, "w", 30)]) == [Status.ACCEPTED]
    assert await recorder.record([late]) == [Status.LEASE_LOST]
    assert {row.outcome for row in reports.added} == {Outcome.LOST}
    assert reports.added[1].error_type == "LOST"
    # The other way round the recorded result is reported again, not the loss.
    done = end()
    lease = Lease(done.task_id, 1, done.epoch, done.number, "shard-1", "default", 10)
    await recorder.record([done])
    assert await recorder.record([lost(lease, "w", 30)]) == [Status.ACCEPTED]
    assert reports.added[-1].outcome == Outcome.SUCCEEDED
    await recorder.stop()


async def test_ends_in_one_moment_share_a_statement(attempts: AttemptStore) -> None:
    class Counting:
        inserts = 0

        async def insert(self, rows: Sequence[Ended]) -> int:
            self.inserts += 1
            return await attempts.insert(rows)

        get = attempts.get

    counting = Counting()
    recorder = Recorder(counting, Reports(), with_error_text)
    await recorder.start()
    same = end()
    frames = [[end() for _ in range(100)] + [same] for _ in range(30)]
    statuses = await asyncio.gather(*(recorder.record(frame) for frame in frames))
    assert {status for found in statuses for status in found} == {Status.ACCEPTED}
    assert counting.inserts <= 4
    await recorder.stop()


async def test_nothing_is_recorded_while_too_much_is_unreported(attempts: AttemptStore) -> None:
    reports = Reports()
    reports.full = True
    recorder = Recorder(attempts, reports, with_error_text)
    await recorder.start()
    assert await recorder.record([end()]) == [Status.TRY_LATER]
    await recorder.stop()


async def test_without_its_database_results_are_to_be_reported_later(
    attempts: AttemptStore, postgres_server: Postgres
) -> None:
    recorder = Recorder(attempts, Reports(), with_error_text)
    await recorder.start()
    row = end()
    postgres_server.kill()
    try:
        assert await recorder.record([row]) == [Status.TRY_LATER]
        with pytest.raises(MeshqError) as caught:
            await attempts.get([row[:2]])
        assert isinstance(caught.value, Unavailable)
        assert caught.value.reason is Reason.ATTEMPTS_UNAVAILABLE
    finally:
        postgres_server.start()
        postgres_server.wait_ready()

    async def recorded() -> bool:
        return await recorder.record([row]) == [Status.ACCEPTED]

    await wait_until(recorded, seconds=40)
    await recorder.stop()


async def test_stopping_answers_what_waits(attempts: AttemptStore) -> None:
    recorder = Recorder(attempts, Reports(), with_error_text)
    answers: list[list[Status]] = []
    recorder.submit([end(), end()], answers.append)
    await recorder.stop()
    assert answers == [[Status.TRY_LATER, Status.TRY_LATER]]


async def test_instances_that_start_together_make_one_version_of_the_ring(store: Database) -> None:
    table = RingTable(store)
    shards = [RingShard("a", "h:1"), RingShard("b", "h:2", 3)]
    rings = await asyncio.gather(*(table.ensure_shards(shards) for _ in range(4)))
    assert {ring.version for ring in rings} == {1}
    assert (await table.load_ring()).shards == tuple(shards)
    assert (await table.ensure_shards(shards[:1])).version == 1
    moved = await table.ensure_shards([RingShard("a", "h:9")])
    assert (moved.version, moved.shards) == (2, (RingShard("a", "h:9"), shards[1]))


async def test_a_removed_shard_does_not_come_back_with_the_settings(store: Database) -> None:
    table = RingTable(store)
    shards = [RingShard("a", "h:1"), RingShard("b", "h:2")]
    await table.ensure_shards(shards)

    async def without_b(ring: Ring) -> list[RingShard]:
        return [replace(shard, draining=True) for shard in ring.shards if shard.name != "b"]

    assert (await table.change(without_b)).version == 2
    assert (await table.ensure_shards(shards)).version == 2
    rings = await table.load_rings(1)
    assert [(ring.version, len(ring.shards)) for ring in rings] == [(1, 2), (2, 1)]
    assert [ring.version for ring in await table.load_rings(2)] == [2]
    assert rings[1].shards == (RingShard("a", "h:1", draining=True),)


async def test_changes_of_the_ring_take_turns(store: Database) -> None:
    table = RingTable(store)

    async def add_one(ring: Ring) -> list[RingShard]:
        return [*ring.shards, RingShard(f"shard-{len(ring.shards)}", "h:1")]

    await asyncio.gather(*(table.change(add_one) for _ in range(5)))
    ring = await table.load_ring()
    assert (ring.version, len(ring.shards)) == (5, 5)

    async def refuse(_ring: Ring) -> list[RingShard]:
        raise PreconditionFailed("Not now.", Reason.LAST_SHARD)

    with pytest.raises(PreconditionFailed):
        await table.change(refuse)
    assert (await table.load_ring()).version == 5


async def test_changes_of_the_ring_that_wait_leave_connections_to_others(store: Database) -> None:
    table = RingTable(store)
    changing, may_end = asyncio.Event(), asyncio.Event()

    async def edit(ring: Ring) -> list[RingShard]:
        changing.set()
        await may_end.wait()
        return [*ring.shards, RingShard(f"shard-{len(ring.shards)}", "h:1")]

    changes = [asyncio.create_task(table.change(edit)) for _ in range(8)]
    await changing.wait()
    assert await table.next_epoch()
    may_end.set()
    await asyncio.gather(*changes)
    assert (await table.load_ring()).version == 8


async def test_epochs_are_never_used_twice(store: Database) -> None:
    table = RingTable(store)
    epochs = await asyncio.gather(*(table.next_epoch() for _ in range(20)))
    assert len(set(epochs)) == 20


async def test_migrations_are_applied_once_and_newer_databases_refused(
    store: Database, database: str
) -> None:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        assert await migrate(connection, PACKAGE) == []
        numbers = [step.number for step in migrations(PACKAGE)]
        assert numbers == sorted(set(numbers))
        await connection.execute("INSERT INTO migrations (number, name) VALUES (9999, 'later')")
        with pytest.raises(MeshqError, match="9999"):
            await migrate(connection, PACKAGE)
