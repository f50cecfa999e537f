"""Something dies in the middle of a run; every task succeeds all the same, and is recorded once."""

import asyncio

import pytest
import redis.asyncio as redis
from faults.load import Load

pytestmark = pytest.mark.timeout(400)

COMPONENTS = ["management-1", "execution-1", "worker", "registry", "gateway"]


@pytest.mark.parametrize("name", [*COMPONENTS, "shard-1", "etcd", "postgres"])
async def test_a_killed_process_loses_nothing(load: Load, name: str) -> None:
    submission = asyncio.create_task(load.submit())
    await load.reaches(load.tasks // 10)
    load.system.kill(name)
    await submission
    await load.check()


async def test_a_wiped_shard_loses_nothing(load: Load) -> None:
    submission = asyncio.create_task(load.submit())
    await load.reaches(load.tasks // 10)
    async with redis.Redis.from_url(f"redis://{load.system.shards['shard-2']}") as shard:
        await shard.flushall()
    await submission
    await load.check()


@pytest.mark.parametrize("name", COMPONENTS)
async def test_a_terminated_component_fails_no_call(load: Load, name: str) -> None:
    submission = asyncio.create_task(load.submit())
    calls = asyncio.create_task(keep_calling(load, submission))
    await load.reaches(load.tasks // 10)
    load.system.terminate(name)
    await submission
    assert await calls > 0
    await load.check()


async def keep_calling(load: Load, submission: asyncio.Task[None]) -> int:
    """Ask for a task again and again until all are submitted; any error ends the test."""
    calls = 0
    while not submission.done():
        if load.ids:
            await load.client.get(load.ids[calls % len(load.ids)])
            calls += 1
        await asyncio.sleep(0)
    return calls
