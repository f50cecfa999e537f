"""Cancelling and deleting, with the interleavings that they have to bear."""

import asyncio
import uuid

import grpc
import pytest
from fixtures.management import Node, cluster, report, until

from meshq.contract.errors import DeadlineExceeded, InvalidRequest, MeshqError, NotFound, PreconditionFailed
from meshq.contract.status import from_rpc_error
from meshq.internal.v1 import ledger_service_pb2 as pb
from meshq.v1 import task_pb2, task_service_pb2

SUCCEEDED = task_pb2.ATTEMPT_OUTCOME_SUCCEEDED
CANCELLED = task_pb2.ATTEMPT_OUTCOME_CANCELLED
LOST = task_pb2.ATTEMPT_OUTCOME_LOST


async def cancel(node: Node, task_id: bytes, reason: str = "why") -> task_pb2.Task:
    text = str(uuid.UUID(bytes=task_id))
    return await node.tasks.CancelTask(task_service_pb2.CancelTaskRequest(task_id=text, reason=reason))


async def delete(node: Node, task_id: bytes, *, force: bool = False, seconds: float = 10) -> task_pb2.Task:
    request = task_service_pb2.DeleteTaskRequest(task_id=str(uuid.UUID(bytes=task_id)), force=force)
    return await node.tasks.DeleteTask(request, timeout=seconds)


async def created(node: Node) -> bytes:
    return uuid.UUID((await node.create()).task_id).bytes


async def state(node: Node, task_id: bytes) -> int:
    return (await node.get(str(uuid.UUID(bytes=task_id)))).state


async def test_a_waiting_task_is_taken_off_its_shard(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id = await created(node)
        await until(lambda: task_id in system.execution.shard)
        task = await cancel(node, task_id)
        assert (task.state, task.cancel_reason) == (task_pb2.TASK_STATE_CANCELLED, "why")
        assert task.HasField("cancel_time")
        assert task_id not in system.execution.shard
        again = await cancel(node, task_id, "other")
        assert (again.state, again.cancel_reason) == (task_pb2.TASK_STATE_CANCELLED, "why")


async def test_a_task_that_no_shard_knows_yet_cannot_come_back(database: str) -> None:
    async with cluster(database, sweep_age=600) as system:
        (node,) = system.nodes
        system.show_execution([])
        task_id = await created(node)
        assert (await cancel(node, task_id)).state == task_pb2.TASK_STATE_CANCELLED
        # The dispatch was overtaken: it meets the tombstone.
        system.show_execution(["e-1"])
        await until(lambda: system.execution.frames)
        assert task_id not in system.execution.shard


@pytest.mark.parametrize(
    ("outcome", "end"),
    [
        (SUCCEEDED, task_pb2.TASK_STATE_SUCCEEDED),
        (CANCELLED, task_pb2.TASK_STATE_CANCELLED),
        (LOST, task_pb2.TASK_STATE_CANCELLED),
    ],
)
async def test_a_task_at_a_worker_ends_by_its_outcome(database: str, outcome: int, end: int) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id = await created(node)
        await until(lambda: task_id in system.execution.shard)
        system.execution.lease(task_id)
        assert (await cancel(node, task_id)).state == task_pb2.TASK_STATE_CANCELLING
        assert await state(node, task_id) == task_pb2.TASK_STATE_CANCELLING
        (directive,) = await node.report(report(task_id, 1, outcome))
        assert (directive.kind, directive.state) == (pb.DIRECTIVE_KIND_DONE, end)


async def test_an_outcome_that_was_recorded_first_stands(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id = await created(node)
        await until(lambda: task_id in system.execution.shard)
        system.execution.record(task_id, 1, SUCCEEDED)

        async def finish_meanwhile() -> None:
            await node.report(report(task_id, 1, SUCCEEDED))

        system.execution.before_withdraw = finish_meanwhile
        assert (await cancel(node, task_id)).state == task_pb2.TASK_STATE_SUCCEEDED


async def test_the_withdrawal_is_repeated_until_it_is_certain(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id = await created(node)
        await until(lambda: task_id in system.execution.shard)
        system.execution.recovering = True
        assert (await cancel(node, task_id)).state == task_pb2.TASK_STATE_CANCELLING
        await until(lambda: system.execution.withdrawn > 2, "the repeated withdrawal")
        system.execution.recovering = False

        async def ended() -> bool:
            return await state(node, task_id) == task_pb2.TASK_STATE_CANCELLED

        await until(ended, "the end")


async def test_bad_cancellations_are_named(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        unknown = str(uuid.uuid4())
        cases: list[tuple[dict[str, str], type[MeshqError]]] = [
            ({"task_id": "x"}, InvalidRequest),
            ({"task_id": unknown, "reason": "x" * 1_025}, InvalidRequest),
            ({"task_id": unknown}, NotFound),
        ]
        for fields, error in cases:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await node.tasks.CancelTask(task_service_pb2.CancelTaskRequest(**fields))
            assert isinstance(from_rpc_error(caught.value), error)


async def test_an_ended_task_is_deleted_and_forgotten(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id = await created(node)
        system.execution.record(task_id, 1, SUCCEEDED, "r")
        await node.report(report(task_id, 1, SUCCEEDED))
        assert (await delete(node, task_id)).result.string_value == "r"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await delete(node, task_id)
        assert isinstance(from_rpc_error(caught.value), NotFound)
        await node.management.housekeeping.run_once()
        assert set(system.execution.forgotten) == {task_id}
        (directive,) = await node.report(report(task_id, 1, SUCCEEDED))
        assert directive.kind == pb.DIRECTIVE_KIND_GONE


async def test_an_open_task_is_not_deleted_without_force(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id = await created(node)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await delete(node, task_id)
        assert isinstance(from_rpc_error(caught.value), PreconditionFailed)


async def test_force_cancels_and_waits_for_the_end(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        first, second = system.nodes
        task_id = await created(first)
        await until(lambda: task_id in system.execution.shard)
        system.execution.lease(task_id)
        deleting = asyncio.create_task(delete(first, task_id, force=True))
        await until(lambda: system.execution.withdrawn)
        assert not deleting.done()
        # The end is committed by the other instance.
        await second.report(report(task_id, 1, CANCELLED))
        assert (await deleting).state == task_pb2.TASK_STATE_CANCELLED
        with pytest.raises(grpc.aio.AioRpcError):
            await state(second, task_id)


async def test_force_gives_up_with_the_deadline(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id = await created(node)
        await until(lambda: task_id in system.execution.shard)
        system.execution.lease(task_id)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await delete(node, task_id, force=True, seconds=1)
        assert isinstance(from_rpc_error(caught.value), DeadlineExceeded)
        assert await state(node, task_id) == task_pb2.TASK_STATE_CANCELLING
