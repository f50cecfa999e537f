"""How tasks are stopped and end, and what they say, in loops, threads and processes."""

import asyncio
import base64
import multiprocessing
import threading
import time
import uuid
from typing import Any

import pytest
from fixtures.worker import (
    DEADLINE,
    Execution,
    Start,
    execution,
    sample,
    start,
    stuck,
    value_of,
)

from meshq.client.values import fill_value, from_value, to_value
from meshq.v1 import worker_service_pb2 as pb
from meshq.v1.task_pb2 import Task
from meshq.worker import TaskCancelled, TaskContext

__all__ = ["execution", "sample", "start", "stuck"]

PLACES = ("loop", "thread", "process")


def placed(function: Any, place: str) -> dict[str, Any]:
    """The options that run a plain function of the sample module at a place."""
    if place != "loop":
        return {"function": function, "in_processes": place == "process", "processes": 1}

    async def in_loop(*args: Any, **keywords: Any) -> Any:
        return function(*args, **keywords)

    in_loop.__wrapped__ = function  # type: ignore[attr-defined]  # its signature
    in_loop.__annotations__ = function.__annotations__
    return {"function": in_loop}


def assignment(value: Any = None, *, checkpoint: Any = None, **task: Any) -> pb.Assignment:
    made = pb.Assignment(lease_token=uuid.uuid4().bytes, attempt=2, task=Task(type="work", **task))
    fill_value(made.task.payload, value if value is not None else {})
    if checkpoint is not None:
        made.checkpoint.CopyFrom(to_value(checkpoint))
    return made


# Seeing and saying


@pytest.mark.parametrize("place", PLACES)
async def test_a_handler_sees_its_task(start: Start, sample: Any, place: str) -> None:
    session = (await start(**placed(sample.tell, place))).session
    given = assignment(checkpoint={"step": 7}, headers={"a": "b"}, labels={"c": "d"}, priority=3)
    given.task.start_to_close_timeout.FromSeconds(60)
    [token] = session.give(given)
    assert value_of(await session.outcome(token)) == {
        "attempt": 2,
        "headers": {"a": "b"},
        "labels": {"c": "d"},
        "priority": 3,
        "left": True,
        "checkpoint": {"step": 7},
        "token": base64.urlsafe_b64encode(token).decode().rstrip("="),
    }


@pytest.mark.parametrize("place", PLACES)
async def test_the_last_words_come_before_the_end(start: Start, sample: Any, place: str) -> None:
    session = (await start(**placed(sample.say, place))).session
    for _ in range(3):
        [token] = session.give(assignment())
        assert (await session.outcome(token)).failure.error.message == "stumbled"
        # Together, or one after the other if the first one went just before the second one came.
        words = session.said_before[token]
        (told,) = (word for word in words if word.message)
        kept = [word.checkpoint for word in words if word.HasField("checkpoint")]
        assert (told.fraction, told.message, from_value(kept[-1])) == (0.5, "half", {"step": 2})


async def test_a_checkpoint_is_told_again_in_the_next_session(
    execution: Execution, start: Start, stuck: threading.Event
) -> None:
    def work(context: TaskContext) -> None:
        context.checkpoint("here")
        stuck.wait(DEADLINE)

    session = (await start(work)).session
    [token] = session.give(assignment())
    await session.until(lambda: session.progress)
    session.drop()
    again = await execution.session()
    await again.until(lambda: again.progress)
    stuck.set()
    assert (await again.outcome(token)).HasField("success")
    assert from_value(again.said_before[token][0].checkpoint) == "here"


async def test_heartbeats_are_sent_while_a_handler_runs(start: Start, stuck: threading.Event) -> None:
    def work(context: TaskContext) -> None:
        while not stuck.wait(0.01):
            context.heartbeat()

    session = (await start(work)).session
    [token] = session.give(assignment())
    await session.until(lambda: len(session.progress) >= 3)
    stuck.set()
    assert (await session.outcome(token)).HasField("success")
    assert all(word == pb.LeaseProgress(lease_token=token) for word in session.progress)


@pytest.mark.parametrize("place", PLACES)
async def test_the_worker_beats_for_a_handler_on_request(start: Start, sample: Any, place: str) -> None:
    options = placed(sample.block, place)
    session = (await start(**options, auto_heartbeat=True)).session
    plain, watched = assignment(0.5), assignment(0.5)
    watched.task.heartbeat_timeout.FromMilliseconds(300)
    session.give(watched)
    assert (await session.outcome(watched.lease_token)).HasField("success")
    session.give(plain)
    assert (await session.outcome(plain.lease_token)).HasField("success")
    assert len(session.said_before[watched.lease_token]) >= 3
    assert {word.lease_token for word in session.progress} == {watched.lease_token}


async def test_the_worker_beats_for_a_task_that_waits_for_its_handler(
    start: Start, stuck: threading.Event
) -> None:
    session = (await start(lambda: stuck.wait(DEADLINE), slots=1, prefetch=1)).session
    running, waiting = assignment(), assignment()
    waiting.task.heartbeat_timeout.FromMilliseconds(300)
    session.give(running, waiting)
    await session.until(lambda: len(session.progress) >= 3)
    assert {word.lease_token for word in session.progress} == {waiting.lease_token}
    stuck.set()
    assert (await session.outcome(waiting.lease_token)).HasField("success")


# Ending


@pytest.mark.parametrize("place", PLACES)
async def test_a_handler_says_how_its_task_goes_on(start: Start, sample: Any, place: str) -> None:
    session = (await start(**placed(sample.end, place), no_retry=[LookupError])).session
    hows = ("retry", "no retry", "named", "snooze", "finish later")
    retry, last, named, snooze, later = [
        await session.outcome(token) for token in session.assign(*({"how": how} for how in hows))
    ]
    assert (retry.failure.error.type, retry.failure.error.message) == ("BUSY", "busy")
    assert retry.failure.retry_delay.ToMilliseconds() == 1_500
    assert not retry.failure.non_retryable
    assert (last.failure.error.type, last.failure.non_retryable) == ("NoRetry", True)
    assert (named.failure.error.type, named.failure.non_retryable) == ("LookupError", True)
    assert (snooze.snooze.delay.ToSeconds(), snooze.snooze.reason) == (30, "not yet")
    assert later.finish_later.timeout.ToSeconds() == 60
    assert all(result.start_time.seconds for result in (retry, snooze, later))


async def test_an_input_that_does_not_fit_is_not_tried_again(start: Start, sample: Any) -> None:
    session = (await start(sample.end)).session
    [token] = session.give(assignment({"what": 1}))
    failure = (await session.outcome(token)).failure
    assert (failure.error.type, failure.non_retryable) == ("INVALID_INPUT", True)


async def test_a_task_without_a_handler_may_be_tried_elsewhere(start: Start, sample: Any) -> None:
    session = (await start(sample.end)).session
    [token] = session.assign({}, kind="unknown")
    failure = (await session.outcome(token)).failure
    assert (failure.error.type, failure.non_retryable) == ("UNKNOWN_TASK_TYPE", False)


# Cancelling and losing


async def test_a_coroutine_is_cancelled(start: Start) -> None:
    async def work(context: TaskContext) -> None:
        context.progress(0.0)
        await asyncio.sleep(DEADLINE)

    session = (await start(work)).session
    [token] = session.assign({})
    await session.until(lambda: session.progress)
    session.cancel(token)
    assert (await session.outcome(token)).cancelled.message == "enough"


async def test_a_coroutine_is_cancelled_before_its_first_step(start: Start) -> None:
    async def work() -> None:
        await asyncio.sleep(DEADLINE)

    session = (await start(work)).session
    tokens = session.assign(*[{}] * 50)
    for token in tokens:
        session.cancel(token)
    for token in tokens:
        assert (await session.outcome(token)).HasField("cancelled")


async def test_a_thread_is_told(start: Start, sample: Any) -> None:
    session = (await start(sample.linger)).session
    [token] = session.assign({"cooperative": True})
    await session.until(lambda: session.progress)
    session.cancel(token)
    assert (await session.outcome(token)).HasField("cancelled")


async def test_a_process_is_killed_after_its_grace(start: Start, sample: Any) -> None:
    session = (await start(sample.linger, in_processes=True, processes=2)).session
    deaf, listening = session.assign({"cooperative": False}, {"cooperative": True})
    await session.until(lambda: len(session.progress) >= 2)
    session.cancel(deaf, grace=0.2)
    session.cancel(listening, grace=DEADLINE)
    for token in (deaf, listening):
        assert (await session.outcome(token)).HasField("cancelled")


async def test_a_task_that_waits_is_cancelled_at_once(start: Start, stuck: threading.Event) -> None:
    session = (await start(lambda: stuck.wait(DEADLINE), slots=1)).session
    first, second = session.assign({}, {})
    session.cancel(second)
    assert (await session.outcome(second)).HasField("cancelled")
    stuck.set()
    assert (await session.outcome(first)).HasField("success")


async def test_a_success_that_came_first_counts(start: Start, stuck: threading.Event) -> None:
    session = (await start(lambda: stuck.wait(DEADLINE))).session
    [token] = session.assign({})
    await session.until(lambda: session.received)
    session.cancel(token)
    session.send(ping=pb.Ping(nonce=1))
    await session.until(lambda: session.pongs)
    stuck.set()
    assert (await session.outcome(token)).HasField("success")


async def test_a_lost_lease_stops_the_handler_without_an_answer(start: Start) -> None:
    ended: list[str] = []
    begun = threading.Event()

    async def work(name: str) -> str:
        begun.set()
        try:
            await asyncio.sleep(0.05 if name == "kept" else DEADLINE)
        except asyncio.CancelledError:
            ended.append(name)
            raise
        return name

    session = (await start(work)).session
    [lost] = session.assign("lost")
    assert await asyncio.to_thread(begun.wait, DEADLINE)
    session.send(lease_lost=pb.LeaseLost(lease_tokens=[lost]))
    [kept] = session.assign("kept")
    assert value_of(await session.outcome(kept)) == "kept"
    assert ended == ["lost"]
    assert lost not in session.results


async def test_a_coroutine_may_tidy_up_when_it_is_cancelled(start: Start) -> None:
    async def work(context: TaskContext, how: str) -> str:
        context.progress(0.0)
        try:
            await asyncio.sleep(DEADLINE)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            if how == "finish":
                return "finished nevertheless"
            raise TaskCancelled("tidied up") from None
        return "not cancelled"

    session = (await start(work)).session
    tidy, finish = session.assign("tidy", "finish")
    await session.until(lambda: len(session.progress) >= 2)
    session.cancel(tidy)
    session.cancel(finish)
    assert (await session.outcome(tidy)).cancelled.message == "tidied up"
    assert value_of(await session.outcome(finish)) == "finished nevertheless"


async def test_a_cancellation_that_crosses_the_start_of_a_process_task_counts(
    start: Start, sample: Any
) -> None:
    session = (await start(sample.linger, in_processes=True, processes=2)).session
    tokens = session.assign(*[{"cooperative": True}] * 40)
    for token in tokens:
        session.cancel(token, grace=DEADLINE)
    for token in tokens:
        assert (await session.outcome(token)).HasField("cancelled")


async def test_a_process_is_killed_before_the_server_gives_up_on_it(start: Start, sample: Any) -> None:
    session = (await start(sample.linger, in_processes=True, processes=1)).session
    [deaf] = session.assign({"cooperative": False})
    await session.until(lambda: session.progress)
    began = time.monotonic()
    session.cancel(deaf, grace=2.0)
    assert (await session.outcome(deaf)).HasField("cancelled")
    assert 1.5 < time.monotonic() - began < 2.0


async def test_a_lost_lease_ends_a_process_at_once_and_the_next_one_goes_on(
    start: Start, sample: Any
) -> None:
    session = (await start(sample.linger, in_processes=True, processes=1)).session
    [lost] = session.assign({"cooperative": False})
    await session.until(lambda: session.progress)
    [waiting, kept] = session.assign({"cooperative": True}, {"cooperative": True})
    session.send(lease_lost=pb.LeaseLost(lease_tokens=[lost, waiting]))
    await session.until(lambda: any(word.lease_token == kept for word in session.progress))
    session.cancel(kept)
    assert (await session.outcome(kept)).HasField("cancelled")
    assert set(session.results) == {kept}


async def test_a_process_that_answers_while_it_is_killed_takes_no_other_task_along(
    start: Start, sample: Any
) -> None:
    session = (await start(sample.linger, in_processes=True, processes=1)).session
    for round_number in range(20):
        # It is killed at once, and answers at once, so that either may be first.
        [lost] = session.assign({"cooperative": True})
        await session.until(lambda count=2 * round_number + 1: len(session.progress) >= count)
        session.send(lease_lost=pb.LeaseLost(lease_tokens=[lost]))
        [kept] = session.assign({"cooperative": True})
        await session.until(
            lambda count=2 * round_number + 2: len(session.progress) >= count or session.results
        )
        session.cancel(kept, grace=DEADLINE)
        assert (await session.outcome(kept)).HasField("cancelled")
        session.results.clear()


async def test_a_process_that_dies_without_a_task_is_replaced(start: Start, sample: Any) -> None:
    session = (await start(sample.tell, in_processes=True, processes=1)).session
    [before] = session.give(assignment())
    assert (await session.outcome(before)).HasField("success")
    [process] = multiprocessing.active_children()
    process.kill()
    process.join()
    [token] = session.give(assignment())
    assert (await session.outcome(token)).HasField("success")


async def test_a_lost_lease_tells_a_thread(start: Start, sample: Any) -> None:
    told: list[bool] = []

    def work(context: TaskContext) -> None:
        context.progress(0.0)
        told.append(context.wait_cancelled(DEADLINE))

    session = (await start(work, slots=1, prefetch=0)).session
    [lost] = session.assign({})
    await session.until(lambda: session.progress)
    session.send(lease_lost=pb.LeaseLost(lease_tokens=[lost]))
    await session.until(lambda: session.credit == 2)
    assert told == [True]
    assert session.results == {}
