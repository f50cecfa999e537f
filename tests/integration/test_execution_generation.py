"""A database that has come back from a copy: shards, leases and workers of before are of another history."""

from typing import Any

import psycopg
from fixtures.execution import Cluster, Instance, cluster, completed, polled, seconds, wait_until

from meshq.execution.ring import keys
from meshq.execution.ring.connection import open_connection
from meshq.execution.ring.follower import ANNOUNCED_AT, announced_version
from meshq.execution.ring.generations import UNNAMED
from meshq.execution.ring.shard import ShardState
from meshq.mesh.postgres.migrate import migrate, migrations
from meshq.v1 import worker_service_pb2 as pb

PACKAGE = "meshq.execution.postgres"
ACCEPTED, LEASE_LOST = 1, 2
SUCCEEDED = 1


async def ask(database: str, query: str) -> Any:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        return await (await connection.execute(query.encode())).fetchone()


def epochs(instance: Instance) -> dict[str, int]:
    return {shard.name: shard.epoch for shard in instance.execution.shards.all()}


async def depth(instance: Instance) -> tuple[int, int]:
    """How many tasks are ready and leased on all shards; a lease that is made anew may not know its queue."""
    found, certain = await instance.execution._dispatch._inquiries.describe("default", ["default", "-"])
    assert certain
    return sum(queue.ready for queue in found), sum(queue.leased for queue in found)


def success(token: bytes) -> pb.TaskResult:
    return pb.TaskResult(lease_token=token, success=pb.Success(data=b"late"))


async def held_of_every_kind(system: Cluster, instance: Instance) -> tuple[bytes, bytes, bytes]:
    """Tokens of a session, of a poll, and of a task that somebody else completes."""
    dispatcher = system.dispatcher(instance)
    later_id = await dispatcher.one()
    (later,) = await polled(instance)
    deferral = pb.TaskResult(lease_token=later.lease_token, finish_later=pb.FinishLater(timeout=seconds(60)))
    assert await completed(instance, deferral) == [ACCEPTED]
    await dispatcher.one()
    (by_poll,) = await polled(instance)
    await dispatcher.one()
    worker = await system.worker(instance).connect(credit=1)
    (by_session,) = await worker.next_task()
    await worker.close()
    assert later_id
    return by_session, by_poll.lease_token, later.lease_token


async def test_leases_and_contents_of_before_are_lost(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first = await system.start()
        session, poll, later = await held_of_every_kind(system, first)
        await system.dispatcher(first).many(20)
        before = epochs(first)
        await first.stop()
        await ask(database, "SELECT begin_generation()")
        second = await system.start()
        # Nothing of what stood on the shards is left but what the database itself has kept.
        assert await depth(second) == (0, 1)
        assert min(epochs(second).values()) > max(before.values())
        worker = await system.worker(second, held_leases=[session]).connect()
        assert [(item.lease_token, item.kept) for item in worker.welcome.held_leases] == [(session, False)]
        beat = pb.HeartbeatTasksRequest(worker_id="p", lease_tokens=[poll, later])
        assert list((await second.worker.HeartbeatTasks(beat)).lost_lease_tokens) == [poll]
        await worker.finish(session)
        await wait_until(lambda: worker.acks.get(session) == LEASE_LOST)
        results = [success(poll), success(session), success(later)]
        assert await completed(second, *results) == [LEASE_LOST, LEASE_LOST, ACCEPTED]
        assert await ask(database, "SELECT count(*) FROM attempts") == (1,)


async def test_an_instance_that_went_on_begins_anew_as_well(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance, other = await system.start(), await system.start()
        _, poll, _ = await held_of_every_kind(system, instance)
        await system.dispatcher(instance).many(20)
        before = epochs(instance)
        await ask(database, "SELECT begin_generation()")
        # One of them hears of it before the other, which must not take the shards back.
        await instance.execution.generations.run_once()

        def anew(found: Instance) -> bool:
            known = found.execution.shards.all()
            return all(one.state is ShardState.OPEN and one.epoch > before[one.name] for one in known)

        await wait_until(lambda: anew(instance) and anew(other))
        assert epochs(instance) == epochs(other)
        assert await depth(other) == (0, 1)
        assert await completed(other, success(poll)) == [LEASE_LOST]


async def test_a_shard_that_left_the_ring_of_another_history_begins_anew(
    database: str, shards: dict[str, str]
) -> None:
    connection = await open_connection(shards["shard-1"], "somebody")
    left = ("epoch", 5, "ring", 900, "state", "closed", "run_id", "1", "generation", "another")
    await connection.call("HSET", keys.META, *left)
    connection.close()
    async with cluster(database, shards) as system:
        instance = await system.start()
        shard = instance.execution.shards.get("shard-1")
        assert shard
        await wait_until(lambda: shard.state is ShardState.OPEN)


async def test_the_ring_of_the_copy_counts_whatever_was_announced_since(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first = await system.start()
        ring = first.execution.shards.ring
        await first.stop()
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            # A shard was removed after the copy was made.
            await connection.execute("INSERT INTO ring_versions (version) VALUES (2)")
            await connection.execute(
                "INSERT INTO ring_shards (version, name, address, weight) "
                "SELECT 2, name, address, weight FROM ring_shards WHERE name <> 'shard-2'"
            )
            second = await system.start()
            assert announced_version(system.etcd.content[ANNOUNCED_AT]) == 2
            await second.stop()
            await connection.execute("DELETE FROM ring_shards WHERE version = 2")
            await connection.execute("DELETE FROM ring_versions WHERE version = 2")
            await connection.execute("SELECT begin_generation()")
        third = await system.start()
        back = third.execution.shards.ring
        assert (back.version, back.shards) == (1_000_001, ring.shards)
        await wait_until(lambda: announced_version(system.etcd.content[ANNOUNCED_AT]) == back.version)


async def test_copies_that_come_back_again_and_again_never_use_an_epoch_twice(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        await (await system.start()).stop()
        copy = await ask(database, "SELECT last_value FROM shard_epochs")
        seen = []
        for _ in range(2):
            # The same copy each time.
            await ask(database, f"SELECT setval('shard_epochs', {copy[0]})")
            await ask(database, "SELECT begin_generation()")
            instance = await system.start()
            seen.append(set(epochs(instance).values()))
            await instance.stop()
        assert min(seen[0]) > copy[0]
        assert min(seen[1]) > max(seen[0])


async def test_shards_go_on_when_the_database_learns_of_generations(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            await migrate(connection, PACKAGE)
            # As if it had given out epochs before there were generations.
            await connection.execute("DROP FUNCTION begin_generation, raise_epochs_and_ring")
            await connection.execute("DROP TABLE generations")
            await connection.execute("DELETE FROM migrations WHERE number = 7")
            await connection.execute("SELECT setval('shard_epochs', 41)")
            (step,) = [step for step in migrations(PACKAGE) if step.number == 7]
            assert await migrate(connection, PACKAGE) == [step.name]
        assert await ask(database, "SELECT generation::text, first_epoch FROM generations") == (UNNAMED, 1)
        first = await system.start()
        assert min(epochs(first).values()) == 42
        (token, *_), before = await held_of_every_kind(system, first), epochs(first)
        for shard in first.execution.shards.all():
            assert shard._connection
            await shard._connection.call("HDEL", keys.META, "generation")  # as older code writes it
        await first.stop()
        second = await system.start()
        assert epochs(second) == before
        assert await completed(second, success(token)) == [ACCEPTED]
        await wait_until(system.ledger.ended)


async def test_a_new_database_comes_after_any_that_was_lost(database: str) -> None:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        await migrate(connection, PACKAGE)
    name, first_epoch, now_ms = await ask(
        database, "SELECT generation::text, first_epoch, extract(epoch FROM now()) * 1000 FROM generations"
    )
    assert name != UNNAMED
    assert abs(now_ms - first_epoch) < 60_000
