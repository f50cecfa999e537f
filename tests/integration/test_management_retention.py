"""Ended tasks leave with their day; open ones stay."""

import asyncio
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any

import grpc
import psycopg
import pytest
from fixtures.execution import wait_until
from fixtures.management import Node, cluster, report
from fixtures.offices import InOffice
from fixtures.partitions import refuse_moves

from meshq.management.housekeeping import Housekeeping
from meshq.management.lookout import Lookout
from meshq.management.model.task import TaskId
from meshq.v1 import queue_service_pb2, task_pb2
from meshq.v1 import task_service_pb2 as pb

SUCCEEDED = task_pb2.ATTEMPT_OUTCOME_SUCCEEDED
DAY_MS = 86_400_000


async def keep_house(node: Node, days: int) -> None:
    """What an instance does for all, so many days from now."""
    management = node.management

    def now_ms() -> int:
        return management.now_ms() + days * DAY_MS

    await Housekeeping(
        management.ledger,
        management.ledger,
        Lookout(management.ledger, InOffice(), 5),
        Alone(),
        now_ms,
        retentions=management.book.retentions,
    ).run_once()


class Alone:
    """Nobody to be told."""

    async def forget(self, task_ids: Sequence[TaskId]) -> None:
        del task_ids


async def there(node: Node, *tasks: task_pb2.Task) -> list[bool]:
    found = await node.tasks.BatchGetTasks(pb.BatchGetTasksRequest(task_ids=[task.task_id for task in tasks]))
    return [task.task_id not in found.missing_task_ids for task in tasks]


async def test_each_queue_keeps_its_ended_tasks_for_its_own_days(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        short = queue_service_pb2.Queue(queue="short", retention_days=1)
        await node.queues.CreateQueue(queue_service_pb2.CreateQueueRequest(queue=short))
        brief, usual = await node.create(queue="short"), await node.create()
        for task in (brief, usual):
            await node.report(report(uuid.UUID(task.task_id).bytes, 1, SUCCEEDED))
        kept = await node.create(queue="short")
        await keep_house(node, 0)
        assert await there(node, brief, usual, kept) == [True, True, True]
        await keep_house(node, 2)
        assert await there(node, brief, usual, kept) == [False, True, True]
        await keep_house(node, 9)
        assert await there(node, brief, usual, kept) == [False, False, True]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await node.get(usual.task_id)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_what_cannot_be_moved_into_its_day_leaves_all_the_same(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        for _ in range(2):
            await node.report(report(uuid.UUID((await node.create()).task_id).bytes, 1, SUCCEEDED))
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            await refuse_moves(connection, "finished_tasks_default")
            await connection.execute("UPDATE finished_tasks SET leave_ms = leave_ms + %s", [20 * DAY_MS])
            for days, left in ((0, 2), (26, 2), (28, 0)):
                await keep_house(node, days)
                cursor = await connection.execute("SELECT count(*) FROM finished_tasks_default")
                assert await cursor.fetchone() == (left,), days


async def test_a_task_may_end_while_its_day_comes_into_being(database: str) -> None:
    """What waits for the default partition meanwhile would be refused there; it is tried again."""
    async with cluster(database) as system:
        (node,) = system.nodes
        task = await node.create()
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            await connection.execute("TRUNCATE finished_tasks")
            days = await (
                await connection.execute(
                    "SELECT i.inhrelid::regclass::text FROM pg_inherits AS i "
                    "WHERE i.inhparent = 'finished_tasks'::regclass "
                    "AND i.inhrelid <> 'finished_tasks_default'::regclass"
                )
            ).fetchall()
            for (day,) in days:
                await connection.execute(f"DROP TABLE {day}".encode())
            async with connection.transaction():
                await connection.execute("CREATE TABLE finished_tasks_soon (LIKE finished_tasks)")
                await connection.execute(
                    "ALTER TABLE finished_tasks ATTACH PARTITION finished_tasks_soon "
                    f"FOR VALUES FROM (0) TO ({1 << 60})".encode()
                )
                ending = asyncio.create_task(node.report(report(uuid.UUID(task.task_id).bytes, 1, SUCCEEDED)))
                await wait_until(partial(waiting, connection), "the end waits for the partition")
        (directive,) = await ending
        assert directive.state == task_pb2.TASK_STATE_SUCCEEDED


async def waiting(connection: psycopg.AsyncConnection[Any]) -> bool:
    cursor = await connection.execute(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'finished_tasks_default'::regclass"
    )
    return await cursor.fetchone() == (1,)
