"""How sessions begin, move and end, on real shards and a real database."""

import asyncio
import time
from typing import Any

import grpc
import pytest
from fixtures.execution import Cluster, FrameWorker, cluster, wait_until

from meshq.contract.errors import InvalidRequest, MeshqError, PreconditionFailed, Reason
from meshq.contract.status import from_rpc_error
from meshq.execution.ring.shards import Shards
from meshq.internal.v1 import attempt_service_pb2 as attempt_pb
from meshq.v1 import worker_service_pb2 as pb

SUCCEEDED, FAILED, CANCELLED, LOST = 1, 2, 3, 4
ACCEPTED, LEASE_LOST, TRY_LATER = 1, 2, 3


async def failure_of(system: Cluster, *frames: pb.ConnectRequest) -> MeshqError:
    """The error with which a session ends that sends these frames."""
    call = system.instances[0].worker.Connect()
    try:
        for frame in frames:
            await call.write(frame)
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error)
    raise AssertionError("the session ended well")


def hello(**fields: object) -> pb.ConnectRequest:
    values: dict[str, Any] = {"protocol_version": 1, "worker_id": "w", "task_types": ["t"], "slots": 1}
    return pb.ConnectRequest(hello=pb.Hello(**(values | fields)))


async def test_a_vanished_worker_loses_its_attempt_and_the_task_runs_again(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(lease_ttl=1.0)
        worker = await system.worker(instance, "doomed").connect(credit=1)
        task_id = await system.dispatcher(instance).one()
        (token,) = await worker.next_task()
        # Nothing tells when the receipt was noted but the hash itself.
        shard = instance.execution.shards
        await wait_until(lambda: received(shard, task_id))
        await worker.close()
        other = await system.worker(instance, "other").connect(credit=1)
        (again,) = await other.next_task()
        assert other.assigned[again].attempt == 2
        assert system.ledger.of(task_id, LOST)[0].worker_id == "doomed"
        late = await instance.worker.CompleteTasks(
            pb.CompleteTasksRequest(
                worker_id="doomed", results=[pb.TaskResult(lease_token=token, success=pb.Success())]
            )
        )
        assert [ack.status for ack in late.acks] == [LEASE_LOST]
        await other.finish(again)
        await wait_until(lambda: system.ledger.of(task_id, SUCCEEDED))
        listed = await instance.attempts.ListAttempts(attempt_pb.ListAttemptsRequest(task_id=task_id))
        assert [(item.attempt, item.outcome, item.error.type) for item in listed.attempts] == [
            (1, LOST, "LOST"),
            (2, SUCCEEDED, ""),
        ]


async def received(shards: Shards, task_id: bytes) -> bool:
    for shard in shards.all():
        assert shard._connection
        state = await shard._connection.call("HGET", b"mq:task:" + task_id, "state")
        waiting = await shard._connection.call("ZRANGE", "mq:deliveries", 0, -1)
        if state == b"leased" and not any(member.startswith(task_id) for member in waiting):
            return True
    return False


async def test_a_worker_reconnects_elsewhere_and_keeps_its_leases(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(lease_ttl=2.0), await system.start(lease_ttl=2.0)
        worker = await system.worker(first).connect(credit=5)
        await system.dispatcher(first).many(5)
        tokens = await worker.next_task(5)
        await worker.close()
        back = await system.worker(second, held_leases=[*tokens, *tokens]).connect()
        assert {item.lease_token: item.kept for item in back.welcome.held_leases} == dict.fromkeys(
            tokens, True
        )
        # Longer than the first session lives.
        deadline = time.monotonic() + 4
        await wait_until(lambda: time.monotonic() > deadline)
        assert not back.lost
        await back.finish(*tokens)
        await wait_until(lambda: [back.acks.get(token) for token in tokens] == [ACCEPTED] * 5)
        await wait_until(lambda: list(system.ledger.ended().values()) == [SUCCEEDED] * 5)


async def test_what_a_worker_has_not_brought_along_comes_back_at_once(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        # Leases last longer than anybody waits here.
        first, second = await system.start(lease_ttl=300.0), await system.start(lease_ttl=300.0)
        worker = await system.worker(first).connect(credit=2)
        ids = await system.dispatcher(first).many(2)
        held, forgotten = await worker.next_task(2)
        lost = next(task_id for task_id in ids if task_id.hex() in task_of(worker, forgotten))
        shard = first.execution.shards
        await wait_until(lambda: received(shard, lost))
        await worker.close()
        back = await system.worker(second, held_leases=[held]).connect(credit=1)
        (again,) = await back.next_task()
        assert task_of(back, again) == task_of(worker, forgotten)
        assert back.assigned[again].attempt == 2
        await back.finish(held, again)
        await wait_until(lambda: back.acks == {held: ACCEPTED, again: ACCEPTED})


def task_of(worker: FrameWorker, token: bytes) -> str:
    """The task's id as hexadecimal digits."""
    return str(worker.assigned[token].task.task_id).replace("-", "")


async def test_another_start_of_a_worker_ends_the_old_session_at_once(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(lease_ttl=60), await system.start(lease_ttl=60)
        old = await system.worker(first, instance_key=b"old").connect(credit=1)
        task_id = await system.dispatcher(first).one()
        await old.next_task()
        await wait_until(lambda: received(first.execution.shards, task_id))
        new = await system.worker(second, instance_key=b"new").connect(credit=1)
        await asyncio.wait_for(old.ended.wait(), 10)
        assert from_rpc_error(old.error).reason is Reason.SESSION_LOST
        (token,) = await new.next_task()
        assert new.assigned[token].attempt == 2


async def test_goodbye_gives_everything_back_at_once(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(lease_ttl=60, delivery_timeout=60)
        worker = await system.worker(instance, "leaving").connect()
        worker.auto_receive = False
        await worker.credit(2)
        dispatcher = system.dispatcher(instance)
        ids = await dispatcher.many(2)
        tokens = await worker.next_task(2)
        await worker.finish(tokens[0])
        await worker.send(goodbye=pb.Goodbye(reason="enough"))
        await asyncio.wait_for(worker.ended.wait(), 10)
        assert worker.error is None
        assert worker.acks == {tokens[0]: ACCEPTED}
        other = await system.worker(instance, "other").connect(credit=2)
        (again,) = await other.next_task()
        assert other.assigned[again].attempt == 1
        await other.finish(again)
        await wait_until(lambda: set(system.ledger.ended()) == set(ids))
        assert set(system.ledger.ended().values()) == {SUCCEEDED}


@pytest.mark.parametrize("says", [True, False], ids=["goodbye", "nothing"])
async def test_what_a_worker_has_just_acknowledged_counts_when_it_leaves(
    database: str, shards: dict[str, str], says: bool
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(lease_ttl=1.0)
        instance.execution.receipts._seconds = 3_600.0  # they would gather for longer than the test lasts
        worker = await system.worker(instance, "left").connect(credit=1)
        task_id = await system.dispatcher(instance).one()
        await worker.next_task()
        if says:
            await worker.send(goodbye=pb.Goodbye())
        else:
            await worker.close()
        await wait_until(lambda: system.ledger.of(task_id, LOST))
        other = await system.worker(instance, "other").connect(credit=1)
        (again,) = await other.next_task()
        assert other.assigned[again].attempt == 2


async def test_a_stream_that_is_cancelled_while_its_session_ends_leaves_no_session(
    database: str, shards: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(lease_ttl=60)
        receipts = instance.execution.receipts
        ending, let_go = asyncio.Event(), asyncio.Event()
        flush = receipts.flush

        async def held_up() -> None:
            ending.set()
            await let_go.wait()
            await flush()

        monkeypatch.setattr(receipts, "flush", held_up)
        worker = await system.worker(instance).connect(heartbeat=False)
        await worker.call.done_writing()
        await asyncio.wait_for(ending.wait(), 10)
        await worker.close()
        # On the same connection, so that the server has seen the end of the stream.
        await instance.worker.ListWorkers(pb.ListWorkersRequest())
        let_go.set()
        await wait_until(lambda: not instance.execution.sessions.all())


async def test_a_silent_session_is_lost(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(lease_ttl=1.0)
        worker = await system.worker(instance).connect(heartbeat=False)
        await asyncio.wait_for(worker.ended.wait(), 10)
        error = from_rpc_error(worker.error)
        assert error.reason is Reason.SESSION_LOST
        assert error.code is grpc.StatusCode.ABORTED


async def test_released_tasks_run_again_as_the_same_attempt(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        worker = await system.worker(instance).connect(credit=1)
        await system.dispatcher(instance).one()
        (token,) = await worker.next_task()
        result = pb.TaskResult(lease_token=token, release=pb.Release(reason="busy"))
        await worker.send(results=pb.Results(results=[result]))
        await wait_until(lambda: worker.acks.get(token) == ACCEPTED)
        await worker.credit(1)
        again = next(found for found in await worker.next_task(2) if found != token)
        assert worker.assigned[again].attempt == 1
        await worker.send(results=pb.Results(results=[result]))
        await wait_until(lambda: worker.acks.get(token) == LEASE_LOST)


async def test_draining_sends_workers_elsewhere(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        worker = await system.worker(first).connect(credit=2)
        dispatcher = system.dispatcher(second)
        await dispatcher.one()
        (token,) = await worker.next_task()
        waiting = asyncio.ensure_future(
            first.worker.PollTasks(pb.PollTasksRequest(worker_id="p", task_types=["other"]))
        )
        await wait_until(lambda: first.execution.polls._waiting)
        draining = asyncio.create_task(first.execution.drain())
        await wait_until(lambda: worker.controls == [pb.CONTROL_ACTION_RECONNECT])
        assert (await waiting).assignments == []
        await dispatcher.one()
        moved = await system.worker(second, held_leases=[token]).connect(credit=1)
        assert [item.kept for item in moved.welcome.held_leases] == [True]
        await worker.send(goodbye=pb.Goodbye())
        await asyncio.wait_for(draining, 10)
        await moved.next_task()
        assert list(worker.assigned) == [token]
        await moved.finish(token)
        await wait_until(lambda: moved.acks.get(token) == ACCEPTED)
        error = await failure_of(system, hello())
        assert error.reason is Reason.DRAINING


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"worker_id": ""}, "hello.worker_id"),
        ({"worker_id": "a b"}, "hello.worker_id"),
        ({"task_types": []}, "hello.task_types"),
        ({"task_types": ["ok", "not ok"]}, "hello.task_types[1]"),
        ({"queues": ["-"]}, "hello.queues[0]"),
        ({"slots": 0}, "hello.slots"),
        ({"slots": 100_001}, "hello.slots"),
        ({"instance_key": b"x" * 65}, "hello.instance_key"),
        ({"build_id": "x" * 129}, "hello.build_id"),
        ({"labels": {"k" * 65: "v"}}, "hello.labels"),
        ({"labels": {"k": "v" * 257}}, "hello.labels['k']"),
        ({"held_leases": [b"nonsense"]}, "hello.held_leases[0]"),
    ],
)
async def test_a_bad_hello_names_its_field(
    database: str, shards: dict[str, str], fields: dict[str, object], field: str
) -> None:
    async with cluster(database, shards) as system:
        await system.start()
        error = await failure_of(system, hello(**fields))
        assert isinstance(error, InvalidRequest)
        assert error.violations[0].field == field


async def test_bad_frames_end_the_session_with_their_reason(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        await system.start()
        error = await failure_of(system, pb.ConnectRequest(credits=pb.Credits(total=1)))
        assert error.reason is Reason.HELLO_EXPECTED
        error = await failure_of(system, hello(), hello())
        assert error.reason is Reason.HELLO_EXPECTED
        error = await failure_of(system, hello(protocol_version=2))
        assert isinstance(error, PreconditionFailed)
        assert error.reason is Reason.PROTOCOL_VERSION
        bad = pb.Results(results=[pb.TaskResult(lease_token=b"\x01\x02")])
        error = await failure_of(system, hello(), pb.ConnectRequest(results=bad))
        assert isinstance(error, InvalidRequest)
        assert error.violations[0].field == "results[0].lease_token"
        received = pb.Received(lease_tokens=[b"junk"])
        error = await failure_of(system, hello(), pb.ConnectRequest(received=received))
        assert isinstance(error, InvalidRequest)
        assert error.violations[0].field == "received.lease_tokens[0]"
