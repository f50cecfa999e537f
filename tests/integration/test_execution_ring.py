"""The ring changes while everything runs: shards are added, drained and removed."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from fixtures.execution import (
    DONE,
    RUN,
    Cluster,
    Instance,
    cluster,
    polled,
    wait_until,
)
from fixtures.queues import finished
from prometheus_client import REGISTRY

from meshq.contract.errors import MeshqError, PreconditionFailed
from meshq.contract.status import from_rpc_error
from meshq.execution.ring.connection import open_connection
from meshq.execution.ring.hashring import Ring
from meshq.internal.v1 import ledger_service_pb2 as ledger_pb
from meshq.v1 import ring_service_pb2 as pb
from meshq.v1 import worker_service_pb2 as worker_pb
from meshq.v1.task_pb2 import AttemptOutcome, TaskError

NAMES = ("shard-1", "shard-2", "shard-3")


@asynccontextmanager
async def pair(database: str, shards: Mapping[str, str], *names: str) -> AsyncIterator[tuple[Cluster, Any]]:
    """Two instances on some of the shards."""
    async with cluster(database, {name: shards[name] for name in names}) as system:
        first, second = await system.start(), await system.start()
        yield system, (first, second)


async def refusal(call: Any) -> tuple[MeshqError, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = from_rpc_error(caught.value)
    return error, str(error.reason)


async def follow(system: Cluster, version: int) -> None:
    """All instances use that version of the ring."""
    system.etcd.changed.set()
    await wait_until(
        lambda: all(one.execution.shards.ring.version == version for one in system.instances), "the version"
    )


async def listed(instance: Instance) -> dict[str, pb.Shard]:
    answer = await instance.ring.ListShards(pb.ListShardsRequest())
    return {shard.shard: shard for shard in answer.shards}


async def drained(instance: Instance, name: str) -> None:
    async def empty() -> bool:
        return (await listed(instance))[name].tasks_to_move == 0

    await wait_until(empty, f"{name} drained")


async def test_a_shard_is_added_and_gets_its_part(database: str, shards: dict[str, str]) -> None:
    async with pair(database, shards, "shard-1", "shard-2") as (system, (first, second)):
        before = [first.execution.shards.ring.owner(b"key %d" % number) for number in range(3_000)]
        asked = pb.Shard(shard="shard-3", address=shards["shard-3"])
        added = await first.ring.AddShard(pb.AddShardRequest(shard=asked))
        assert added.share == pytest.approx(1 / 3, rel=0.05)
        # It can take its part at once, also where nobody has heard of the version.
        dispatcher = system.dispatcher(first)
        early = await dispatcher.many(30)
        assert second.execution.shards.ring.version == 1
        early += await system.dispatcher(second).many(30)
        assert second.execution.shards.ring.version == 2
        await follow(system, 2)
        await first.open()
        await second.open()
        after = [second.execution.shards.ring.owner(b"key %d" % number) for number in range(3_000)]
        moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        assert {new for _, new in moved} == {"shard-3"}
        assert len(moved) / 3_000 == pytest.approx(1 / 3, rel=0.2)
        again = await second.ring.AddShard(pb.AddShardRequest(shard=asked))
        assert (again.shard, second.execution.shards.ring.version) == ("shard-3", 2)
        figures = (await listed(first))["shard-3"]
        assert figures.ready
        assert figures.state == pb.SHARD_STATE_ACTIVE
        assert figures.primary_address == shards["shard-3"]
        assert len(await polled(first, 10, max_tasks=100)) == len(early)
        # Nothing can be missing on a new shard, so that nothing is compared.
        compares = dispatcher.compares
        await wait_until(lambda: all(shard.state.name == "OPEN" for shard in first.execution.shards.all()))
        await dispatcher.many(1)
        assert dispatcher.compares == compares


async def test_a_ring_is_used_wholly_though_nobody_waits_for_it_any_more(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        known = (await system.start()).execution.shards
        leaving = known._keepers["shard-3"]
        stop, may_stop = leaving.stop, asyncio.Event()

        async def stop_late() -> None:
            await may_stop.wait()
            await stop()

        setattr(leaving, "stop", stop_late)  # noqa: B010
        ring = Ring(known.ring.version + 1, known.ring.shards[:2])
        change = asyncio.create_task(known.use(ring))
        await wait_until(lambda: known.ring is ring)
        change.cancel()
        with pytest.raises(asyncio.CancelledError):
            await change
        may_stop.set()
        await wait_until(lambda: [one.ring_version for one in known.all()] == [ring.version] * 2)


async def test_who_has_not_heard_of_a_version_leases_all_the_same(
    database: str, shards: dict[str, str]
) -> None:
    async with pair(database, shards, "shard-1", "shard-2") as (system, (first, second)):
        asked = pb.Shard(shard="shard-1", weight=2)
        await first.ring.UpdateShard(pb.UpdateShardRequest(shard=asked))
        await system.dispatcher(first).many(60)
        assert second.execution.shards.ring.version == 1
        assert await polled(second, 0, max_tasks=100)
        assert second.execution.shards.ring.version == 2


async def test_what_cannot_be_a_shard_is_refused(database: str, shards: dict[str, str]) -> None:
    stranger = await open_connection(shards["shard-3"], "somebody")
    try:
        async with cluster(database, {"shard-1": shards["shard-1"]}) as system:
            instance = await system.start()

            async def added(**fields: Any) -> tuple[str, str]:
                request = pb.AddShardRequest(shard=pb.Shard(**fields))
                error, reason = await refusal(instance.ring.AddShard(request))
                return reason, error.message

            reason, text = await added(shard="shard-1", address=shards["shard-2"])
            assert reason == "SHARD_EXISTS"
            assert shards["shard-1"] in text
            assert (await added(shard="b", address=shards["shard-1"]))[0] == "SHARD_EXISTS"
            assert (await added(shard="b", address="127.0.0.1:1"))[0] == "SHARD_UNUSABLE"
            await stranger.call("SET", "their", "data")
            reason, text = await added(shard="b", address=shards["shard-3"])
            assert reason == "SHARD_UNUSABLE"
            assert "not of meshq" in text
            await stranger.call("FLUSHALL")
            await stranger.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            assert "noeviction" in (await added(shard="b", address=shards["shard-3"]))[1]
            await stranger.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
            await stranger.call("REPLICAOF", *shards["shard-2"].split(":"))
            assert "replica" in (await added(shard="b", address=shards["shard-3"]))[1]
            for fields, field in (
                ({"shard": "a b", "address": shards["shard-2"]}, "shard.shard"),
                ({"shard": "b", "address": "nowhere"}, "shard.address"),
                ({"shard": "b", "address": shards["shard-2"], "weight": 101}, "shard.weight"),
            ):
                reason, text = await added(**fields)
                assert reason == "INVALID_FIELD"
                assert text.startswith(f"{field}: ")
            assert instance.execution.shards.ring.version == 1
    finally:
        await stranger.call("REPLICAOF", "NO", "ONE")
        stranger.close()


async def test_what_waits_on_a_draining_shard_is_moved(database: str, shards: dict[str, str]) -> None:
    async with pair(database, shards, "shard-1", "shard-2") as (system, (first, second)):
        dispatcher = system.dispatcher(first)
        later = int(time.time() * 1000) + 3_600_000
        urgent = await dispatcher.many(200, priority=9)
        ids = [*urgent, *await dispatcher.many(200), *await dispatcher.many(100, ready_time_ms=later)]
        before = await listed(second)
        assert before["shard-2"].ready
        assert before["shard-2"].delayed
        drain = await second.ring.DrainShard(pb.DrainShardRequest(shard="shard-2"))
        assert drain.state == pb.SHARD_STATE_DRAINING
        assert (await second.ring.DrainShard(pb.DrainShardRequest(shard="shard-2"))).share == 0
        assert second.execution.shards.ring.version == 2
        await follow(system, 2)
        await drained(first, "shard-2")
        after = await listed(first)
        assert (after["shard-2"].ready, after["shard-2"].delayed) == (0, 0)
        assert sum(shard.ready for shard in after.values()) == 400
        assert sum(shard.delayed for shard in after.values()) == 100
        # Nothing is lost, nothing is there twice, and on one shard the order is exact.
        got = [item for _ in range(40) for item in await polled(first, 5, max_tasks=10)]
        assert len({item.task.task_id for item in got}) == 400
        assert {uuid.UUID(item.task.task_id).bytes for item in got[:200]} == set(urgent)
        answers = [await shard.compare([(i, 1) for i in ids]) for shard in first.execution.shards.all()]
        assert [sum(known) for known in zip(*(known for _, known in answers), strict=True)] == [1] * 500


async def test_what_workers_have_ends_on_the_draining_shard(database: str, shards: dict[str, str]) -> None:
    async with pair(database, shards, "shard-1", "shard-2") as (system, (first, second)):

        def settle(report: ledger_pb.AttemptReport) -> ledger_pb.Directive:
            if report.outcome == AttemptOutcome.ATTEMPT_OUTCOME_FAILED:
                return ledger_pb.Directive(kind=RUN, attempt=2, not_before_ms=0)
            return ledger_pb.Directive(kind=DONE if report.outcome else ledger_pb.DIRECTIVE_KIND_KEEP)

        system.ledger.answer = settle
        ids = await system.dispatcher(first).many(60)
        leased = await polled(second, 10, max_tasks=60)
        assert len(leased) == 60
        await second.ring.DrainShard(pb.DrainShardRequest(shard="shard-1"))
        await follow(system, 2)
        held = (await listed(first))["shard-1"]
        assert held.leased
        assert held.tasks_to_move == 0
        remove = pb.RemoveShardRequest(shard="shard-1")
        error, reason = await refusal(first.ring.RemoveShard(remove))
        assert (type(error), reason) == (PreconditionFailed, "SHARD_NOT_EMPTY")
        assert f"{held.leased} at workers" in error.message
        await finished(first, leased[:30])
        failed = worker_pb.Failure(error=TaskError(type="Broken"))
        failures = [
            worker_pb.TaskResult(lease_token=item.lease_token, failure=failed) for item in leased[30:]
        ]
        request = worker_pb.CompleteTasksRequest(worker_id="p", results=failures)
        await first.worker.CompleteTasks(request)
        # Second attempts go where the ring says.
        again = [item for _ in range(3) for item in await polled(first, 10, max_tasks=10)]
        assert {item.attempt for item in again} <= {2}
        await drained(first, "shard-1")
        await finished(first, again)

        async def removed() -> bool:
            try:
                await first.ring.RemoveShard(remove)
            except grpc.aio.AioRpcError:
                return False
            return True

        rest: list[Any] = []

        async def worked_off() -> bool:
            found = await polled(second, 0.1, max_tasks=30)
            await finished(second, found)
            rest.extend(found)
            return await removed()

        await wait_until(worked_off, "removal")
        await follow(system, 3)
        assert list(await listed(second)) == ["shard-2"]
        await wait_until(lambda: set(system.ledger.ended()) == set(ids))
        # Its server does nothing any more, until it is added again.
        closed = await open_connection(shards["shard-1"], "test")
        assert await closed.call("HGET", "mq:meta", "state") == b"closed"
        asked = pb.Shard(shard="shard-9", address=shards["shard-1"])
        await first.ring.AddShard(pb.AddShardRequest(shard=asked))
        await follow(system, 4)
        await first.open()
        await system.dispatcher(first).many(40)
        assert (await listed(first))["shard-9"].ready
        assert await closed.call("HGET", "mq:meta", "state") == b"open"
        closed.close()


async def test_the_last_shard_that_takes_tasks_stays(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, {name: shards[name] for name in NAMES[:2]}) as system:
        instance = await system.start()
        await instance.ring.DrainShard(pb.DrainShardRequest(shard="shard-1"))
        _, reason = await refusal(instance.ring.DrainShard(pb.DrainShardRequest(shard="shard-2")))
        assert reason == "LAST_SHARD"
        _, reason = await refusal(instance.ring.RemoveShard(pb.RemoveShardRequest(shard="shard-2")))
        assert reason == "SHARD_NOT_EMPTY"
        for call in (
            instance.ring.DrainShard(pb.DrainShardRequest(shard="nope")),
            instance.ring.ActivateShard(pb.ActivateShardRequest(shard="nope")),
            instance.ring.RemoveShard(pb.RemoveShardRequest(shard="nope", force=True)),
            instance.ring.UpdateShard(pb.UpdateShardRequest(shard=pb.Shard(shard="nope", weight=2))),
        ):
            assert (await refusal(call))[1] == "SHARD_NOT_FOUND"
        active = await instance.ring.ActivateShard(pb.ActivateShardRequest(shard="shard-1"))
        assert (active.state, active.tasks_to_move) == (pb.SHARD_STATE_ACTIVE, 0)
        assert active.share == pytest.approx(0.5, rel=0.05)


async def test_a_shard_gets_another_weight_and_another_server(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, {name: shards[name] for name in NAMES[:2]}) as system:
        instance = await system.start()
        ids = await system.dispatcher(instance).many(60)
        heavier = pb.UpdateShardRequest(shard=pb.Shard(shard="shard-1", weight=3))
        assert (await instance.ring.UpdateShard(heavier)).share == pytest.approx(0.75, rel=0.05)
        _, reason = await refusal(
            instance.ring.UpdateShard(
                pb.UpdateShardRequest(shard=pb.Shard(shard="shard-1", address=shards["shard-2"]))
            )
        )
        assert reason == "SHARD_EXISTS"
        error, _ = await refusal(
            instance.ring.UpdateShard(pb.UpdateShardRequest(shard=pb.Shard(shard="shard-1")))
        )
        assert "update_mask" in error.message
        moved = pb.UpdateShardRequest(shard=pb.Shard(shard="shard-1", address=shards["shard-3"]))
        await instance.ring.UpdateShard(moved)
        await instance.open()
        shard = (await listed(instance))["shard-1"]
        assert (shard.address, shard.weight, shard.ready) == (shards["shard-3"], 3, 0)
        # What was on the former server is missing, and the ledger sends it again.
        answers = [await one.compare([(i, 1) for i in ids]) for one in instance.execution.shards.all()]
        assert 0 < sum(sum(known) for _, known in answers) < 60


async def test_what_a_shard_does_is_in_the_metrics(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        await system.dispatcher(instance).many(90)
        await wait_until(lambda: all(shard.load.keys for shard in instance.execution.shards.all()))
        await instance.execution.gauges.run_once()

        def figures(name: str) -> list[float]:
            return [REGISTRY.get_sample_value(name, {"shard": shard}) or 0 for shard in shards]

        assert sum(figures("meshq_shard_ready")) == 90
        assert sum(figures("meshq_shard_share")) == pytest.approx(1)
        assert all(figures("meshq_shard_used_memory_bytes"))
        assert figures("meshq_shard_usable") == [1, 1, 1]
        assert REGISTRY.get_sample_value("meshq_ring_version") == 1
        await instance.ring.DrainShard(pb.DrainShardRequest(shard="shard-1"))
        await drained(instance, "shard-1")
        await instance.ring.RemoveShard(pb.RemoveShardRequest(shard="shard-1"))
        await instance.execution.gauges.run_once()
        assert REGISTRY.get_sample_value("meshq_shard_usable", {"shard": "shard-1"}) is None
