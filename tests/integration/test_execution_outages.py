"""Shards that nobody can use leave the ring, and come back empty."""

import os
import signal
from collections.abc import Iterator, Mapping
from types import SimpleNamespace

import grpc
import pytest
from fixtures.execution import Cluster, Instance, cluster, polled, wait_until

from meshq.execution.ring.connection import open_connection
from meshq.internal.v1 import dispatch_service_pb2 as dispatch_pb
from meshq.local.servers import Valkey
from meshq.v1 import ring_service_pb2 as pb

MISSING = 2
OUT_AFTER = 1.0
"""The lease time of the tests, three seconds, is longer."""


@pytest.fixture
def frozen(shard_servers: Mapping[str, Valkey]) -> Iterator[Valkey]:
    """A shard that tests stop and that goes on at their end."""
    server = shard_servers["shard-2"]
    yield server
    if server.pid is not None:
        os.kill(server.pid, signal.SIGCONT)


async def states(instance: Instance) -> dict[str, str]:
    answer = await instance.ring.ListShards(pb.ListShardsRequest())
    return {shard.shard: pb.ShardState.Name(shard.state)[12:] for shard in answer.shards}


async def compared(instance: Instance, task_ids: list[bytes]) -> set[int]:
    attempts = [dispatch_pb.TaskAttempt(task_id=task_id, attempt=1) for task_id in task_ids]
    request = dispatch_pb.CompareTasksRequest(attempts=attempts)
    return set((await instance.dispatch.CompareTasks(request)).states)


async def pair(system: Cluster) -> tuple[Instance, Instance]:
    settings = {"shard_out_after": OUT_AFTER}
    return await system.start(**settings), await system.start(**settings)


async def test_a_silent_shard_is_taken_out_and_comes_back_empty(
    database: str, shards: dict[str, str], frozen: Valkey
) -> None:
    async with cluster(database, shards) as system:
        first, second = await pair(system)
        dispatcher = system.dispatcher(first)
        ids = await dispatcher.many(60)
        worker = await system.worker(second).connect(credit=30)
        await worker.next_task(30)
        there = first.execution.shards.get("shard-2")
        assert there
        _, known = await there.compare([(task_id, 1) for task_id in ids])
        on_it = [task_id for task_id, is_there in zip(ids, known, strict=True) if is_there]
        epoch = there.epoch
        assert frozen.pid
        os.kill(frozen.pid, signal.SIGSTOP)

        async def out() -> bool:
            system.etcd.changed.set()
            seen = [(await states(one))["shard-2"] for one in (first, second)]
            return seen == ["OUT", "OUT"]

        await wait_until(out, "out", seconds=60)
        # What it has is missing now, so that the ledger sends it to the others.
        assert await compared(first, on_it) == {MISSING}
        again = [dispatcher.item(task_id=task_id, repeat=True) for task_id in on_it]
        assert await dispatcher.send(*again) == {}
        assert dispatcher.compares
        assert worker.lost
        # Nothing of what it had counts when it is back.
        os.kill(frozen.pid, signal.SIGCONT)

        async def back() -> bool:
            system.etcd.changed.set()
            return set((await states(first)).values()) == {"ACTIVE"}

        await wait_until(back, "back", seconds=60)
        await second.open()
        returned = first.execution.shards.get("shard-2")
        assert returned
        assert returned.epoch > epoch
        totals = await returned.totals()
        assert (totals.ready, totals.leased) == (0, 0)
        assert {item.task.task_id for item in await polled(first, 5, max_tasks=100)}


async def test_a_shard_that_one_instance_can_use_stays(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, _ = await pair(system)
        # Somebody lives who does not say that he cannot use it.
        system.peers.instances["execution-9"] = SimpleNamespace(address="127.0.0.1:1")
        outages = first.execution.outages
        shard = first.execution.shards.get("shard-2")
        assert shard
        reports = outages._reports
        await reports.report("execution-1", ["shard-2"])
        await reports.report("execution-2", ["shard-2"])
        outages._after = 0.0
        await outages._take_out("shard-2")
        assert first.execution.shards.ring.version == 1
        del system.peers.instances["execution-9"]
        await outages._take_out("shard-2")
        assert first.execution.shards.ring.version == 2


async def test_the_last_shards_stay_when_nobody_can_use_any(
    database: str, shards: dict[str, str], shard_servers: Mapping[str, Valkey]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(shard_out_after=OUT_AFTER)
        for server in shard_servers.values():
            server.kill()
        all_shards = instance.execution.shards.all()
        await wait_until(lambda: not any(shard.usable for shard in all_shards))
        reports = instance.execution.outages._reports

        async def reported() -> bool:
            said = [await reports.load(name) for name in shards]
            return all(one.get("execution-1", 0) > OUT_AFTER + 3 for one in said)

        await wait_until(reported, "reports", seconds=60)
        await instance.execution.outages.run_once()
        assert instance.execution.shards.ring.version == 1
        for server in shard_servers.values():
            server.start()
            server.wait_ready()
        await instance.open()
        await wait_until(lambda: not instance.execution.outages._reported, "no reports")
        assert await reports.load("shard-1") == {}


async def test_a_shard_that_is_out_is_removed_by_force(
    database: str, shards: dict[str, str], shard_servers: Mapping[str, Valkey]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(shard_out_after=OUT_AFTER)
        shard_servers["shard-3"].kill()

        async def out() -> bool:
            return (await states(instance))["shard-3"] == "OUT"

        await wait_until(out, "out", seconds=60)
        remove = pb.RemoveShardRequest(shard="shard-3")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await instance.ring.RemoveShard(remove)
        assert "by force" in str(caught.value.details())
        remove.force = True
        assert (await instance.ring.RemoveShard(remove)).state == pb.SHARD_STATE_OUT
        assert sorted(await states(instance)) == ["shard-1", "shard-2"]
        # The settings do not bring it back.
        later = await system.start()
        assert sorted(await states(later)) == ["shard-1", "shard-2"]
        shard_servers["shard-3"].start()
        shard_servers["shard-3"].wait_ready()
        asked = pb.AddShardRequest(shard=pb.Shard(shard="shard-3", address=shards["shard-3"]))
        assert (await instance.ring.AddShard(asked)).shard == "shard-3"


async def test_a_shard_that_left_the_ring_is_closed_to_who_does_not_know(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await pair(system)
        await first.ring.DrainShard(pb.DrainShardRequest(shard="shard-1"))
        await first.ring.RemoveShard(pb.RemoveShardRequest(shard="shard-1"))
        server = await open_connection(shards["shard-1"], "test")
        epoch = await server.call("HGET", "mq:meta", "epoch")
        # The second instance hears of it from the shard, not from etcd, and does not begin it anew.
        await wait_until(lambda: second.execution.shards.get("shard-1") is None)
        assert await server.call("HMGET", "mq:meta", "state", "epoch") == [b"closed", epoch]
        server.close()
