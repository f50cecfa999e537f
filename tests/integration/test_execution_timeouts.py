"""Attempts that take too long, handlers that fall silent, and cancellations that nobody confirms."""

import asyncio
import time
import uuid
from typing import Any

import pytest
from fixtures.execution import (
    DONE,
    KEEP,
    RUN,
    Cluster,
    attempts_of,
    cluster,
    completed,
    polled,
    seconds,
    traits,
    wait_until,
    withdrawn,
)

from meshq.internal.v1 import ledger_service_pb2 as ledger_pb
from meshq.v1 import worker_service_pb2 as pb

SUCCEEDED, CANCELLED, TIMED_OUT = 1, 3, 5
ACCEPTED, LEASE_LOST = 1, 2
LEASED, ENDED = 2, 5


def settle(report: ledger_pb.AttemptReport) -> ledger_pb.Directive:
    """Ends whatever has ended."""
    return ledger_pb.Directive(kind=DONE if report.outcome else KEEP)


async def timed_out(system: Cluster, task_id: bytes, error_type: str) -> None:
    (report,) = await wait_until(lambda: system.ledger.of(task_id, TIMED_OUT))
    assert report.error_type == error_type
    assert report.error_message


async def test_an_attempt_that_takes_too_long_ends_and_its_worker_is_told(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = settle
        worker = await system.worker(instance).connect(credit=1)
        limit = traits(start_to_close_timeout=seconds(0.5))
        task_id = await system.dispatcher(instance).one(traits=limit)
        (token,) = await worker.next_task()
        await timed_out(system, task_id, "START_TO_CLOSE_TIMEOUT")
        await wait_until(lambda: token in worker.lost)
        (attempt,) = await attempts_of(instance, task_id)
        assert (attempt.outcome, attempt.worker_id) == (TIMED_OUT, "w-1")
        # Its lease is gone for good, for the worker that had it too.
        late = pb.TaskResult(lease_token=token, success=pb.Success())
        assert await completed(instance, late) == [LEASE_LOST]


async def test_a_polled_attempt_that_takes_too_long_runs_again(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        now = int(time.time() * 1000)
        system.ledger.answer = lambda report: ledger_pb.Directive(kind=RUN, attempt=2, not_before_ms=now)
        limit = traits(start_to_close_timeout=seconds(0.4))
        task_id = await system.dispatcher(instance).one(traits=limit)
        (first,) = await polled(instance)
        (second,) = await polled(instance, 15)
        assert (first.attempt, second.attempt) == (1, 2)
        await timed_out(system, task_id, "START_TO_CLOSE_TIMEOUT")


async def test_a_handler_that_speaks_lives_and_one_that_falls_silent_has_timed_out(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = settle
        worker = await system.worker(instance).connect(credit=2)
        silence = traits(heartbeat_timeout=seconds(0.6))
        dispatcher = system.dispatcher(instance)
        await dispatcher.many(2, traits=silence)
        speaking, silent = await worker.next_task(2)
        ids = {token: task_of(worker.assigned[token]) for token in (speaking, silent)}

        async def speak() -> bool:
            # Nothing but the token: a sign of life.
            await worker.say(speaking)
            return bool(system.ledger.of(ids[silent], TIMED_OUT))

        await wait_until(speak)
        until = time.monotonic() + 1.0

        async def speak_on() -> bool:
            await worker.say(speaking)
            return time.monotonic() > until

        await wait_until(speak_on)
        assert system.ledger.of(ids[speaking], TIMED_OUT) == []
        await timed_out(system, ids[silent], "HEARTBEAT_TIMEOUT")
        await timed_out(system, ids[speaking], "HEARTBEAT_TIMEOUT")


def task_of(item: pb.Assignment) -> bytes:
    return uuid.UUID(item.task.task_id).bytes


async def test_a_handler_goes_on_speaking_where_its_worker_has_gone(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        system.ledger.answer = settle
        worker = await system.worker(first).connect(credit=1)
        silence = traits(heartbeat_timeout=seconds(0.8))
        task_id = await system.dispatcher(first).one(traits=silence)
        (token,) = await worker.next_task()
        await worker.close()
        moved = await system.worker(second, held_leases=[token]).connect()
        until = time.monotonic() + 1.6

        async def speak() -> bool:
            await moved.say(token)
            return time.monotonic() > until

        await wait_until(speak)
        assert system.ledger.of(task_id, TIMED_OUT) == []
        await timed_out(system, task_id, "HEARTBEAT_TIMEOUT")


async def test_unary_heartbeats_are_signs_of_life(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = settle
        silence = traits(heartbeat_timeout=seconds(0.5))
        task_id = await system.dispatcher(instance).one(traits=silence)
        (item,) = await polled(instance)
        beat = pb.HeartbeatTasksRequest(worker_id="p", lease_tokens=[item.lease_token])
        until = time.monotonic() + 1.2

        async def speak() -> bool:
            answer = await instance.worker.HeartbeatTasks(beat)
            assert list(answer.lost_lease_tokens) == []
            return time.monotonic() > until

        await wait_until(speak)
        await timed_out(system, task_id, "HEARTBEAT_TIMEOUT")
        assert list((await instance.worker.HeartbeatTasks(beat)).lost_lease_tokens) == [item.lease_token]


async def test_a_cancellation_reaches_its_worker_at_once(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        system.ledger.answer = settle
        worker = await system.worker(first).connect(credit=50)
        ids = await system.dispatcher(first).many(50)
        tokens = {task_of(worker.assigned[token]): token for token in await worker.next_task(50)}
        latencies = []
        for task_id in ids:
            begun = time.monotonic()
            assert await withdrawn(second, task_id) == [LEASED]
            await wait_until(lambda: tokens[task_id] in worker.cancels)  # noqa: B023
            latencies.append(time.monotonic() - begun)
        assert sorted(latencies)[len(latencies) // 2] < 0.2
        assert max(latencies) < 1.0


@pytest.mark.parametrize("capabilities", [["cancel"], []])
async def test_a_cancelled_task_that_does_not_stop_is_ended_after_its_grace(
    database: str, shards: dict[str, str], capabilities: list[str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(cancel_grace=0.3)
        system.ledger.answer = settle
        worker = await system.worker(instance, capabilities=capabilities).connect(credit=1)
        task_id = await system.dispatcher(instance).one()
        (token,) = await worker.next_task()
        assert await withdrawn(instance, task_id) == [LEASED]
        (report,) = await wait_until(lambda: system.ledger.of(task_id, CANCELLED))
        assert report.error_type == "CANCEL_GRACE_ENDED"
        assert (token in worker.cancels) == bool(capabilities)
        await wait_until(lambda: token in worker.lost)
        late = pb.TaskResult(lease_token=token, cancelled=pb.Cancelled())
        assert await completed(instance, late) == [LEASE_LOST]
        assert await withdrawn(instance, task_id) == [ENDED]


async def test_who_confirms_within_the_grace_has_the_last_word(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(cancel_grace=0.5)
        system.ledger.answer = settle
        worker = await system.worker(instance).connect(credit=2)
        stopping, finishing = await system.dispatcher(instance).many(2)
        tokens = {task_of(worker.assigned[token]): token for token in await worker.next_task(2)}
        assert await withdrawn(instance, stopping, finishing) == [LEASED, LEASED]
        await wait_until(lambda: len(worker.cancels) == 2)
        assert worker.cancels[tokens[stopping]].grace.ToMilliseconds() == 500
        await worker.report(tokens[stopping], cancelled=pb.Cancelled(message="as asked"))
        await worker.finish(tokens[finishing])
        await wait_until(lambda: len(worker.acks) == 2)
        (report,) = await wait_until(lambda: system.ledger.of(stopping, CANCELLED))
        assert report.error_type == "CANCELLED"
        await wait_until(lambda: system.ledger.of(finishing, SUCCEEDED))
        assert await completed(
            instance, pb.TaskResult(lease_token=tokens[stopping], cancelled=pb.Cancelled())
        ) == [ACCEPTED]


async def test_a_polled_task_has_its_lease_time_to_hear_of_a_cancellation(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(cancel_grace=0.1)
        system.ledger.answer = settle
        task_id = await system.dispatcher(instance).one()
        (item,) = await polled(instance, lease_ttl=seconds(1.5))
        assert await withdrawn(instance, task_id) == [LEASED]
        beat = pb.HeartbeatTasksRequest(worker_id="p", lease_tokens=[item.lease_token])
        (cancel,) = (await instance.worker.HeartbeatTasks(beat)).cancels
        assert cancel.lease_token == item.lease_token

        async def given_up() -> Any:
            await instance.worker.HeartbeatTasks(beat)
            await asyncio.sleep(0.1)
            return system.ledger.of(task_id, CANCELLED)

        (report,) = await wait_until(given_up)
        assert report.error_type == "CANCEL_GRACE_ENDED"


async def test_timeouts_of_a_dead_instance_are_kept_by_another(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(lease_ttl=60), await system.start(lease_ttl=60)
        system.ledger.answer = settle
        limit = traits(start_to_close_timeout=seconds(1))
        task_id = await system.dispatcher(second).one(traits=limit)
        assert len(await polled(first)) == 1
        await first.crash()
        await timed_out(system, task_id, "START_TO_CLOSE_TIMEOUT")
