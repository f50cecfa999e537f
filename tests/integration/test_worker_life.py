"""How tasks are stopped and end, and what they say, in loops, threads and processes."""

import asyncio
import threading
from typing import Any

from fixtures.worker import (
    DEADLINE,
    Start,
    execution,
    sample,
    start,
    stuck,
    value_of,
)

from meshq.v1 import worker_service_pb2 as pb
from meshq.worker import TaskContext

__all__ = ["execution", "sample", "start", "stuck"]

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

    async def work(name: str) -> str:
        try:
            await asyncio.sleep(0.05 if name == "kept" else DEADLINE)
        except asyncio.CancelledError:
            ended.append(name)
            raise
        return name

    session = (await start(work)).session
    [lost] = session.assign("lost")
    await session.until(lambda: session.received)
    session.send(lease_lost=pb.LeaseLost(lease_tokens=[lost]))
    [kept] = session.assign("kept")
    assert value_of(await session.outcome(kept)) == "kept"
    assert ended == ["lost"]
    assert lost not in session.results
