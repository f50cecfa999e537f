"""Unary workers: polls, heartbeats and completions, on any instance."""

import asyncio
import time
import uuid
from typing import Any

import grpc
import pytest
from fixtures.execution import Cluster, Instance, cluster, wait_until
from google.protobuf.duration_pb2 import Duration

from meshq.contract.errors import InvalidRequest, MeshqError, Reason
from meshq.contract.limits import MAX_PAYLOAD_BYTES
from meshq.contract.status import from_rpc_error
from meshq.internal.v1 import dispatch_service_pb2 as dispatch_pb
from meshq.v1 import task_pb2
from meshq.v1 import worker_service_pb2 as pb

ACCEPTED, LEASE_LOST = 1, 2


def seconds(value: float) -> Duration:
    found = Duration()
    found.FromMilliseconds(int(value * 1000))
    return found


async def polled(instance: Instance, wait: float = 0, **fields: Any) -> list[pb.Assignment]:
    values: dict[str, Any] = {"worker_id": "p", "task_types": ["t"], "max_tasks": 10} | fields
    response = await instance.worker.PollTasks(pb.PollTasksRequest(wait_timeout=seconds(wait), **values))
    return list(response.assignments)


async def completed(instance: Instance, *results: pb.TaskResult) -> list[int]:
    request = pb.CompleteTasksRequest(worker_id="p", results=results)
    return [ack.status for ack in (await instance.worker.CompleteTasks(request)).acks]


def success(token: bytes) -> pb.TaskResult:
    return pb.TaskResult(lease_token=token, success=pb.Success(data=b"out"))


async def error_of(call: Any) -> MeshqError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_a_poll_leases_and_any_instance_completes(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        ids = await system.dispatcher(first).many(7)
        assignments = await polled(second)
        assert len(assignments) == 7
        assert all(item.task.data == b"in" and item.attempt == 1 for item in assignments)
        now = time.time()
        assert all(20 < item.expire_time.ToSeconds() - now < 40 for item in assignments)
        tokens = [item.lease_token for item in assignments]
        results = [success(token) for token in tokens[:-1]]
        error = task_pb2.TaskError(type="Broken", message="no")
        results.append(pb.TaskResult(lease_token=tokens[-1], failure=pb.Failure(error=error)))
        assert await completed(first, *results) == [ACCEPTED] * 7
        assert await completed(second, *results) == [ACCEPTED] * 7
        await wait_until(lambda: set(system.ledger.ended()) == set(ids))
        assert await polled(first) == []


async def test_a_waiting_poll_is_woken_by_a_task(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        waiting = asyncio.create_task(polled(second, 30, max_tasks=1))
        await wait_until(lambda: second.execution.polls._waiting)
        await system.dispatcher(first).one()
        assert len(await asyncio.wait_for(waiting, 10)) == 1
        begun = time.monotonic()
        assert await polled(second, 0.3) == []
        assert time.monotonic() - begun >= 0.3


async def test_polls_take_what_comes_first_over_all_shards(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        dispatcher = system.dispatcher(instance)
        items = [dispatcher.item(("t", "u")[n % 2], priority=n % 3 * 4) for n in range(36)]
        assert await dispatcher.send(*items) == {}
        priorities = {str(uuid.UUID(bytes=item.task_id)): item.priority for item in items}
        found = []
        for _ in items:
            [assignment] = await polled(instance, task_types=["t", "u"], max_tasks=1)
            found.append(priorities[assignment.task.task_id])
        assert found == sorted(found, reverse=True)


async def test_polls_keep_no_fairness_key_waiting_for_another_one(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        dispatcher = system.dispatcher(instance)
        past = int(time.time() * 1000) - 60_000
        many = [dispatcher.item(fairness_key="big", ready_time_ms=past + n) for n in range(300)]
        few = [dispatcher.item(fairness_key=f"small-{n}") for n in range(6)]
        assert await dispatcher.send(*many, *few) == {}
        waiting = {str(uuid.UUID(bytes=item.task_id)) for item in few}
        for _ in range(40):
            [assignment] = await polled(instance, max_tasks=1)
            waiting.discard(assignment.task.task_id)
        assert not waiting


async def test_a_repeated_poll_gets_the_same_leases_on_another_instance(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        await system.dispatcher(first).many(6)
        given = await polled(first, request_id="r-1", max_tasks=4)
        again = await polled(second, request_id="r-1", max_tasks=4)
        key = "lease_token"
        assert sorted(getattr(item, key) for item in again) == sorted(getattr(item, key) for item in given)
        assert len(await polled(second, request_id="r-2")) == 2
        await completed(first, *(success(item.lease_token) for item in given[:3]))
        await wait_until(lambda: len(system.ledger.ended()) == 3)

        async def one_left() -> bool:
            return len(await polled(first, request_id="r-1")) == 1

        await wait_until(one_left)


async def test_heartbeats_renew_and_tell_of_cancels_and_losses(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        kept, lost = await system.dispatcher(first).many(2)
        assignments = await polled(first, lease_ttl=seconds(1))
        tokens = {task_of(item): item.lease_token for item in assignments}
        beats = 0

        async def other_is_lost() -> Any:
            nonlocal beats
            beats += 1
            await second.worker.HeartbeatTasks(
                pb.HeartbeatTasksRequest(worker_id="p", lease_tokens=[tokens[kept]])
            )
            return system.ledger.of(lost, 4)

        await wait_until(other_is_lost)
        assert not system.ledger.of(kept, 4)
        await second.dispatch.WithdrawTasks(
            dispatch_pb.WithdrawTasksRequest(
                withdrawals=[dispatch_pb.Withdrawal(task_id=kept, attempt=1, reason="stop", tenant="default")]
            )
        )
        progress = pb.LeaseProgress(lease_token=tokens[kept], fraction=0.1)
        answer = await first.worker.HeartbeatTasks(
            pb.HeartbeatTasksRequest(worker_id="p", lease_tokens=[tokens[lost]], progress=[progress])
        )
        assert [(item.lease_token, item.reason) for item in answer.cancels] == [(tokens[kept], "stop")]
        assert list(answer.lost_lease_tokens) == [tokens[lost]]


def task_of(item: pb.Assignment) -> bytes:
    import uuid

    return uuid.UUID(item.task.task_id).bytes


async def test_released_tasks_can_be_polled_again(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        await system.dispatcher(instance).many(2)
        first, second = await polled(instance)
        back = pb.TaskResult(lease_token=first.lease_token, release=pb.Release())
        assert await completed(instance, back, success(second.lease_token), back) == [
            ACCEPTED,
            ACCEPTED,
            LEASE_LOST,
        ]
        (again,) = await polled(instance)
        assert again.attempt == 1
        assert again.task.task_id == first.task.task_id


async def test_a_poll_that_was_given_up_takes_nothing_along(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        call = instance.worker.PollTasks(
            pb.PollTasksRequest(worker_id="gone", task_types=["t"], wait_timeout=seconds(30))
        )
        await wait_until(lambda: instance.execution.polls._waiting)
        call.cancel()
        await wait_until(lambda: not instance.execution.polls._waiting)
        await system.dispatcher(instance).one()
        assert len(await polled(instance, 5)) == 1


async def test_polls_say_when_no_shard_answers(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        for shard in instance.execution.shards.all():
            shard.detach()
        error = await error_of(polled(instance))
        assert error.reason is Reason.SHARD_UNAVAILABLE
        assert error.retry_delay is not None


BAD_POLLS: list[tuple[dict[str, Any], str]] = [
    ({"worker_id": ""}, "worker_id"),
    ({"task_types": []}, "task_types"),
    ({"task_types": ["x" * 129]}, "task_types[0]"),
    ({"queues": ["ok", ""]}, "queues[1]"),
    ({"max_tasks": 1_001}, "max_tasks"),
    ({"max_tasks": -1}, "max_tasks"),
    ({"lease_ttl": seconds(0.5)}, "lease_ttl"),
    ({"lease_ttl": seconds(50_000)}, "lease_ttl"),
    ({"request_id": "with space"}, "request_id"),
    ({"wait": 61.0}, "wait_timeout"),
    ({"wait": -1.0}, "wait_timeout"),
]


async def test_bad_calls_name_their_fields(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        for fields, field in BAD_POLLS:
            assert await field_of(polled(instance, **fields)) == field
        worker = instance.worker
        for heartbeat, field in (
            (pb.HeartbeatTasksRequest(worker_id="p"), "lease_tokens"),
            (pb.HeartbeatTasksRequest(worker_id="p", lease_tokens=[b"x"]), "lease_tokens[0]"),
            (
                pb.HeartbeatTasksRequest(worker_id="p", progress=[pb.LeaseProgress(lease_token=b"x")]),
                "progress[0].lease_token",
            ),
        ):
            assert await field_of(worker.HeartbeatTasks(heartbeat)) == field
        await system.dispatcher(instance).one()
        (item,) = await polled(instance)
        token = item.lease_token
        large = pb.Success(data=b"x" * (MAX_PAYLOAD_BYTES + 1))
        for results, field in (
            ([], "results"),
            ([success(token), success(b"junk")], "results[1].lease_token"),
            ([pb.TaskResult(lease_token=token)], "results[0].outcome"),
            ([pb.TaskResult(lease_token=token, success=large)], "results[0].success.data"),
        ):
            request = pb.CompleteTasksRequest(worker_id="p", results=results)
            assert await field_of(worker.CompleteTasks(request)) == field
        assert await field_of(worker.ListWorkers(pb.ListWorkersRequest(page_size=1_001))) == "page_size"
        assert await field_of(worker.ListWorkers(pb.ListWorkersRequest(page_token="/"))) == "page_token"


async def field_of(call: Any) -> str:
    error = await error_of(call)
    assert isinstance(error, InvalidRequest)
    return error.violations[0].field


async def test_polling_workers_are_remembered(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        await system.dispatcher(instance).many(3)
        assignments = await polled(instance, queues=["default", "more"])
        (worker,) = (await instance.worker.ListWorkers(pb.ListWorkersRequest())).workers
        assert worker.mode == pb.WORKER_MODE_POLL
        assert worker.leases == 3
        assert list(worker.queues) == ["default", "more"]
        await completed(instance, *(success(item.lease_token) for item in assignments))
        worker = await instance.worker.GetWorker(pb.GetWorkerRequest(worker_id="p"))
        assert worker.leases == 0


async def long_running_is_reported(system: Cluster, task_id: bytes) -> Any:
    return await wait_until(lambda: system.ledger.of(task_id, 0))


async def test_polled_tasks_are_reported_as_started(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        task_id = await system.dispatcher(instance).one()
        await polled(instance)
        (report,) = await long_running_is_reported(system, task_id)
        assert report.worker_id == "p"
