"""The worker's session: running handlers, their news, streams that break, and what the server asks."""

import asyncio
import os
import threading
from typing import Any

import psutil
import pytest
from fixtures.worker import (
    DEADLINE,
    Execution,
    Start,
    execution,
    multiply,
    sample,
    start,
    stuck,
    value_of,
)

from meshq.client.values import from_value
from meshq.contract.errors import InvalidRequest, Unavailable
from meshq.v1 import worker_service_pb2 as pb
from meshq.worker import Refused, TaskContext, TaskFailure, TaskRegistry, Worker

__all__ = ["execution", "sample", "start", "stuck"]

# Running


async def test_hello_says_who_the_worker_is(start: Start) -> None:
    bench = await start(
        multiply, worker_id="w1", queues=["a", "b"], slots=7, labels={"zone": "x"}, build_id="b1"
    )
    hello = bench.session.hello
    assert (hello.worker_id, list(hello.queues), hello.slots) == ("w1", ["a", "b"], 7)
    assert (list(hello.task_types), dict(hello.labels), hello.build_id) == (["work"], {"zone": "x"}, "b1")
    assert hello.protocol_version == 1
    assert hello.user_agent.startswith("meshq-python/")
    assert len(hello.instance_key) == 16
    await bench.session.until(lambda: bench.session.credit == 7)


async def test_weights_of_queues_are_told(start: Start) -> None:
    hello = (await start(multiply, queues={"high": 3, "low": 1})).session.hello
    assert list(hello.queues) == ["high", "low"]
    assert dict(hello.queue_weights) == {"high": 3, "low": 1}


async def test_plain_functions_run_and_are_received_first(start: Start) -> None:
    session = (await start(multiply)).session
    [token] = session.assign({"a": 6, "b": 7})
    result = await session.outcome(token)
    assert value_of(result) == 42
    assert result.start_time.seconds > 0
    assert session.received == {token}
    assert session.frames.index("received") < session.frames.index("results")


async def test_coroutine_functions_run_side_by_side_up_to_the_slots(start: Start) -> None:
    running, highest = 0, 0

    async def work(number: int) -> int:
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        await asyncio.sleep(0.01)
        running -= 1
        return number

    session = (await start(work, slots=5)).session
    tokens = session.assign(*range(20))
    results = [await session.outcome(token) for token in tokens]
    assert [value_of(result) for result in results] == list(range(20))
    assert highest == 5


async def test_functions_run_in_processes(start: Start, sample: Any) -> None:
    bench = await start(sample.die, in_processes=True, processes=2)
    assert bench.session.hello.slots == 2
    tokens = bench.session.assign(0, 0, 0, 0)
    pids = {value_of(await bench.session.outcome(token)) for token in tokens}
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2


async def test_blocking_functions_get_threads(start: Start) -> None:
    barrier = threading.Barrier(20)

    def work(number: int) -> int:
        barrier.wait(DEADLINE)  # Passes only when all twenty run at once.
        return number

    session = (await start(work, slots=20)).session
    for token in session.assign(*range(20)):
        assert (await session.outcome(token)).HasField("success")


async def test_many_tasks_take_few_frames(start: Start) -> None:
    session = (await start(multiply, slots=100)).session
    total = 5_000
    while session.assigned < total:
        await session.until(lambda: session.credit > session.assigned)
        count = min(session.credit - session.assigned, 1_000, total - session.assigned)
        session.assign(*({"a": 1, "b": 1} for _ in range(count)))
    await session.until(lambda: len(session.results) == total)
    assert session.result_frames < total / 10
    assert session.frames.count("credits") < total / 10


# What goes wrong in handlers


async def test_failures_say_what_happened(start: Start) -> None:
    async def work(how: str) -> None:
        if how == "own":
            raise TaskFailure("no funds", type="NO_FUNDS")
        raise LookupError("gone")

    session = (await start(work)).session
    own, other, invalid = session.assign("own", "other", 5)
    [unknown] = session.assign("x", kind="nobody")
    assert (await session.outcome(own)).failure.error.type == "NO_FUNDS"
    error = (await session.outcome(other)).failure.error
    assert (error.type, error.message) == ("LookupError", "gone")
    assert "raise LookupError" in error.traceback
    error = (await session.outcome(invalid)).failure.error
    assert error.type == "INVALID_INPUT"
    assert error.message.startswith("how: input should be a valid string")
    error = (await session.outcome(unknown)).failure.error
    assert (error.type, error.message) == (
        "UNKNOWN_TASK_TYPE",
        "task.type: 'nobody' has no handler at this worker",
    )


async def test_a_process_that_dies_takes_only_its_task_along(start: Start, sample: Any) -> None:
    session = (await start(sample.die, in_processes=True, processes=1)).session
    dead, alive = session.assign(3, 0)
    error = (await session.outcome(dead)).failure.error
    assert error.type == "PROCESS_DIED"
    assert "exit code 3" in error.message
    assert value_of(await session.outcome(alive)) > 0


# News


async def test_progress_and_output_are_sent_while_a_task_runs(start: Start) -> None:
    done = threading.Event()

    def work(context: TaskContext) -> None:
        context.progress(0.25, "a quarter", {"n": 1})
        context.log("hello")
        context.output(b"\x00\x01", stream="raw")
        done.wait(DEADLINE)

    session = (await start(work)).session
    [token] = session.assign({})
    await session.until(lambda: session.progress and len(session.outputs) == 2)
    done.set()
    news = session.progress[0]
    assert (news.lease_token, news.fraction, news.message) == (token, 0.25, "a quarter")
    assert from_value(news.detail) == {"n": 1}
    assert [(item.stream, item.offset, item.chunk) for item in session.outputs] == [
        ("log", 0, b"hello\n"),
        ("raw", 0, b"\x00\x01"),
    ]
    assert (await session.outcome(token)).HasField("success")


async def test_a_process_reports_too(start: Start, sample: Any) -> None:
    session = (await start(sample.linger, in_processes=True, processes=1)).session
    session.assign({"cooperative": True})
    await session.until(lambda: session.progress and session.outputs)
    assert session.outputs[0].chunk == b"lingering\n"


async def test_pings_are_answered_and_heartbeats_come(start: Start) -> None:
    session = (await start(multiply)).session
    session.send(ping=pb.Ping(nonce=77))
    await session.until(lambda: session.pongs == [77] and session.heartbeats >= 3)


# Streams that break


async def test_results_of_a_break_are_reported_in_the_next_session(
    execution: Execution, start: Start, stuck: threading.Event
) -> None:
    session = (await start(lambda: stuck.wait(DEADLINE))).session
    tokens = session.assign({}, {})
    await session.until(lambda: len(session.received) == 2)
    session.drop()
    await session.until(lambda: session.ended)
    stuck.set()
    again = await execution.session()
    assert sorted(again.hello.held_leases) == sorted(tokens)
    assert again.hello.instance_key == session.hello.instance_key
    for token in tokens:
        assert (await again.outcome(token)).HasField("success")
    [more] = again.assign({})
    assert (await again.outcome(more)).HasField("success")


async def test_results_are_kept_until_they_are_acknowledged(execution: Execution, start: Start) -> None:
    execution.answer = lambda _token: None
    session = (await start(multiply)).session
    [token] = session.assign({"a": 2, "b": 3})
    await session.outcome(token)
    session.drop()
    execution.answer = lambda _token: pb.RESULT_STATUS_ACCEPTED
    again = await execution.session()
    assert list(again.hello.held_leases) == [token]
    assert value_of(await again.outcome(token)) == 6
    again.send(ping=pb.Ping(nonce=1))
    await again.until(lambda: again.pongs)
    again.drop()
    assert list((await execution.session()).hello.held_leases) == []


async def test_credit_begins_anew_with_each_session(execution: Execution, start: Start) -> None:
    session = (await start(multiply, slots=4, prefetch=0)).session
    for token in session.assign(*[{"a": 1, "b": 1}] * 4):
        await session.outcome(token)
    session.drop()
    again = await execution.session()
    await again.until(lambda: again.credit == 4)


async def test_try_later_is_tried_later(execution: Execution, start: Start) -> None:
    statuses = [pb.RESULT_STATUS_TRY_LATER, pb.RESULT_STATUS_TRY_LATER]
    execution.answer = lambda _token: statuses.pop() if statuses else pb.RESULT_STATUS_ACCEPTED
    session = (await start(multiply)).session
    [token] = session.assign({"a": 1, "b": 1})
    await session.until(lambda: session.reports == [token] * 3)


async def test_a_refused_result_is_dropped(execution: Execution, start: Start) -> None:
    execution.answer = lambda _token: pb.RESULT_STATUS_LEASE_LOST
    session = (await start(multiply)).session
    [token] = session.assign({"a": 1, "b": 1})
    await session.outcome(token)
    session.send(ping=pb.Ping(nonce=1))
    await session.until(lambda: session.pongs)
    session.drop()
    assert list((await execution.session()).hello.held_leases) == []


async def test_leases_that_are_not_kept_stop_their_handlers(execution: Execution, start: Start) -> None:
    ended = threading.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(DEADLINE)
        finally:
            ended.set()

    session = (await start(work)).session
    session.assign({})
    await session.until(lambda: session.received)
    execution.keep = lambda _token: False
    session.drop()
    again = await execution.session()
    assert await asyncio.to_thread(ended.wait, DEADLINE)
    assert again.results == {}


async def test_a_killed_session_process_is_replaced(
    execution: Execution, start: Start, stuck: threading.Event
) -> None:
    bench = await start(lambda: stuck.wait(DEADLINE))
    [token] = bench.session.assign({})
    await bench.session.until(lambda: bench.session.received)
    for child in psutil.Process().children():
        if "meshq.worker.session" in child.cmdline():
            child.kill()
    again = await execution.session()
    assert list(again.hello.held_leases) == [token]
    assert again.hello.instance_key == bench.session.hello.instance_key
    stuck.set()
    assert (await again.outcome(token)).HasField("success")


async def test_an_unavailable_server_is_tried_again(execution: Execution, start: Start) -> None:
    session = (await start(multiply)).session
    execution.refuse = Unavailable("starting")
    session.drop()
    async with asyncio.timeout(DEADLINE):
        await execution.refused.wait()
    execution.refuse = None
    assert (await execution.session()).hello.worker_id == session.hello.worker_id


async def test_a_refusal_ends_the_worker(execution: Execution) -> None:
    execution.refuse = InvalidRequest.field("hello.slots", "must be something else")
    worker = Worker(execution.target, tasks=[registry_of(multiply)])
    with pytest.raises(Refused, match=r"hello\.slots: must be something else"):
        await asyncio.to_thread(worker.run)


def registry_of(function: Any) -> TaskRegistry:
    registry = TaskRegistry()
    registry.add("work", function)
    return registry


# What the server asks for


async def test_reconnect_moves_to_another_session_with_all_leases(
    execution: Execution, start: Start, stuck: threading.Event
) -> None:
    session = (await start(lambda: stuck.wait(DEADLINE))).session
    [token] = session.assign({})
    await session.until(lambda: session.received)
    session.send(control=pb.Control(action=pb.CONTROL_ACTION_RECONNECT))
    again = await execution.session()
    assert session.goodbye is None
    assert list(again.hello.held_leases) == [token]
    stuck.set()
    assert (await again.outcome(token)).HasField("success")


async def test_pause_and_resume(start: Start) -> None:
    session = (await start(multiply, slots=2, prefetch=0)).session
    await session.until(lambda: session.credit == 2)
    session.send(control=pb.Control(action=pb.CONTROL_ACTION_PAUSE))
    for token in session.assign(*[{"a": 1, "b": 1}] * 2):
        await session.outcome(token)
    session.send(ping=pb.Ping(nonce=1))
    await session.until(lambda: session.pongs)
    assert session.credit == 2
    session.send(control=pb.Control(action=pb.CONTROL_ACTION_RESUME))
    await session.until(lambda: session.credit == 4)


async def test_new_settings_are_taken(start: Start) -> None:
    session = (await start(multiply)).session
    settings = pb.Control(action=pb.CONTROL_ACTION_SETTINGS)
    settings.heartbeat_interval.FromMilliseconds(5)
    session.send(control=settings)
    await session.until(lambda: session.heartbeats >= 30)


async def test_drain_finishes_and_says_goodbye(start: Start, stuck: threading.Event) -> None:
    bench = await start(lambda: stuck.wait(DEADLINE), slots=1)
    session = bench.session
    running, waiting = session.assign({}, {})
    await session.until(lambda: len(session.received) == 2)
    session.send(control=pb.Control(action=pb.CONTROL_ACTION_DRAIN))
    end = asyncio.create_task(asyncio.to_thread(bench.worker.wait))
    assert (await session.outcome(waiting)).HasField("release")
    stuck.set()
    assert (await session.outcome(running)).HasField("success")
    await end
    assert session.goodbye is not None
