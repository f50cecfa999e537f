"""What one instance does for all: done by two at once it is done once, and a former one does nothing more."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import timedelta
from math import inf
from typing import Any

import psycopg
import pytest
from fixtures.management import Cluster, Node, cluster, report, until

from meshq.contract.errors import Aborted
from meshq.v1 import task_pb2, task_service_pb2

SUCCEEDED = task_pb2.ATTEMPT_OUTCOME_SUCCEEDED
COUNT = 30


async def leaders(system: Cluster) -> list[Node]:
    """Two instances which both believe to be in office, in the same term."""
    first, second = system.nodes
    await until(lambda: first.management.office.leads or second.management.office.leads, "somebody in office")
    if second.management.office.leads:
        first, second = second, first
    office = second.management.office
    await office.stop()
    office.term = first.management.office.term
    office._trusted_until = inf
    return [first, second]


def raw(task: task_pb2.Task) -> bytes:
    return uuid.UUID(task.task_id).bytes


async def made(node: Node, **fields: Any) -> list[bytes]:
    tasks = [task_pb2.Task(type="t", **fields)] * COUNT
    answer = await node.tasks.BatchCreateTasks(task_service_pb2.BatchCreateTasksRequest(tasks=tasks))
    return [uuid.UUID(result.task_id).bytes for result in answer.results]


def query(system: Cluster, statement: str) -> Any:
    with psycopg.connect(system.database_url) as connection:
        row = connection.execute(statement.encode()).fetchone()
        assert row is not None
        return row[0]


async def test_two_sweepers_bring_back_what_is_lost(database: str) -> None:
    async with cluster(database, nodes=2, sweep_age=0.2) as system:
        both = await leaders(system)
        ids = await made(both[0])
        await until(lambda: len(system.execution.shard) == COUNT)
        system.execution.shard.clear()
        await until(lambda: len(system.execution.shard) == COUNT)
        await asyncio.gather(*(node.management.sweeper.run_once() for node in both))
        assert {item.attempt for item in system.execution.shard.values()} == {1}
        await both[1].report(*(report(task_id, 1, SUCCEEDED) for task_id in ids))
        assert query(system, "SELECT count(*) FROM finished_tasks WHERE state = 7") == COUNT
        assert query(system, "SELECT sum(succeeded) FROM queue_counters") == COUNT


async def test_two_keepers_of_deadlines_end_each_task_once(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        both = await leaders(system)
        for node in both:
            await made(node, schedule_to_close_timeout=timedelta(seconds=0.5))
        expired = "SELECT count(*) FROM finished_tasks WHERE state = 10"
        await until(lambda: query(system, expired) == 2 * COUNT, "the ends")
        assert query(system, "SELECT sum(expired) FROM queue_counters") == 2 * COUNT
        assert query(system, "SELECT count(*) FROM open_tasks") == 0


async def test_a_deadline_of_whoever_is_not_in_office_is_kept_in_time(database: str) -> None:
    async with cluster(database, nodes=2, sweep_age=600) as system:
        first, second = system.nodes
        await until(lambda: first.management.office.leads or second.management.office.leads)
        other = second if first.management.office.leads else first
        # The next look at the ledger is minutes away.
        await other.management.lookout.stop()
        await (first if other is second else second).management.lookout.stop()
        task = await other.create(schedule_to_close_timeout=timedelta(seconds=0.3))

        async def over() -> bool:
            return (await other.get(task.task_id)).state == task_pb2.TASK_STATE_EXPIRED

        await until(over, "the end")


async def test_two_promoters_dispatch_what_comes_near(database: str) -> None:
    async with cluster(database, nodes=2, sweep_age=600) as system:
        both = await leaders(system)
        for node in both:
            await node.management.promoter.run_once()
        ids = await made(both[1], start_delay=timedelta(minutes=7))
        assert not system.execution.shard
        for node in both:
            clock = node.management.now_ms
            node.management.promoter._now_ms = lambda clock=clock: clock() + 3 * 60_000  # type: ignore[misc]
        await asyncio.gather(*(node.management.promoter.run_once() for node in both))
        await until(lambda: system.execution.shard.keys() == set(ids))
        assert {item.attempt for item in system.execution.shard.values()} == {1}


async def test_two_look_through_the_chains(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        both = await leaders(system)
        for node in both:
            node.management.chains.release = lambda keys: None  # type: ignore[method-assign]
        chains = [[await both[0].create(ordering_key=f"k{n}") for _ in range(3)] for n in range(3)]
        for at in range(3):
            heads = {raw(chain[at]) for chain in chains}
            behind = {raw(task) for chain in chains for task in chain[at + 1 :]}

            async def gone(heads: set[bytes] = heads) -> bool:
                await asyncio.gather(*(node.management.chains.run_once() for node in both))
                return heads <= system.execution.shard.keys()

            await until(gone, "the release of the heads")
            assert not behind & system.execution.shard.keys()
            await both[1].report(*(report(task_id, 1, SUCCEEDED) for task_id in heads))
        assert query(system, "SELECT count(*) FROM finished_tasks WHERE state = 7") == 9


async def test_two_keep_house(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        both = await leaders(system)
        task = await both[0].create(unique_key="u", ordering_key="o", request_id="r")
        await both[0].report(report(raw(task), 1, SUCCEEDED))
        await both[1].tasks.DeleteTask(task_service_pb2.DeleteTaskRequest(task_id=task.task_id))
        query(system, "WITH u AS (UPDATE claims SET create_ms = 0) SELECT 1")
        for _ in range(2):
            await asyncio.gather(*(node.management.housekeeping.run_once() for node in both))
            await asyncio.gather(*(node.management.forgetter.run_once() for node in both))
            await asyncio.gather(*(node.management.forgetter.run_once() for node in both))
        assert set(system.execution.forgotten) == {raw(task)}
        for table in ("deletions", "claims", "unique_keys", "ordering_keys"):
            assert query(system, f"SELECT count(*) FROM {table}") == 0
        assert (await both[0].create(unique_key="u", ordering_key="o")).task_id != task.task_id


async def test_who_was_in_office_before_changes_nothing_more(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        management = node.management
        await until(lambda: management.office.leads, "the office")
        # As if another instance had taken the office: the next look tells, and it stands for the office anew.
        query(system, "UPDATE offices SET term = term + 1, holder = 'm-2' RETURNING 1")
        await until(lambda: management.office.term == 3, "the next term")
        # As if it had been stopped, and did not know.
        await management.office.stop()
        query(system, "INSERT INTO claims VALUES ('c', 0, 0, '') RETURNING 1")
        query(system, "UPDATE offices SET term = term + 1, holder = 'm-2' RETURNING 1")
        management.office.term, management.office._trusted_until = 3, inf
        for work in (
            management.kept.expire_claims(int(time.time() * 1_000), 10),
            management.kept.prepare_days([0]),
            management.kept.forget_deletions([]),
        ):
            with pytest.raises(Aborted):
                await work
        assert query(system, "SELECT count(*) FROM claims") == 1
        assert query(system, "SELECT to_regclass('finished_tasks_19700101') IS NULL")
