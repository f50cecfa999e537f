"""What fails, and what then: wiped and killed shards, lost reports, killed instances."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest
from fixtures.execution import Cluster, Dispatcher, FrameWorker, Instance, cluster, wait_until

from meshq.execution.postgres.attempts import AttemptStore
from meshq.execution.postgres.database import Database
from meshq.execution.postgres.generation import GenerationTable
from meshq.execution.postgres.ring import RingTable
from meshq.execution.ring import keys
from meshq.execution.ring.connection import open_connection
from meshq.execution.ring.doorbell import Doorbell
from meshq.execution.ring.follower import ANNOUNCED_AT, RingFollower, announced_version, announcement
from meshq.execution.ring.generations import Generations
from meshq.execution.ring.hashring import RingShard
from meshq.execution.ring.keeper import Holders, Surroundings
from meshq.execution.ring.shard import ShardState
from meshq.execution.ring.shards import Shards
from meshq.internal.v1 import attempt_service_pb2 as attempt_pb
from meshq.internal.v1 import dispatch_service_pb2 as dispatch_pb
from meshq.internal.v1 import ledger_service_pb2 as ledger_pb
from meshq.local.servers import Valkey
from meshq.mesh.etcd import EtcdClient
from meshq.v1 import ring_service_pb2 as ring_pb
from meshq.v1 import worker_service_pb2 as pb

SUCCEEDED, LOST = 1, 4
ACCEPTED, LEASE_LOST, TRY_LATER = 1, 2, 3
PRESENT, MISSING, UNCERTAIN = 1, 2, 3


async def compared(instance: Instance, *keys: tuple[bytes, int]) -> list[int]:
    attempts = [dispatch_pb.TaskAttempt(task_id=task_id, attempt=attempt) for task_id, attempt in keys]
    return list(
        (await instance.dispatch.CompareTasks(dispatch_pb.CompareTasksRequest(attempts=attempts))).states
    )


async def flush(instance: Instance, name: str) -> None:
    shard = instance.execution.shards.get(name)
    assert shard
    assert shard._connection
    await shard._connection.call("FLUSHALL")


def epochs(instance: Instance) -> dict[str, int]:
    return {shard.name: shard.epoch for shard in instance.execution.shards.all()}


async def reopened(instance: Instance, before: Mapping[str, int], *names: str) -> None:
    def is_open() -> bool:
        shards = {shard.name: shard for shard in instance.execution.shards.all()}
        return all(
            shards[name].state is ShardState.OPEN and shards[name].epoch != before[name] for name in names
        )

    await wait_until(is_open, f"{names} recovered", 30)


async def compare_asked(dispatcher: Dispatcher) -> None:
    async with asyncio.timeout(20):
        while not dispatcher.compares:
            await dispatcher.read()


async def working(
    system: Cluster, instance: Instance, count: int
) -> tuple[FrameWorker, list[bytes], list[bytes]]:
    """A worker that holds tasks: the worker, tasks and tokens."""
    worker = await system.worker(instance).connect(credit=count)
    ids = await system.dispatcher(instance).many(count)
    tokens = await worker.next_task(count)
    sessions = instance.execution.sessions.all()
    await wait_until(lambda: all(held.received for session in sessions for held in session.leases.values()))
    return worker, ids, tokens


async def test_a_shard_that_nobody_can_look_after_is_not_used_meanwhile(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        await instance.open()
        shard, connection = instance.execution.shards.all()[0], await open_connection(shards["shard-1"], "t")
        await connection.call("HDEL", keys.META, "state")
        await wait_until(lambda: not shard.usable, "the shard is left alone")
        await connection.call("HSET", keys.META, "state", "open")
        await instance.open()
        connection.close()


async def test_running_work_survives_a_wiped_shard(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(lease_ttl=60), await system.start(lease_ttl=60)
        worker, ids, tokens = await working(system, first, 30)
        dispatcher = system.dispatcher(second)
        waiting = await dispatcher.many(30)
        before = epochs(first)
        for name in shards:
            await flush(first, name)
        await reopened(first, before, *shards)
        await reopened(second, before, *shards)
        assert epochs(first) == epochs(second)
        assert len({*before.values(), *epochs(first).values()}) == 6
        await compare_asked(dispatcher)
        assert not worker.lost
        keys = [(task_id, 1) for task_id in (*ids, *waiting)]
        assert await compared(second, *keys) == [PRESENT] * 30 + [MISSING] * 30
        # The ledger dispatches what is missing as repeats; what runs is not started twice.
        assert (
            await dispatcher.send(
                *(dispatcher.item(task_id=task_id, repeat=True) for task_id in (*ids, *waiting))
            )
            == {}
        )
        worker.auto_finish = True
        await worker.finish(*tokens)
        await worker.credit(30)
        await wait_until(lambda: set(system.ledger.ended()) == {*ids, *waiting})
        assert len(worker.assigned) == 60
        assert set(system.ledger.ended().values()) == {SUCCEEDED}
        assert all(item.attempt == 1 for item in worker.assigned.values())


async def test_polled_leases_survive_a_wiped_shard(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        task_id = await system.dispatcher(instance).one()
        poll = await instance.worker.PollTasks(pb.PollTasksRequest(worker_id="p", task_types=["t"]))
        token = poll.assignments[0].lease_token
        before = epochs(instance)
        for name in shards:
            await flush(instance, name)
        await reopened(instance, before, *shards)
        # The instance that has leased it makes the lease anew, so that nobody else gets the task meanwhile.
        assert await compared(instance, (task_id, 1)) == [PRESENT]
        beat = pb.HeartbeatTasksRequest(worker_id="p", lease_tokens=[token])
        assert list((await instance.worker.HeartbeatTasks(beat)).lost_lease_tokens) == []
        assert await compared(instance, (task_id, 1)) == [PRESENT]
        # Once its attempt has ended, a lease is not made anew.
        result = pb.TaskResult(lease_token=token, success=pb.Success())
        await instance.worker.CompleteTasks(pb.CompleteTasksRequest(worker_id="p", results=[result]))
        await wait_until(lambda: system.ledger.of(task_id, SUCCEEDED))
        before = epochs(instance)
        for name in shards:
            await flush(instance, name)
        await reopened(instance, before, *shards)
        assert list((await instance.worker.HeartbeatTasks(beat)).lost_lease_tokens) == [token]


async def test_polled_leases_of_a_dead_instance_are_made_anew_by_their_heartbeat(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(lease_ttl=1.0), await system.start(lease_ttl=1.0)
        task_id = await system.dispatcher(first).one()
        poll = await first.worker.PollTasks(pb.PollTasksRequest(worker_id="p", task_types=["t"]))
        await first.crash()
        before = epochs(second)
        for name in shards:
            await flush(second, name)
        await reopened(second, before, *shards)
        assert await compared(second, (task_id, 1)) == [MISSING]
        beat = pb.HeartbeatTasksRequest(worker_id="p", lease_tokens=[poll.assignments[0].lease_token])
        assert list((await second.worker.HeartbeatTasks(beat)).lost_lease_tokens) == []
        assert await compared(second, (task_id, 1)) == [PRESENT]


async def test_a_killed_shard_comes_back_empty_and_recovers(
    database: str, shards: dict[str, str], shard_servers: Mapping[str, Valkey]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(lease_ttl=60)
        worker, ids, tokens = await working(system, instance, 20)
        dispatcher = system.dispatcher(instance)
        waiting = await dispatcher.many(20)
        before = epochs(instance)
        shard_servers["shard-2"].kill()
        dead = instance.execution.shards.get("shard-2")
        assert dead
        await wait_until(lambda: not dead.usable)
        listed = await instance.ring.ListShards(ring_pb.ListShardsRequest())
        assert [shard.state for shard in listed.shards] == [
            ring_pb.SHARD_STATE_ACTIVE,
            ring_pb.SHARD_STATE_UNREACHABLE,
            ring_pb.SHARD_STATE_ACTIVE,
        ]
        # A silent shard is not a no.
        states = await compared(instance, *((task_id, 1) for task_id in waiting))
        assert set(states) == {PRESENT, UNCERTAIN}
        refused = await dispatcher.send(*(dispatcher.item() for _ in range(60)))
        assert refused
        assert set(refused.values()) == {dispatch_pb.REJECT_REASON_SHARD_UNAVAILABLE}
        depths = await instance.dispatch.DescribeQueues(
            dispatch_pb.DescribeQueuesRequest(tenant="default", queues=["default"])
        )
        assert not depths.complete
        # Results are recorded and reported all the same.
        await worker.finish(*tokens)
        await wait_until(lambda: [worker.acks.get(token) for token in tokens] == [ACCEPTED] * 20)
        await wait_until(lambda: set(system.ledger.ended()) == set(ids))
        shard_servers["shard-2"].start()
        shard_servers["shard-2"].wait_ready()
        await reopened(instance, before, "shard-2")
        await compare_asked(dispatcher)
        missing = [
            task_id
            for task_id, state in zip(
                waiting, await compared(instance, *((task_id, 1) for task_id in waiting)), strict=True
            )
            if state == MISSING
        ]
        assert missing
        await dispatcher.send(*(dispatcher.item(task_id=task_id, repeat=True) for task_id in missing))
        worker.auto_finish = True
        await worker.credit(200)
        await wait_until(lambda: set(waiting) <= set(system.ledger.ended()))
        assert all(item.attempt == 1 for item in worker.assigned.values())


async def test_repeats_wait_until_all_instances_have_adopted(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        # So long a lease does not end here: what opens the shard is that all have adopted.
        first = await system.start(lease_ttl=60)
        # An instance that is said to live and never adopts.
        system.peers.instances["execution-9"] = None
        dispatcher = system.dispatcher(first)
        before = epochs(first)
        await flush(first, "shard-1")
        shard = first.execution.shards.get("shard-1")
        assert shard
        # The new epoch is used a moment before the shard has said how it stands.
        await wait_until(
            lambda: shard.epoch != before["shard-1"] and shard.state is not ShardState.UNREACHABLE
        )
        assert shard.state is ShardState.RECOVERING
        items = [dispatcher.item() for _ in range(30)]
        assert await dispatcher.send(*items) == {}
        repeats = [dispatcher.item(repeat=True) for _ in range(30)]
        refused = await dispatcher.send(*repeats)
        assert refused
        assert set(refused.values()) == {dispatch_pb.REJECT_REASON_SHARD_RECOVERING}
        assert set(await compared(first, *((bytes(item.task_id), 1) for item in repeats))) == {
            PRESENT,
            UNCERTAIN,
        }
        withdrawals = [dispatch_pb.Withdrawal(task_id=b"n" * 16, attempt=1, tenant="default")]
        answer = await first.dispatch.WithdrawTasks(dispatch_pb.WithdrawTasksRequest(withdrawals=withdrawals))
        assert list(answer.states) == [dispatch_pb.WITHDRAWN_STATE_UNCERTAIN]
        del system.peers.instances["execution-9"]
        await reopened(first, before, "shard-1")
        assert await dispatcher.send(*repeats) == {}


async def test_an_instance_that_dies_over_its_reports_is_made_up_for(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first = await system.start(lease_ttl=1.0)
        second = await system.start(lease_ttl=1.0)
        worker, ids, tokens = await working(system, first, 5)
        system.ledger.available = False
        await worker.finish(*tokens)
        await wait_until(lambda: [worker.acks.get(token) for token in tokens] == [ACCEPTED] * 5)
        await worker.close()
        await first.crash()
        system.ledger.available = True
        # The session ends, its leases are closed by the other instance, and that finds the results.
        await wait_until(lambda: set(system.ledger.ended()) == set(ids), seconds=30)
        assert set(system.ledger.ended().values()) == {SUCCEEDED}
        depths = await second.dispatch.DescribeQueues(
            dispatch_pb.DescribeQueuesRequest(tenant="default", queues=["default"])
        )

        async def nothing_leased() -> bool:
            nonlocal depths
            depths = await second.dispatch.DescribeQueues(
                dispatch_pb.DescribeQueuesRequest(tenant="default", queues=["default"])
            )
            return depths.depths[0].leased == 0

        await wait_until(nothing_leased)


async def test_a_repeat_of_an_ended_attempt_is_reported_and_not_queued(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        worker, (task_id,), tokens = await working(system, instance, 1)
        await worker.finish(*tokens)
        await wait_until(lambda: system.ledger.of(task_id, SUCCEEDED))
        before = epochs(instance)
        for name in shards:
            await flush(instance, name)
        await reopened(instance, before, *shards)
        system.ledger.reports.clear()
        dispatcher = system.dispatcher(instance)
        assert await dispatcher.send(dispatcher.item(task_id=task_id, repeat=True)) == {}
        await wait_until(lambda: system.ledger.of(task_id, SUCCEEDED))
        assert await compared(instance, (task_id, 1)) == [PRESENT]
        await worker.credit(1)
        assert len(worker.assigned) == 1


async def test_gone_tasks_are_forgotten(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = lambda _: ledger_pb.Directive(kind=ledger_pb.DIRECTIVE_KIND_GONE)
        worker, (task_id,), tokens = await working(system, instance, 1)
        await worker.finish(*tokens)

        async def forgotten() -> bool:
            answer = await instance.attempts.ListAttempts(attempt_pb.ListAttemptsRequest(task_id=task_id))
            return not answer.attempts and worker.acks.get(tokens[0]) == ACCEPTED

        await wait_until(forgotten)


async def test_outcomes_come_from_tombstones_and_from_the_database(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        worker, ids, tokens = await working(system, instance, 3)
        await worker.finish(tokens[0], data=b"small")
        await worker.finish(tokens[1], data=b"x" * 5_000)
        empty = pb.TaskResult(lease_token=tokens[2], success=pb.Success())
        await worker.send(results=pb.Results(results=[empty]))
        await wait_until(lambda: len(system.ledger.ended()) == 3)
        keys = [attempt_pb.OutcomeKey(task_id=task_id, attempt=1) for task_id in (*ids, b"n" * 16)]
        keys.append(attempt_pb.OutcomeKey(task_id=ids[0], attempt=2))
        request = attempt_pb.BatchGetOutcomesRequest(keys=keys)
        for _ in range(2):
            found = await instance.attempts.BatchGetOutcomes(request)
            assert [item.task_id for item in found.outcomes] == ids
            assert sorted(len(item.success.data) for item in found.outcomes) == [0, 5, 5_000]
            assert all(item.HasField("success") and item.outcome == SUCCEEDED for item in found.outcomes)
            # The second time without tombstones.
            before = epochs(instance)
            for name in shards:
                await flush(instance, name)
            await reopened(instance, before, *shards)


async def test_a_shard_that_may_evict_is_refused(
    database: str, shards: dict[str, str], shard_servers: Mapping[str, Valkey]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        shard = instance.execution.shards.get("shard-3")
        assert shard
        assert shard._connection
        await shard._connection.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        await wait_until(lambda: not shard.usable)
        assert shard.state is ShardState.UNREACHABLE
        other: Any = instance.execution.shards.get("shard-1")
        assert other.usable


async def test_a_wiped_etcd_hears_of_the_ring_again(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        await system.start()
        await wait_until(lambda: "meshq-ring/current" in system.etcd.content)
        system.etcd.content.clear()
        system.etcd.changed.set()
        await wait_until(lambda: "meshq-ring/current" in system.etcd.content)


async def test_a_new_shard_takes_its_part_and_old_tasks_stay_reachable(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, {name: shards[name] for name in ("shard-1", "shard-2")}) as system:
        first = await system.start()
        ids = await system.dispatcher(first).many(100)
        system.shards = shards
        second = await system.start()
        assert second.execution.shards.ring.version == 2
        # The shards know the new version; the first instance is told by them, or by etcd.
        system.etcd.changed.set()
        await wait_until(lambda: first.execution.shards.ring.version == 2)
        await first.open()
        assert await compared(first, *((task_id, 1) for task_id in ids)) == [PRESENT] * 100
        more = await system.dispatcher(first).many(200)
        worker = await system.worker(second).connect(credit=300)
        worker.auto_finish = True
        await wait_until(lambda: set(system.ledger.ended()) == {*ids, *more})
        listed = await first.ring.ListShards(ring_pb.ListShardsRequest())
        assert listed.ring_version == 2
        assert sum(shard.share for shard in listed.shards) == pytest.approx(1)


async def test_data_of_somebody_else_is_not_wiped(database: str, shards: dict[str, str]) -> None:
    connection = await open_connection(shards["shard-2"], "somebody")
    try:
        await connection.call("SET", "their", "data")
        async with cluster(database, {"shard-1": shards["shard-1"]}) as system:
            instance = await system.start()
            members = [RingShard(name, address) for name, address in shards.items()]
            await RingTable(instance.execution.database).ensure_shards(members)
            system.etcd.changed.set()
            foreign = await wait_until(lambda: instance.execution.shards.get("shard-2"))
            await wait_until(lambda: "not of meshq" in complaint(instance, "shard-2"))
            assert not foreign.usable
            assert await connection.call("GET", "their") == b"data"
    finally:
        connection.close()


def complaint(instance: Instance, name: str) -> str:
    return instance.execution.shards._keepers[name]._complaint


async def test_the_ring_is_announced_in_a_real_etcd(etcd: str, database: str, shards: dict[str, str]) -> None:
    store = Database(database)
    await store.start()
    client = EtcdClient([etcd])
    known = Shards("e-1", Doorbell())
    table = RingTable(store)
    known.surround(
        Surroundings(
            next_epoch=table.next_epoch,
            generations=Generations(GenerationTable(store)),
            ended=AttemptStore(store).ended,
            live=lambda: ["e-1"],
            holders=cast("Holders", None),
            compare=lambda: None,
            lease_ms=1_000,
            poll_ms=1_000,
        )
    )
    follower = RingFollower(table, client, known, [])
    try:
        await follower.start()
        assert known.ring.version == 0
        # Another program adds a shard that nobody listens on, and says so in etcd.
        ring = await table.ensure_shards([RingShard("later", "127.0.0.1:1", 2)])
        await client.put(ANNOUNCED_AT, announcement(ring))
        await wait_until(lambda: known.ring.version == 1)
        assert known.get("later")
        await client.delete(ANNOUNCED_AT)

        async def announced() -> bool:
            entry = await client.get(ANNOUNCED_AT)
            return entry is not None and announced_version(entry.value) == 1

        await wait_until(announced)
        assert announced_version(b"junk") == 0
    finally:
        await follower.stop()
        await known.stop()
        await client.close()
        await store.stop()
