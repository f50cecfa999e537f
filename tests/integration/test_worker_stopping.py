"""How a worker ends, and the commands that run one."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from fixtures.processes import running
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

from meshq.v1 import worker_service_pb2 as pb
from meshq.worker import TaskContext

__all__ = ["execution", "sample", "start", "stuck"]

Running = AbstractContextManager["subprocess.Popen[str]"]
Command = Callable[..., Running]

MODULE = ("meshq.worker", "--tasks", "sample_tasks")
MESHQ = ("meshq.cli.main", "worker", "run", "sample_tasks")


async def test_stop_waits_for_results_to_be_recorded(execution: Execution, start: Start) -> None:
    statuses = [pb.RESULT_STATUS_TRY_LATER]
    execution.answer = lambda _token: statuses.pop() if statuses else pb.RESULT_STATUS_ACCEPTED
    bench = await start(multiply)
    [token] = bench.session.assign({"a": 1, "b": 1})
    await bench.session.outcome(token)
    await bench.end()
    assert bench.session.reports == [token, token]
    assert bench.session.goodbye is not None


async def test_what_does_not_end_in_time_is_cut_off_without_an_answer(start: Start) -> None:
    cut = threading.Event()

    async def work(context: TaskContext) -> None:
        context.progress(0.0)
        try:
            await asyncio.sleep(DEADLINE)
        finally:
            cut.set()

    bench = await start(work)
    bench.session.assign({})
    await bench.session.until(lambda: bench.session.progress)
    await bench.end()
    assert cut.is_set()
    assert bench.session.results == {}
    assert bench.session.goodbye is not None


@pytest.fixture
def command(execution: Execution, sample: Any, tmp_path: Path) -> Command:
    def begin(*options: str, line: Sequence[str] = MODULE) -> Running:
        return running(
            [sys.executable, "-m", *line, *options],
            env={**os.environ, "PYTHONPATH": str(tmp_path), "MESHQ_TARGET": execution.target},
            stderr=subprocess.PIPE,
        )

    return begin


async def test_a_handler_that_holds_the_interpreter_does_not_stop_heartbeats(
    execution: Execution, command: Command
) -> None:
    with command("--id", "w1") as process:
        session = await execution.session()
        [token] = session.assign("gil")
        await session.until(lambda: session.progress)
        before, began = session.heartbeats, time.monotonic()
        assert value_of(await session.outcome(token)) == "gil"
        beats = session.heartbeats - before
        assert beats >= (time.monotonic() - began) / execution.heartbeat * 0.5
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, DEADLINE) == 0
        assert session.goodbye == "stopping"
        assert process.stderr is not None
        assert '"message": "connected"' in process.stderr.read()


async def test_a_second_signal_hastens_the_end(execution: Execution, command: Command) -> None:
    with command("--drain-timeout", "60", "--log-format", "console") as process:
        session = await execution.session()
        session.assign("long")
        await session.until(lambda: session.progress)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while "stopping" not in (line := await asyncio.to_thread(process.stderr.readline)):
            assert line
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, DEADLINE) == 0


async def test_a_killed_worker_says_goodbye_through_its_session(
    execution: Execution, command: Command
) -> None:
    with command() as process:
        session = await execution.session()
        session.assign("long")
        await session.until(lambda: session.progress)
        process.kill()
        await session.until(lambda: session.goodbye)
        assert session.goodbye == "the worker's process ended"


@pytest.mark.parametrize(
    ("line", "options"), [(MODULE, ["--queues", "high=3,low"]), (MESHQ, ["-q", "high=3", "-q", "low"])]
)
async def test_weights_of_queues_come_from_the_command_line(
    execution: Execution, command: Command, line: Any, options: Any
) -> None:
    with command(*options, line=line) as process:
        hello = (await execution.session()).hello
        assert list(hello.queues) == ["high", "low"]
        assert dict(hello.queue_weights) == {"high": 3, "low": 1}
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, DEADLINE) == 0
