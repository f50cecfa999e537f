"""What workers ask for when an attempt ends: a delay, no other attempt, to be called again later."""

import time
import uuid
from typing import Any

import pytest
from fixtures.execution import (
    DONE,
    LATER,
    RUN,
    Instance,
    attempts_of,
    cluster,
    completed,
    polled,
    seconds,
    wait_until,
    withdrawn,
)

from meshq.contract.status import from_rpc_error
from meshq.internal.v1 import ledger_service_pb2 as ledger_pb
from meshq.v1 import task_pb2
from meshq.v1 import worker_service_pb2 as pb

FAILED, TIMED_OUT, SNOOZED = 2, 5, 6
ACCEPTED, LEASE_LOST = 1, 2
REMOVED = 1
BROKEN = task_pb2.TaskError(type="Broken", message="no", traceback="at line 1")


def again(delay_ms: int = 0) -> Any:
    """A ledger that makes one more attempt."""

    def answer(report: ledger_pb.AttemptReport) -> ledger_pb.Directive:
        if report.attempt == 1 and report.outcome:
            at = int(time.time() * 1000) + delay_ms
            return ledger_pb.Directive(kind=RUN, attempt=2, not_before_ms=at)
        return ledger_pb.Directive(kind=DONE if report.outcome else ledger_pb.DIRECTIVE_KIND_KEEP)

    return answer


async def test_a_failure_names_its_delay_or_says_never(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = lambda _: ledger_pb.Directive(kind=DONE)
        worker = await system.worker(instance).connect(credit=3)
        await system.dispatcher(instance).many(3)
        plain, later, never = await worker.next_task(3)
        await worker.report(plain, failure=pb.Failure(error=BROKEN))
        await worker.report(later, failure=pb.Failure(error=BROKEN, retry_delay=seconds(7.5)))
        await worker.report(never, failure=pb.Failure(error=BROKEN, non_retryable=True))
        await wait_until(lambda: len(worker.acks) == 3 and len(system.ledger.ended()) == 3)
        ids = {token: task_of(worker.assigned[token]) for token in (plain, later, never)}
        (report,) = system.ledger.of(ids[plain], FAILED)
        assert (report.HasField("retry_delay_ms"), report.non_retryable) == (False, False)
        (report,) = system.ledger.of(ids[later], FAILED)
        assert (report.retry_delay_ms, report.non_retryable) == (7_500, False)
        (report,) = system.ledger.of(ids[never], FAILED)
        assert (report.HasField("retry_delay_ms"), report.non_retryable) == (False, True)
        (attempt,) = await attempts_of(instance, ids[later])
        assert attempt.retry_delay.ToMilliseconds() == 7_500
        assert (attempt.error.type, attempt.error.traceback) == ("Broken", "at line 1")
        (attempt,) = await attempts_of(instance, ids[never])
        assert (attempt.HasField("retry_delay"), attempt.non_retryable) == (False, True)


def task_of(assignment: Any) -> bytes:
    return uuid.UUID(assignment.task.task_id).bytes


async def test_what_was_asked_for_is_reported_again_by_whoever_comes_upon_it(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        task_id = await system.dispatcher(first).one()
        (item,) = await polled(first)
        system.ledger.available = False
        failure = pb.Failure(error=BROKEN, retry_delay=seconds(60), non_retryable=True)
        assert await completed(first, pb.TaskResult(lease_token=item.lease_token, failure=failure)) == [
            ACCEPTED
        ]
        await first.crash()
        system.ledger.available = True
        assert system.ledger.of(task_id, FAILED) == []
        dispatcher = system.dispatcher(second)
        assert await dispatcher.send(dispatcher.item(task_id=task_id, repeat=True)) == {}
        report = (await wait_until(lambda: system.ledger.of(task_id, FAILED)))[0]
        assert (report.retry_delay_ms, report.non_retryable, report.error_type) == (60_000, True, "Broken")


@pytest.mark.parametrize("unary", [False, True])
async def test_a_snoozed_task_comes_again_as_another_attempt(
    database: str, shards: dict[str, str], unary: bool
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = again(300)
        snooze = pb.Snooze(delay=seconds(0.3), reason="not yet")
        task_id = await system.dispatcher(instance).one()
        if unary:
            (item,) = await polled(instance)
            result = pb.TaskResult(lease_token=item.lease_token, snooze=snooze)
            assert await completed(instance, result, result) == [ACCEPTED, ACCEPTED]
        else:
            worker = await system.worker(instance).connect(credit=1)
            (token,) = await worker.next_task()
            await worker.report(token, snooze=snooze)
            await wait_until(lambda: worker.acks.get(token) == ACCEPTED)
        (report,) = await wait_until(lambda: system.ledger.of(task_id, SNOOZED))
        assert report.retry_delay_ms == 300
        (item,) = await polled(instance, 10)
        assert item.attempt == 2
        (attempt,) = await attempts_of(instance, task_id)
        assert (attempt.outcome, attempt.error.message) == (SNOOZED, "not yet")
        assert attempt.retry_delay.ToMilliseconds() == 300


async def test_numbers_of_attempts_go_beyond_a_hundred(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        await system.dispatcher(instance).one(attempt=250)
        (item,) = await polled(instance)
        assert await completed(
            instance, pb.TaskResult(lease_token=item.lease_token, success=pb.Success())
        ) == [ACCEPTED]


async def test_what_runs_much_later_leaves_its_shard_and_comes_as_a_dispatch(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = lambda _: ledger_pb.Directive(kind=LATER)
        dispatcher = system.dispatcher(instance)
        task_id = await dispatcher.one()
        (item,) = await polled(instance)
        snooze = pb.TaskResult(lease_token=item.lease_token, snooze=pb.Snooze(delay=seconds(3_600)))
        assert await completed(instance, snooze) == [ACCEPTED]
        await wait_until(lambda: system.ledger.of(task_id, SNOOZED))
        await wait_until(lambda: nothing_held(instance))
        # The attempt that has ended does not come back, the next one does.
        system.ledger.answer = lambda _: ledger_pb.Directive(kind=DONE)
        await dispatcher.send(dispatcher.item(task_id=task_id))
        assert await polled(instance) == []
        assert await dispatcher.send(dispatcher.item(task_id=task_id, attempt=2, repeat=True)) == {}
        (item,) = await polled(instance)
        assert item.attempt == 2


async def nothing_held(instance: Instance) -> bool:
    depths = [await shard.totals() for shard in instance.execution.shards.all()]
    return all(depth.ready + depth.delayed + depth.leased == 0 for depth in depths)


async def test_a_recalled_attempt_is_off_and_a_later_one_may_come(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        dispatcher = system.dispatcher(instance)
        task_id = await dispatcher.one()
        recall = {"mode": 2}
        assert await withdrawn(instance, task_id, **recall) == [REMOVED]
        await dispatcher.send(dispatcher.item(task_id=task_id))
        assert await polled(instance) == []
        assert await dispatcher.send(dispatcher.item(task_id=task_id, attempt=2)) == {}
        (item,) = await polled(instance, 5)
        assert item.attempt == 2
        # A worker that has it keeps it.
        assert await withdrawn(instance, task_id, attempt=2, **recall) == [2]
        beat = pb.HeartbeatTasksRequest(worker_id="p", lease_tokens=[item.lease_token])
        answer = await instance.worker.HeartbeatTasks(beat)
        assert (list(answer.cancels), list(answer.lost_lease_tokens)) == ([], [])


BAD_RESULTS: list[tuple[dict[str, Any], str]] = [
    ({"failure": pb.Failure(error=BROKEN, retry_delay=seconds(-1))}, "failure.retry_delay"),
    ({"failure": pb.Failure(error=BROKEN, retry_delay=seconds(31 * 86_400))}, "failure.retry_delay"),
    ({"snooze": pb.Snooze(delay=seconds(366 * 86_400))}, "snooze.delay"),
    ({"snooze": pb.Snooze(delay=seconds(-0.1))}, "snooze.delay"),
    ({"snooze": pb.Snooze(reason="x" * 1_025)}, "snooze.reason"),
    ({"finish_later": pb.FinishLater()}, "finish_later.timeout"),
    ({"finish_later": pb.FinishLater(timeout=seconds(31 * 86_400))}, "finish_later.timeout"),
]


async def test_bad_wishes_name_their_fields(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        await system.dispatcher(instance).one()
        (item,) = await polled(instance)
        for outcome, field in BAD_RESULTS:
            with pytest.raises(Exception, match="must") as caught:
                await completed(instance, pb.TaskResult(lease_token=item.lease_token, **outcome))
            error: Any = from_rpc_error(caught.value)  # type: ignore[arg-type]
            assert error.violations[0].field == f"results[0].{field}"
