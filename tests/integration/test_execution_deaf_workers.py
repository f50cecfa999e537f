"""Workers that do not acknowledge what they get."""

from fixtures.execution import cluster, wait_until

_TASKS = 50


async def test_a_worker_that_never_acknowledges_gets_one_task_at_a_time(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(delivery_timeout=1.0)
        deaf = await system.worker(instance, "deaf").connect()
        deaf.auto_receive = False
        await deaf.credit(100 * _TASKS)
        await system.dispatcher(instance).many(_TASKS)
        await wait_until(lambda: len(deaf.lost) >= _TASKS)
        other = await system.worker(instance, "other").connect(credit=2 * _TASKS)
        await wait_until(lambda: len(other.assigned) >= _TASKS - 1)
        assert len(deaf.assigned) < _TASKS + 10


async def test_a_worker_that_acknowledges_again_gets_as_much_as_it_wants_again(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(delivery_timeout=1.0)
        worker = await system.worker(instance).connect()
        worker.auto_receive = False
        await worker.credit(100 * _TASKS)
        await system.dispatcher(instance).many(_TASKS)
        await wait_until(lambda: len(worker.lost) >= _TASKS)
        worker.auto_receive = True
        await wait_until(lambda: len(worker.assigned) - len(worker.lost) >= _TASKS)
