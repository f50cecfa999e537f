"""Tasks that somebody else completes: by anybody with the token, in time, across shards and instances."""

import time
import uuid

import pytest
from fixtures.execution import (
    DONE,
    KEEP,
    Cluster,
    FrameWorker,
    Instance,
    attempts_of,
    cluster,
    completed,
    polled,
    seconds,
    traits,
    wait_until,
    withdrawn,
)

from meshq.execution.conversion.tokens import decode_token
from meshq.execution.ring.shard import ShardState
from meshq.internal.v1 import ledger_service_pb2 as ledger_pb
from meshq.v1 import task_pb2
from meshq.v1 import worker_service_pb2 as pb

SUCCEEDED, FAILED, CANCELLED, LOST, TIMED_OUT = 1, 2, 3, 4, 5
ACCEPTED, LEASE_LOST = 1, 2
LEASED = 2


def settle(report: ledger_pb.AttemptReport) -> ledger_pb.Directive:
    """Ends whatever has ended."""
    return ledger_pb.Directive(kind=DONE if report.outcome else KEEP)


def later(lasts: float) -> pb.FinishLater:
    return pb.FinishLater(timeout=seconds(lasts))


async def deferred(
    system: Cluster, instance: Instance, lasts: float = 30, special: bytes = b""
) -> tuple[FrameWorker, bytes, bytes]:
    """A task of a session that is finished later: the worker, the task and its token."""
    worker = await system.worker(instance).connect(credit=1)
    task_id = await system.dispatcher(instance).one(traits=special)
    (token,) = await worker.next_task()
    await worker.report(token, finish_later=later(lasts))
    await wait_until(lambda: worker.acks.get(token) == ACCEPTED)
    return worker, task_id, token


def success(token: bytes) -> pb.TaskResult:
    return pb.TaskResult(lease_token=token, success=pb.Success(data=b"late"))


async def test_anybody_with_the_token_completes_it_on_any_instance(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(lease_ttl=1.0), await system.start(lease_ttl=1.0)
        system.ledger.answer = settle
        worker, task_id, token = await deferred(system, first)
        # The worker is free, and its end does not end the task.
        await worker.credit(1)
        await system.dispatcher(first).one()
        await worker.next_task(2)
        assert list(first.execution.sessions.all()[0].leases) != [token]
        await worker.close()
        until = time.monotonic() + 2.5
        await wait_until(lambda: time.monotonic() > until)
        assert system.ledger.of(task_id, LOST) == []
        assert await completed(second, success(token), success(token)) == [ACCEPTED, ACCEPTED]
        await wait_until(lambda: system.ledger.of(task_id, SUCCEEDED))
        (attempt,) = await attempts_of(second, task_id)
        assert attempt.outcome == SUCCEEDED


async def test_a_polled_task_is_finished_later_too(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = settle
        task_id = await system.dispatcher(instance).one()
        (item,) = await polled(instance, lease_ttl=seconds(1))
        put_off = pb.TaskResult(lease_token=item.lease_token, finish_later=later(20))
        assert await completed(instance, put_off) == [ACCEPTED]
        assert await completed(instance, put_off) == [ACCEPTED]
        until = time.monotonic() + 1.5
        await wait_until(lambda: time.monotonic() > until)
        failure = pb.Failure(error=task_pb2.TaskError(type="Declined"), non_retryable=True)
        assert await completed(instance, pb.TaskResult(lease_token=item.lease_token, failure=failure)) == [
            ACCEPTED
        ]
        (report,) = await wait_until(lambda: system.ledger.of(task_id, FAILED))
        assert (report.error_type, report.non_retryable) == ("Declined", True)
        assert await completed(instance, put_off) == [LEASE_LOST]


async def test_what_nobody_completes_in_time_has_timed_out(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = settle
        worker, task_id, token = await deferred(system, instance, 1)
        (report,) = await wait_until(lambda: system.ledger.of(task_id, TIMED_OUT))
        assert (report.error_type, report.worker_id) == ("FINISH_LATER_TIMEOUT", "w-1")
        assert await completed(instance, success(token)) == [LEASE_LOST]
        assert worker.error is None


async def test_heartbeats_prolong_the_time_and_the_handler_has_none(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = settle
        special = traits(start_to_close_timeout=seconds(1), heartbeat_timeout=seconds(0.5))
        _, task_id, token = await deferred(system, instance, 1, special)
        until = time.monotonic() + 2.5
        beat = pb.HeartbeatTasksRequest(worker_id="somebody", lease_tokens=[token])

        async def prolong() -> bool:
            assert list((await instance.worker.HeartbeatTasks(beat)).lost_lease_tokens) == []
            return time.monotonic() > until

        await wait_until(prolong)
        assert not system.ledger.of(task_id, TIMED_OUT)
        assert await completed(instance, success(token)) == [ACCEPTED]


async def test_it_survives_its_shard(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = settle
        worker, task_id, token = await deferred(system, instance)
        await worker.close()
        epochs = {shard.name: shard.epoch for shard in instance.execution.shards.all()}
        for shard in instance.execution.shards.all():
            assert shard._connection
            await shard._connection.call("FLUSHALL")
        await wait_until(
            lambda: all(
                shard.state is ShardState.OPEN and shard.epoch != epochs[shard.name]
                for shard in instance.execution.shards.all()
            ),
            seconds=30,
        )
        dispatcher = system.dispatcher(instance)
        assert await dispatcher.send(dispatcher.item(task_id=task_id, repeat=True)) == {}
        assert await polled(instance) == []
        assert await completed(instance, success(token)) == [ACCEPTED]
        await wait_until(lambda: system.ledger.of(task_id, SUCCEEDED))
        # Once it has ended its row is of no use, and goes.
        await instance.execution.deferrals.run_once()
        assert await instance.execution.deferrals.held_on(shard_of(token)) == []


def shard_of(token: bytes) -> str:
    return decode_token(token, "token").shard


async def test_it_survives_its_instance_and_its_shard_together(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(lease_ttl=1.0), await system.start(lease_ttl=1.0)
        system.ledger.answer = settle
        worker, task_id, token = await deferred(system, first, 2)
        await worker.close()
        await first.crash()
        name = shard_of(token)
        shard = second.execution.shards.get(name)
        assert shard
        assert shard._connection
        epoch = shard.epoch
        await shard._connection.call("FLUSHALL")
        await wait_until(lambda: shard.state is ShardState.OPEN and shard.epoch != epoch, seconds=30)
        (report,) = await wait_until(lambda: system.ledger.of(task_id, TIMED_OUT))
        assert report.error_type == "FINISH_LATER_TIMEOUT"


@pytest.mark.parametrize("asks", [True, False])
async def test_it_is_cancelled_like_any_other(database: str, shards: dict[str, str], asks: bool) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(cancel_grace=0.5)
        system.ledger.answer = settle
        _, task_id, token = await deferred(system, instance)
        assert await withdrawn(instance, task_id) == [LEASED]
        if asks:
            beat = pb.HeartbeatTasksRequest(worker_id="somebody", lease_tokens=[token])
            (cancel,) = (await instance.worker.HeartbeatTasks(beat)).cancels
            assert cancel.lease_token == token
            result = pb.TaskResult(lease_token=token, cancelled=pb.Cancelled())
            assert await completed(instance, result) == [ACCEPTED]
        (report,) = await wait_until(lambda: system.ledger.of(task_id, CANCELLED))
        assert report.error_type == ("CANCELLED" if asks else "CANCEL_GRACE_ENDED")


async def test_a_lost_lease_cannot_be_put_off(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        await system.dispatcher(instance).one()
        (item,) = await polled(instance, lease_ttl=seconds(1))
        (again,) = await polled(instance, 15)
        assert again.attempt == 2
        put_off = pb.TaskResult(lease_token=item.lease_token, finish_later=later(5))
        assert await completed(instance, put_off, success(again.lease_token)) == [LEASE_LOST, ACCEPTED]
        assert uuid.UUID(item.task.task_id) == uuid.UUID(again.task.task_id)
