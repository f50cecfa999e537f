"""A task's way through management, with execution played by the test."""

import uuid

from fixtures.management import Cluster, cluster, report, until

from meshq.internal.v1 import ledger_service_pb2
from meshq.v1 import queue_service_pb2, task_pb2

SUCCEEDED = task_pb2.ATTEMPT_OUTCOME_SUCCEEDED
FAILED = task_pb2.ATTEMPT_OUTCOME_FAILED
LOST = task_pb2.ATTEMPT_OUTCOME_LOST


async def on_shard(system: Cluster, task: task_pb2.Task) -> bytes:
    task_id = uuid.UUID(task.task_id).bytes
    await until(lambda: task_id in system.execution.shard, "the dispatch")
    return task_id


async def test_a_task_is_accepted_dispatched_and_ended(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        created = await node.create(payload={"string_value": "a b c"}, queue="q", headers={"k": "v"})
        assert created.state == task_pb2.TASK_STATE_PENDING
        assert created.attempt == 1
        task_id = await on_shard(system, created)
        dispatched = task_pb2.Task.FromString(system.execution.shard[task_id].spec)
        assert dispatched.task_id == created.task_id
        assert dispatched.payload.string_value == "a b c"
        assert dispatched.create_time == created.create_time
        system.execution.record(task_id, 1, SUCCEEDED, "done")
        (directive,) = await node.report(report(task_id, 1, SUCCEEDED))
        assert directive.kind == ledger_service_pb2.DIRECTIVE_KIND_DONE
        assert directive.state == task_pb2.TASK_STATE_SUCCEEDED
        task = await node.get(created.task_id, task_pb2.TASK_VIEW_FULL)
        assert task.state == task_pb2.TASK_STATE_SUCCEEDED
        assert task.result.string_value == "done"
        assert task.payload.string_value == "a b c"
        assert task.worker_id == "w-1"
        queue = await node.queues.GetQueue(queue_service_pb2.GetQueueRequest(queue="q"))
        assert (queue.counts.open, queue.counts.succeeded) == (0, 1)
        assert queue.complete
