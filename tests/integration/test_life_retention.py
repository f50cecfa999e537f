"""For how long attempts are kept, with management and execution together, on real shards and databases."""

import time
import uuid

import psycopg
from fixtures.life import attempts, life
from fixtures.management import until
from google.protobuf.duration_pb2 import Duration

from meshq.contract.ids import make_ids_by
from meshq.execution.conversion.ledger import GrpcLedger
from meshq.execution.postgres.partitions import PartitionKeeper
from meshq.execution.spans import DAY_MS
from meshq.v1 import task_pb2
from meshq.v1 import task_service_pb2 as pb

__all__ = ["attempts"]


async def execute(database: str, statement: str, *values: int) -> None:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        await connection.execute(statement.encode(), values)


async def test_attempts_live_as_long_as_a_task_that_ended_long_after_them(
    database: str, attempts: str, shards: dict[str, str]
) -> None:
    async with life(database, attempts, shards) as system:
        (node,) = system.management.nodes
        execution = system.execution.instances[0].execution
        now_ms = int(time.time() * 1_000)
        make_ids_by(lambda: now_ms - 10 * DAY_MS)
        try:
            task = await node.create()
        finally:
            make_ids_by(None)
        worker = await system.worker()
        (token,) = await worker.next_task()
        await worker.report(token, snooze={"delay": Duration(seconds=30 * 86_400)})

        async def stands_at(state: int) -> bool:
            return (await node.get(task.task_id)).state == state

        await until(lambda: stands_at(task_pb2.TASK_STATE_SCHEDULED), "the end of the attempt")
        await execute(attempts, "UPDATE attempts SET end_ms = end_ms - %s", 9 * DAY_MS)
        ledger = GrpcLedger(node.channel)
        keeper = PartitionKeeper(execution.database, ledger.attempted, lambda: now_ms)

        async def listed() -> list[int]:
            await keeper.run_once()
            answer = await node.tasks.ListAttempts(pb.ListAttemptsRequest(task_id=task.task_id))
            return [item.attempt for item in answer.attempts]

        assert await listed() == [1]
        await node.tasks.CancelTask(pb.CancelTaskRequest(task_id=task.task_id))
        await until(lambda: stands_at(task_pb2.TASK_STATE_CANCELLED), "the end of the task")
        assert await listed() == [1]
        await execute(database, "UPDATE finished_tasks SET leave_ms = %s", now_ms - 1)
        await keeper.run_once()
        assert await execution.attempts.list(uuid.UUID(task.task_id).bytes) == []
