"""Dispatch streams and the sweeper: whatever gets lost on the way is found again."""

import asyncio
import uuid
from collections.abc import Sequence

import pytest
from fixtures.management import Cluster, Node, cluster, report, until

from meshq.internal.v1 import dispatch_service_pb2
from meshq.management.dispatch import sweep
from meshq.management.model.placement import Compared
from meshq.management.model.task import OpenAttempt
from meshq.v1 import task_pb2, task_service_pb2

SUCCEEDED = task_pb2.ATTEMPT_OUTCOME_SUCCEEDED
LOST = task_pb2.ATTEMPT_OUTCOME_LOST


async def created(node: Node, count: int = 1) -> list[bytes]:
    tasks = await asyncio.gather(*(node.create() for _ in range(count)))
    return [uuid.UUID(task.task_id).bytes for task in tasks]


async def all_there(system: Cluster, ids: list[bytes]) -> None:
    await until(lambda: system.execution.shard.keys() >= set(ids), "the tasks on the shard")


async def test_a_broken_stream_hands_its_frames_to_another(database: str) -> None:
    async with cluster(database, sweep_age=600) as system:
        (node,) = system.nodes
        system.execution.swallow = True
        ids = await created(node, 20)
        await until(lambda: system.execution.frames)
        lost = [item.task_id for frame in system.execution.frames for item in frame.items]
        system.execution.swallow = False
        system.execution.break_streams()
        await all_there(system, ids)
        assert all(system.execution.shard[task_id].repeat for task_id in lost)


async def test_streams_follow_the_instances(database: str) -> None:
    async with cluster(database, sweep_age=600) as system:
        (node,) = system.nodes
        await until(lambda: len(system.execution.streams) == 1)
        system.show_execution(["e-1", "e-2", "e-3"])
        await until(lambda: len(system.execution.streams) == 3)
        system.show_execution([])
        await until(lambda: not system.execution.streams)
        ids = await created(node, 5)
        assert not system.execution.shard
        system.show_execution(["e-4"])
        await all_there(system, ids)
        assert not any(item.repeat for item in system.execution.shard.values())


async def test_what_is_refused_is_found_by_the_sweeper(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        system.execution.reject = dispatch_service_pb2.REJECT_REASON_SHARD_FULL
        ids = await created(node, 5)
        await until(lambda: system.execution.compared)
        system.execution.reject = 0
        await all_there(system, ids)
        assert all(item.repeat for item in system.execution.shard.values())


async def test_a_wiped_shard_is_filled_again_with_what_is_open(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        ids = await created(node, 50)
        await all_there(system, ids)
        for task_id in ids[:10]:
            system.execution.record(task_id, 1, SUCCEEDED)
        await node.report(*(report(task_id, 1, SUCCEEDED) for task_id in ids[:10]))
        await node.report(*(report(task_id, 1, LOST) for task_id in ids[10:20]))
        system.execution.shard.clear()
        await all_there(system, ids[10:])
        assert not system.execution.shard.keys() & set(ids[:10])
        assert {system.execution.shard[task_id].attempt for task_id in ids[10:20]} == {2}


async def test_a_recovered_shard_is_compared_at_once(database: str) -> None:
    async with cluster(database, sweep_age=600) as system:
        (node,) = system.nodes
        ids = await created(node, 10)
        await all_there(system, ids)
        system.execution.shard.clear()
        system.execution.wants_compare.set()
        (last,) = await created(node)
        await all_there(system, [*ids, last])


class Busy:
    """Knows all tasks, and has new ones made while it is asked."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.compared: list[bytes] = []

    async def compare(self, attempts: Sequence[OpenAttempt]) -> list[Compared]:
        self.compared += [item.task_id for item in attempts]
        await created(self.node, len(attempts))
        return [Compared.PRESENT] * len(attempts)


async def test_a_hurried_pass_ends_where_it_began(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "MAX_FRAME_ITEMS", 2)
    async with cluster(database, sweep_age=600) as system:
        (node,) = system.nodes
        ids = await created(node, 5)
        management, busy = node.management, Busy(node)
        await until(lambda: management.office.leads)
        sweeper = sweep.Sweeper(
            ledger=management.ledger,
            lookout=management.lookout,
            comparer=busy,
            outbox=management.outbox,
            canceller=management.canceller,
            now_ms=management.now_ms,
            age=600,
            rate=1,
        )
        # Their last one may be of this millisecond.
        begin_ms = management.now_ms()
        await until(lambda: management.now_ms() > begin_ms)
        sweeper.compare_all()
        assert [await sweeper.run_once() for _ in range(3)] == [0.0, 0.0, None]
        assert sorted(busy.compared) == sorted(ids)
        # The next pass leaves alone what is new.
        assert await sweeper.run_once() is None
        assert len(busy.compared) == 5


async def test_word_for_the_sweeper_reaches_whoever_sweeps(database: str) -> None:
    async with cluster(database, nodes=2, sweep_age=1) as system:
        first, second = system.nodes
        ids = await created(first, 10)
        await all_there(system, ids)
        holders = [node.management.office.leads for node in system.nodes]
        assert sorted(holders) == [False, True]
        other = second if holders[0] else first
        system.execution.shard.clear()
        other.management.sweeper.compare_all()
        await all_there(system, ids)


async def test_uncertain_is_not_missing(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        ids = await created(node, 3)
        await all_there(system, ids)
        system.execution.recovering = True
        system.execution.shard.clear()
        await until(lambda: system.execution.compared > 10)
        assert not system.execution.shard
        system.execution.recovering = False
        await all_there(system, ids)


async def test_a_pass_goes_over_everything_page_by_page(database: str) -> None:
    async with cluster(database, sweep_rate=100_000) as system:
        (node,) = system.nodes
        system.show_execution([])
        request = task_service_pb2.BatchCreateTasksRequest(tasks=[task_pb2.Task(type="t")] * 500)
        for _ in range(5):
            await node.tasks.BatchCreateTasks(request)
        system.show_execution(["e-1"])
        await until(lambda: len(system.execution.shard) == 2_500)
        system.execution.shard.clear()
        await until(lambda: len(system.execution.shard) == 2_500, "the second pass")


@pytest.mark.parametrize("nodes", [1, 2])
async def test_an_idle_system_compares_nothing(database: str, nodes: int) -> None:
    async with cluster(database, nodes=nodes) as system:
        for node in system.nodes:
            await node.management.sweeper.run_once()
        assert system.execution.compared == 0
