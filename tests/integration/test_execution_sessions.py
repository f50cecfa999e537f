"""Sessions end to end: frames in, frames out, on real shards and a real database."""

import asyncio
import time
from functools import partial
from typing import Any

import grpc
import pytest
from fixtures.execution import Cluster, FrameWorker, cluster, wait_until
from google.protobuf.duration_pb2 import Duration

from meshq.contract.errors import InvalidRequest, MeshqError, PreconditionFailed, Reason
from meshq.contract.limits import MAX_PAYLOAD_BYTES
from meshq.contract.status import from_rpc_error
from meshq.execution.ring.shards import Shards
from meshq.internal.v1 import attempt_service_pb2 as attempt_pb
from meshq.internal.v1 import dispatch_service_pb2 as dispatch_pb
from meshq.internal.v1 import ledger_service_pb2 as ledger_pb
from meshq.internal.v1 import progress_service_pb2 as progress_pb
from meshq.v1 import task_pb2
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


async def test_a_task_is_assigned_and_its_result_recorded_and_reported(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        worker = await system.worker(instance).connect(credit=1)
        assert worker.welcome.instance_id == "execution-1"
        assert worker.welcome.lease_ttl.ToSeconds() == 3
        task_id = await system.dispatcher(instance).one()
        (token,) = await worker.next_task()
        assert worker.assigned[token].task.data == b"in"
        assert worker.assigned[token].attempt == 1
        await worker.finish(token)
        await wait_until(lambda: worker.acks.get(token) == ACCEPTED)
        (report,) = await wait_until(lambda: system.ledger.of(task_id, SUCCEEDED))
        assert report.worker_id == "w-1"
        assert report.end_time_ms >= report.start_time_ms > 0
        outcome = await instance.attempts.BatchGetOutcomes(
            attempt_pb.BatchGetOutcomesRequest(keys=[attempt_pb.OutcomeKey(task_id=task_id, attempt=1)])
        )
        assert outcome.outcomes[0].success.data == b"out"
        listed = await instance.attempts.ListAttempts(attempt_pb.ListAttemptsRequest(task_id=task_id))
        assert [(item.attempt, item.outcome, item.worker_id) for item in listed.attempts] == [
            (1, SUCCEEDED, "w-1")
        ]


async def test_many_tasks_go_to_several_workers_on_two_instances(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        workers = [
            await system.worker(instance, f"w-{index}").connect()
            for index, instance in enumerate([first, first, second])
        ]
        for worker in workers:
            worker.auto_finish = True
            await worker.credit(50)
        dispatcher = system.dispatcher(first)
        wanted = [task_id for _ in range(5) for task_id in await dispatcher.many(400)]
        await wait_until(lambda: set(system.ledger.ended()) == set(wanted), "all ends", 60)
        assert all(len(system.ledger.of(task_id, SUCCEEDED)) == 1 for task_id in wanted)
        assert all(worker.assigned for worker in workers)
        for worker in workers:
            await wait_until(partial(all_answered, worker))
        depths = await first.dispatch.DescribeQueues(
            dispatch_pb.DescribeQueuesRequest(tenant="default", queues=["default"])
        )
        depth = depths.depths[0]
        assert depths.complete
        assert (depth.ready, depth.delayed, depth.leased, depth.oldest_ready_time_ms) == (0, 0, 0, 0)


def all_answered(worker: FrameWorker) -> bool:
    return len(worker.acks) == len(worker.assigned)


async def test_credit_is_cumulative_and_never_exceeded(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        worker = await system.worker(instance).connect()
        await system.dispatcher(instance).many(20)
        for total in (3, 3, 2, 5, 1):
            await worker.send(credits=pb.Credits(total=total))
        await worker.next_task(5)
        await worker.send(credits=pb.Credits(total=7))
        await worker.next_task(7)
        # A turn through the shards later it is still seven.
        assert await instance.worker.PollTasks(
            pb.PollTasksRequest(worker_id="p", task_types=["t"], max_tasks=100)
        )
        assert len(worker.assigned) == 7


async def test_an_unacknowledged_delivery_goes_to_another_worker_as_the_same_attempt(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        deaf = await system.worker(instance, "deaf").connect()
        deaf.auto_receive = False
        await deaf.credit(1)
        task_id = await system.dispatcher(instance).one()
        (first,) = await deaf.next_task()
        other = await system.worker(instance, "other").connect(credit=1)
        (second,) = await other.next_task()
        assert first != second
        assert other.assigned[second].attempt == 1
        await wait_until(lambda: first in deaf.lost)
        # Both hold a token of attempt 1: whoever is recorded first wins.
        await deaf.finish(first, data=b"deaf")
        await wait_until(lambda: deaf.acks.get(first) == ACCEPTED)
        await other.finish(second, data=b"other")
        await wait_until(lambda: second in other.lost or other.acks.get(second) == LEASE_LOST)
        await wait_until(lambda: system.ledger.of(task_id, SUCCEEDED))
        assert system.ledger.of(task_id, SUCCEEDED)[0].worker_id == "deaf"


async def test_repeated_results_are_accepted_again_and_recorded_once(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        worker = await system.worker(first).connect(credit=1)
        task_id = await system.dispatcher(first).one()
        (token,) = await worker.next_task()
        await worker.finish(token, token, data=b"one")
        await wait_until(lambda: worker.acks.get(token) == ACCEPTED)
        completion = await second.worker.CompleteTasks(
            pb.CompleteTasksRequest(
                worker_id="w-1", results=[pb.TaskResult(lease_token=token, success=pb.Success(data=b"two"))]
            )
        )
        assert [ack.status for ack in completion.acks] == [ACCEPTED]
        assert {item.outcome for item in system.ledger.of(task_id, SUCCEEDED)} == {SUCCEEDED}
        outcome = await second.attempts.BatchGetOutcomes(
            attempt_pb.BatchGetOutcomesRequest(keys=[attempt_pb.OutcomeKey(task_id=task_id, attempt=1)])
        )
        assert outcome.outcomes[0].success.data == b"one"


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


async def test_failures_are_cut_and_reported(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        worker = await system.worker(instance).connect(credit=3)
        await system.dispatcher(instance).many(3)
        failing, too_large, cancelled = await worker.next_task(3)
        error = task_pb2.TaskError(type="E" * 300, message="m\x00" * 5_000, traceback="t" * 100_000)
        huge = pb.Success(data=b"x" * (MAX_PAYLOAD_BYTES + 1))
        await worker.send(
            results=pb.Results(
                results=[
                    pb.TaskResult(lease_token=failing, failure=pb.Failure(error=error)),
                    pb.TaskResult(lease_token=too_large, success=huge),
                    pb.TaskResult(lease_token=cancelled, cancelled=pb.Cancelled(message="as asked")),
                ]
            )
        )
        await wait_until(lambda: len(system.ledger.ended()) == 3)
        reports = {item.error_type: item for item in system.ledger.reports}
        assert set(reports) == {"E" * 256, "RESULT_TOO_LARGE", "CANCELLED"}
        assert reports["CANCELLED"].outcome == CANCELLED
        assert len(reports["E" * 256].error_message) == 1_024
        assert "\x00" not in reports["E" * 256].error_message
        assert all(worker.acks[token] == ACCEPTED for token in (failing, too_large, cancelled))
        task_id = reports["E" * 256].task_id
        listed = await instance.attempts.ListAttempts(attempt_pb.ListAttemptsRequest(task_id=task_id))
        assert len(listed.attempts[0].error.message) == 4_096
        assert len(listed.attempts[0].error.traceback) == 64 * 1024


async def test_a_withdrawn_task_is_cancelled_at_its_worker(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(cancel_grace=3), await system.start()
        worker = await system.worker(first).connect(credit=1)
        dispatcher = system.dispatcher(first)
        running = await dispatcher.one()
        (token,) = await worker.next_task()
        waiting, unknown = await dispatcher.one(), b"u" * 16
        withdraw = dispatch_pb.WithdrawTasksRequest(
            withdrawals=[
                dispatch_pb.Withdrawal(task_id=task_id, attempt=1, reason="not wanted", tenant="default")
                for task_id in (running, waiting, unknown)
            ]
        )
        answer = await second.dispatch.WithdrawTasks(withdraw)
        assert list(answer.states) == [
            dispatch_pb.WITHDRAWN_STATE_LEASED,
            dispatch_pb.WITHDRAWN_STATE_REMOVED,
            dispatch_pb.WITHDRAWN_STATE_UNKNOWN,
        ]
        cancel = await wait_until(lambda: worker.cancels.get(token))
        assert cancel.reason == "not wanted"
        assert cancel.grace.ToSeconds() == 3
        # What was unknown or removed left a tombstone: a late dispatch does not bring it back.
        await dispatcher.send(dispatcher.item(task_id=unknown), dispatcher.item(task_id=waiting))
        await worker.credit(5)
        await worker.send(
            results=pb.Results(results=[pb.TaskResult(lease_token=token, cancelled=pb.Cancelled())])
        )
        await wait_until(lambda: system.ledger.of(running, CANCELLED))
        assert len(worker.assigned) == 1
        answer = await second.dispatch.WithdrawTasks(
            dispatch_pb.WithdrawTasksRequest(
                withdrawals=[dispatch_pb.Withdrawal(task_id=running, attempt=1, tenant="default")]
            )
        )
        assert list(answer.states) == [dispatch_pb.WITHDRAWN_STATE_ENDED]


async def test_what_runs_for_longer_than_a_moment_is_reported_as_started(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        worker = await system.worker(instance).connect(credit=1)
        task_id = await system.dispatcher(instance).one()
        (token,) = await worker.next_task()
        (report,) = await wait_until(lambda: system.ledger.of(task_id, 0))
        assert report.start_time_ms > 0
        assert report.end_time_ms == 0
        # The ledger may answer that the task is over: its holder then hears that the lease is lost.
        system.ledger.answer = lambda _: ledger_pb.Directive(kind=ledger_pb.DIRECTIVE_KIND_DONE)
        second = await system.dispatcher(instance).one()
        await worker.credit(1)
        await wait_until(lambda: system.ledger.of(second, 0))
        await wait_until(lambda: len(worker.lost) == 1)
        assert token not in worker.lost


async def test_progress_and_output_reach_whoever_watches(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        worker = await system.worker(instance).connect(credit=1)
        task_id = await system.dispatcher(instance).one()
        (token,) = await worker.next_task()
        news: Any = instance.progress.StreamProgress()
        await news.write(progress_pb.StreamProgressRequest(instance_id="m-1", watch_task_ids=[task_id]))
        found: list[progress_pb.TaskNews] = []

        async def collect() -> None:
            while (frame := await news.read()) is not grpc.aio.EOF:
                found.extend(frame.news)

        collecting = asyncio.create_task(collect())
        watched = instance.execution._progress._news
        await wait_until(lambda: watched.watched(task_id))
        progress = pb.LeaseProgress(lease_token=token, fraction=0.5, message="half")
        await worker.send(heartbeat=pb.Heartbeat(progress=[progress]))
        output = pb.LeaseOutput(lease_token=token, offset=3, stream="log", chunk=b"line")
        await worker.send(output=pb.Output(outputs=[output]))
        await wait_until(lambda: len(found) == 2)
        assert (found[0].progress.fraction, found[0].progress.message) == (0.5, "half")
        assert (found[1].output.offset, found[1].output.chunk, found[1].output.attempt) == (3, b"line", 1)
        await news.write(progress_pb.StreamProgressRequest(unwatch_task_ids=[task_id]))
        await wait_until(lambda: not watched.watched(task_id))
        await news.done_writing()
        await asyncio.wait_for(collecting, 5)


async def test_workers_of_all_instances_are_listed(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        await system.worker(first, "b", labels={"room": "1"}, build_id="x").connect()
        await system.worker(second, "a").connect()
        await first.worker.PollTasks(
            pb.PollTasksRequest(worker_id="c", task_types=["t"], wait_timeout=Duration())
        )
        for instance in (first, second):
            listed = await instance.worker.ListWorkers(pb.ListWorkersRequest())
            assert [worker.worker_id for worker in listed.workers] == ["a", "b", "c"]
            assert [worker.instance_id for worker in listed.workers] == [
                "execution-2",
                "execution-1",
                "execution-1",
            ]
        page = await second.worker.ListWorkers(pb.ListWorkersRequest(page_size=2))
        rest = await second.worker.ListWorkers(pb.ListWorkersRequest(page_token=page.next_page_token))
        assert [worker.worker_id for worker in rest.workers] == ["c"]
        assert rest.next_page_token == ""
        worker = await second.worker.GetWorker(pb.GetWorkerRequest(worker_id="b"))
        assert dict(worker.labels) == {"room": "1"}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await second.worker.GetWorker(pb.GetWorkerRequest(worker_id="none"))
        assert from_rpc_error(caught.value).reason is Reason.WORKER_NOT_FOUND


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
