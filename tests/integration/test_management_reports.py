"""Reports of execution and the directives that answer them, over the wire."""

import asyncio
import uuid

import grpc
import pytest
from fixtures.management import Cluster, Node, cluster, report, until

from meshq.contract.errors import InvalidRequest
from meshq.contract.status import from_rpc_error
from meshq.internal.v1 import ledger_service_pb2 as pb
from meshq.v1 import task_pb2

SUCCEEDED = task_pb2.ATTEMPT_OUTCOME_SUCCEEDED
FAILED = task_pb2.ATTEMPT_OUTCOME_FAILED
CANCELLED = task_pb2.ATTEMPT_OUTCOME_CANCELLED
LOST = task_pb2.ATTEMPT_OUTCOME_LOST
STARTED = task_pb2.ATTEMPT_OUTCOME_UNSPECIFIED


async def created(node: Node, **fields: object) -> bytes:
    return uuid.UUID((await node.create(**fields)).task_id).bytes


async def shown(node: Node, task_id: bytes, view: int = task_pb2.TASK_VIEW_BASIC) -> task_pb2.Task:
    return await node.get(str(uuid.UUID(bytes=task_id)), view)


async def test_each_outcome_has_its_directive(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        ids = [await created(node) for _ in range(5)]
        once = await created(node, max_attempts=1)
        unknown = uuid.uuid4().bytes
        directives = await node.report(
            report(ids[0], 1, SUCCEEDED),
            report(ids[1], 1, FAILED, error_type="E", error_message="m\x00", non_retryable=True),
            report(ids[2], 1, CANCELLED),
            report(ids[3], 1, LOST),
            report(ids[4], 1, STARTED),
            report(once, 1, LOST),
            report(unknown, 1, SUCCEEDED),
            report(unknown, 1, STARTED),
        )
        assert [item.kind for item in directives] == [
            pb.DIRECTIVE_KIND_DONE,
            pb.DIRECTIVE_KIND_DONE,
            pb.DIRECTIVE_KIND_DONE,
            pb.DIRECTIVE_KIND_RUN,
            pb.DIRECTIVE_KIND_KEEP,
            pb.DIRECTIVE_KIND_DONE,
            pb.DIRECTIVE_KIND_GONE,
            pb.DIRECTIVE_KIND_GONE,
        ]
        assert [item.state for item in directives[:3]] == [7, 8, 9]
        assert directives[3].attempt == 2
        assert directives[3].not_before_ms
        failed = await shown(node, ids[1])
        assert (failed.error.type, failed.error.message) == ("E", "m\ufffd")
        retried = await shown(node, ids[3])
        assert (retried.state, retried.attempt) == (task_pb2.TASK_STATE_PENDING, 2)
        assert retried.error.type == "LOST"
        running = await shown(node, ids[4])
        assert (running.state, running.worker_id) == (task_pb2.TASK_STATE_RUNNING, "w-1")
        dead = await shown(node, once)
        assert (dead.state, dead.error.type) == (task_pb2.TASK_STATE_FAILED, "LOST")


async def test_a_repeated_report_gets_the_current_directive(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        done, lost = await created(node), await created(node)
        for _ in range(2):
            (directive,) = await node.report(report(done, 1, SUCCEEDED))
            assert (directive.kind, directive.state) == (pb.DIRECTIVE_KIND_DONE, 7)
        for _ in range(2):
            (directive,) = await node.report(report(lost, 1, LOST))
            assert (directive.kind, directive.attempt) == (pb.DIRECTIVE_KIND_RUN, 2)
        # What is recorded first counts, whatever comes later and from where.
        (directive,) = await node.report(report(done, 1, FAILED))
        assert (directive.kind, directive.state) == (pb.DIRECTIVE_KIND_DONE, 7)
        (directive,) = await node.report(report(lost, 2, SUCCEEDED))
        assert directive.kind == pb.DIRECTIVE_KIND_DONE
        (directive,) = await node.report(report(lost, 1, LOST))
        assert directive.kind == pb.DIRECTIVE_KIND_DONE


async def test_one_call_may_name_a_task_more_than_once(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id = await created(node)
        directives = await node.report(
            report(task_id, 1, STARTED), report(task_id, 1, LOST), report(task_id, 2, SUCCEEDED)
        )
        # All are answered by what the call has made of the task, whose second attempt has ended it.
        assert [(item.kind, item.state) for item in directives] == [(pb.DIRECTIVE_KIND_DONE, 7)] * 3
        done = await shown(node, task_id)
        assert (done.state, done.attempt) == (task_pb2.TASK_STATE_SUCCEEDED, 2)
        # A start comes too late where the same call says that the attempt has ended.
        task_id = await created(node)
        directives = await node.report(report(task_id, 1, STARTED), report(task_id, 1, LOST))
        assert [(item.kind, item.attempt) for item in directives] == [(pb.DIRECTIVE_KIND_RUN, 2)] * 2


async def test_many_reports_at_a_time_end_each_task_once(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        first, second = system.nodes
        ids = [await created(first) for _ in range(60)]
        calls = [
            node.report(*(report(task_id, 1, outcome) for task_id in ids))
            for node, outcome in [(first, SUCCEEDED), (second, FAILED), (first, LOST), (second, SUCCEEDED)]
        ]
        answers = await asyncio.gather(*calls)
        for index, task_id in enumerate(ids):
            state = (await shown(first, task_id)).state
            ends = {answer[index].state for answer in answers if answer[index].kind == pb.DIRECTIVE_KIND_DONE}
            assert ends <= {state}
        await end_retried(system, ids)
        (queue,) = await first.management.queue_store.page("default", "", 1, 0)
        assert queue.succeeded + queue.failed == 60


async def end_retried(system: Cluster, ids: list[bytes]) -> None:
    node = system.nodes[0]
    rows = await node.management.ledger.get_tasks(ids, full=False)
    again = [report(row.task_id, row.attempt, SUCCEEDED) for row in rows.values() if not row.ended]
    if again:
        await node.report(*again)


async def test_malformed_reports_are_refused(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await node.report(report(b"short", 1, SUCCEEDED))
        assert isinstance(from_rpc_error(caught.value), InvalidRequest)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await node.report(*[report(bytes(16), 1, SUCCEEDED)] * 1_001)
        assert isinstance(from_rpc_error(caught.value), InvalidRequest)
        assert await node.report() == []


async def test_the_full_view_has_what_execution_recorded(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id, expired = await created(node), await created(node)
        system.execution.record(task_id, 1, FAILED)
        await node.report(report(task_id, 1, FAILED, error_type="ValueError", non_retryable=True))
        full = await shown(node, task_id, task_pb2.TASK_VIEW_FULL)
        assert full.error.traceback == "line 1"
        assert not (await shown(node, task_id)).error.traceback
        await node.report(report(expired, 1, SUCCEEDED))
        full = await shown(node, expired, task_pb2.TASK_VIEW_FULL)
        assert full.error.type == "RESULT_EXPIRED"
        assert full.WhichOneof("output") is None


async def test_a_result_that_is_late_is_waited_for(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id = await created(node)
        await node.report(report(task_id, 1, SUCCEEDED))
        reading = asyncio.create_task(shown(node, task_id, task_pb2.TASK_VIEW_FULL))
        await until(lambda: not reading.done())
        system.execution.record(task_id, 1, SUCCEEDED, "late")
        assert (await reading).result.string_value == "late"
