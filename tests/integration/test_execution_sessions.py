"""What goes over sessions: frames in, frames out, on real shards and a real database."""

import asyncio
from functools import partial
from typing import Any

import grpc
import pytest
from fixtures.execution import FrameWorker, attempts_of, cluster, wait_until, withdrawn
from google.protobuf.duration_pb2 import Duration

from meshq.contract.errors import Reason
from meshq.contract.limits import MAX_PAYLOAD_BYTES
from meshq.contract.status import from_rpc_error
from meshq.internal.v1 import attempt_service_pb2 as attempt_pb
from meshq.internal.v1 import dispatch_service_pb2 as dispatch_pb
from meshq.internal.v1 import ledger_service_pb2 as ledger_pb
from meshq.internal.v1 import progress_service_pb2 as progress_pb
from meshq.v1 import task_pb2
from meshq.v1 import worker_service_pb2 as pb

SUCCEEDED, FAILED, CANCELLED, LOST = 1, 2, 3, 4
ACCEPTED, LEASE_LOST, TRY_LATER = 1, 2, 3
ENDED = 5


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
        # On a slow machine an acknowledgement may take longer than a second, and then the task is
        # rightly delivered again. That is not what is looked at here.
        patient = {"lease_ttl": 60, "delivery_timeout": 60}
        first, second = await system.start(**patient), await system.start(**patient)
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


@pytest.mark.parametrize("late_first", [False, True])
async def test_a_cancellation_and_a_late_result_of_a_lost_delivery_do_not_both_win(
    database: str, shards: dict[str, str], late_first: bool
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        worker = await system.worker(instance).connect()
        worker.auto_receive = False
        await worker.credit(1)
        task_id = await system.dispatcher(instance).one()
        (token,) = await worker.next_task()
        await worker.close()
        # The delivery is back in its lane, so that no shard knows that a worker has the task.
        queue = dispatch_pb.DescribeQueuesRequest(tenant="default", queues=["default"])

        async def back() -> bool:
            (depth,) = (await instance.dispatch.DescribeQueues(queue)).depths
            return (depth.ready, depth.leased) == (1, 0)

        await wait_until(back, seconds=30)
        late = await system.worker(instance).connect()
        if late_first:
            await late.finish(token)
            await wait_until(lambda: late.acks.get(token) == ACCEPTED)
        assert await withdrawn(instance, task_id) == [ENDED]
        if not late_first:
            await late.finish(token)
            await wait_until(lambda: late.acks.get(token) == LEASE_LOST)
        outcome = SUCCEEDED if late_first else CANCELLED
        assert [item.outcome for item in await attempts_of(instance, task_id)] == [outcome]
        await wait_until(lambda: system.ledger.of(task_id, outcome))
        assert {item.outcome for item in system.ledger.reports if item.task_id == task_id} <= {0, outcome}


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
            # Nobody has it as far as is known, so this is recorded before it is answered.
            dispatch_pb.WITHDRAWN_STATE_ENDED,
        ]
        await wait_until(lambda: system.ledger.of(unknown, CANCELLED))
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
