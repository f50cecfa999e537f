"""Results of ended attempts: from the tombstones of the right shard while they are recent, else recorded."""

import time
from collections.abc import Sequence
from typing import Any

from fixtures.execution import Cluster, Instance, cluster, polled, traits, wait_until
from fixtures.life import attempts, life
from fixtures.queues import configured, finished, task_of
from prometheus_client import REGISTRY

from meshq.internal.v1 import attempt_service_pb2 as pb
from meshq.v1 import task_pb2

__all__ = ["attempts"]

LIMITED = [f"key-{number}" for number in range(20)]


class Lookups:
    """What the metrics say of the cache."""

    def __init__(self) -> None:
        self._before = self._read()

    def news(self) -> tuple[int, ...]:
        """How many results were with the owner, elsewhere, and missed, since the last call."""
        before, self._before = self._before, self._read()
        return tuple(now - was for was, now in zip(before, self._before, strict=True))

    def _read(self) -> list[int]:
        counts = [
            REGISTRY.get_sample_value("meshq_recent_results_total", {"found": found})
            for found in ("owner", "elsewhere", "missed")
        ]
        return [int(count or 0) for count in counts]


async def ended(system: Cluster, instance: Instance, *items: Any) -> list[bytes]:
    """Dispatch tasks and finish them; each has left its tombstone."""
    assert await system.dispatcher(instance).send(*items) == {}
    ids = [bytes(item.task_id) for item in items]
    done: set[bytes] = set()
    while done != set(ids):
        tasks = await polled(instance, 1, max_tasks=100)
        await finished(instance, tasks)
        done |= {task_of(task) for task in tasks}
    await wait_until(lambda: set(ids) <= set(system.ledger.ended()))
    await buried(instance, ids)
    return ids


async def buried(instance: Instance, ids: Sequence[bytes]) -> None:
    """Wait until each task has left its tombstone."""

    async def all_are() -> bool:
        kept = [await shard.outcomes(ids) for shard in instance.execution.shards.all()]
        return all(any(texts) for texts in zip(*kept, strict=True))

    await wait_until(all_are, "tombstones")


async def read(instance: Instance, ids: Sequence[bytes], **hints: Any) -> list[bytes]:
    keys = [pb.OutcomeKey(task_id=task_id, attempt=1, **hints) for task_id in ids]
    found = await instance.attempts.BatchGetOutcomes(pb.BatchGetOutcomesRequest(keys=keys))
    assert all(item.HasField("success") for item in found.outcomes)
    return [item.task_id for item in found.outcomes]


async def test_a_recent_result_is_with_the_owner_of_its_task(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        dispatcher = system.dispatcher(instance)
        ids = await ended(system, instance, *(dispatcher.item() for _ in range(30)))
        lookups = Lookups()
        assert await read(instance, ids) == ids
        assert lookups.news() == (30, 0, 0)
        # Of what ended long ago no shard is asked.
        long_ago = int(time.time() * 1_000) - 600_000
        assert await read(instance, ids, end_time_ms=long_ago) == ids
        assert lookups.news() == (0, 0, 0)
        assert await read(instance, [b"n" * 16]) == []
        assert lookups.news() == (0, 0, 1)


async def test_limits_are_known_when_a_result_is_looked_for(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        assert await configured(instance, 1, max_running_per_key=100)
        dispatcher = system.dispatcher(instance)
        items = [dispatcher.item(traits=traits(limit_key=key)) for key in LIMITED]
        ids = await ended(system, instance, *items)
        lookups = Lookups()
        for task_id, key in zip(ids, LIMITED, strict=True):
            assert await read(instance, [task_id], tenant="default", queue="default", limit_key=key)
        assert lookups.news() == (20, 0, 0)
        # Without the key the others are asked, too, and no database.
        assert await read(instance, ids) == ids
        with_owner, elsewhere, missed = lookups.news()
        assert (with_owner + elsewhere, missed) == (20, 0)
        assert elsewhere > 0
        # Once the queue is limited as a whole, all is at its home, and what was is elsewhere.
        assert await configured(instance, 2, max_running=100)
        more = await ended(system, instance, *(dispatcher.item() for _ in range(20)))
        lookups.news()
        assert await read(instance, more, tenant="default", queue="default") == more
        assert lookups.news() == (20, 0, 0)


async def test_results_that_the_shards_lack_come_from_the_database(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        dispatcher = system.dispatcher(instance)
        ids = await ended(system, instance, *(dispatcher.item() for _ in range(30)))
        lookups = Lookups()
        await instance.execution.shards._keepers["shard-2"].stop()
        assert await read(instance, ids) == ids
        with_owner, elsewhere, missed = lookups.news()
        assert (with_owner + missed, elsewhere) == (30, 0)
        assert missed > 0


async def test_reading_a_task_asks_the_shard_where_it_was(
    database: str, attempts: str, shards: dict[str, str]
) -> None:
    async with life(database, attempts, shards) as system:
        node, instance = system.management.nodes[0], system.execution.instances[0]
        created = [await node.create(limit_key=key) for key in LIMITED]
        await system.worker(finish=True, credit=20)

        async def all_succeeded() -> bool:
            tasks = [await node.get(task.task_id) for task in created]
            return all(task.state == task_pb2.TASK_STATE_SUCCEEDED for task in tasks)

        await wait_until(all_succeeded)
        ids = [bytes.fromhex(task.task_id.replace("-", "")) for task in created]

        await buried(instance, ids)
        lookups = Lookups()
        for task in created:
            assert (await node.get(task.task_id, task_pb2.TASK_VIEW_FULL)).result_data == b"out"
        assert lookups.news() == (20, 0, 0)
