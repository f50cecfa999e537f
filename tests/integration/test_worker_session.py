"""The worker against a real gRPC server that plays the execution component frame by frame."""

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest

from meshq.client.values import fill_value, from_value
from meshq.contract.errors import InvalidRequest, MeshqError, Unavailable
from meshq.contract.status import STATUS_KEY, to_status
from meshq.v1 import worker_service_pb2 as pb
from meshq.worker import Refused, TaskContext, TaskFailure, TaskRegistry, Worker

DEADLINE = 15.0

TASKS = """
import os
import time
from meshq.worker import TaskContext, TaskRegistry

registry = TaskRegistry()

@registry.task()
def work(context: TaskContext, how: str) -> str:
    context.progress(0.0)
    if how == "gil":
        time.sleep(0.2)
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            sum(range(20_000_000))  # One call into C that does not let go of the interpreter lock.
    else:
        context.wait_cancelled(60.0)
    return how

def die(code: int) -> int:
    if code:
        os._exit(code)
    return os.getpid()

def linger(context: TaskContext, cooperative: bool) -> str:
    context.progress(0.5, "lingering")
    context.log("lingering")
    if cooperative:
        context.wait_cancelled(60.0)
        context.raise_if_cancelled()
    time.sleep(60.0)
    return "not cancelled"
"""


class Session:
    """One stream of a worker, with all that it said."""

    def __init__(self, hello: pb.Hello) -> None:
        self.hello = hello
        self.frames: list[str] = []
        self.credit = 0
        self.assigned = 0
        self.received: set[bytes] = set()
        self.heartbeats = 0
        self.progress: list[pb.LeaseProgress] = []
        self.outputs: list[pb.LeaseOutput] = []
        self.results: dict[bytes, pb.TaskResult] = {}
        self.reports: list[bytes] = []
        self.result_frames = 0
        self.pongs: list[int] = []
        self.goodbye: str | None = None
        self.ended = False
        self.news = asyncio.Event()
        self.outgoing: asyncio.Queue[pb.ConnectResponse | MeshqError | None] = asyncio.Queue()

    def send(self, **frame: Any) -> None:
        self.outgoing.put_nowait(pb.ConnectResponse(**frame))

    def drop(self) -> None:
        self.outgoing.put_nowait(Unavailable("dropped by the test"))

    def assign(self, *inputs: Any, kind: str = "work", tokens: Iterable[bytes] | None = None) -> list[bytes]:
        frame = pb.Assign()
        for value, token in zip(inputs, tokens or [uuid.uuid4().bytes for _ in inputs], strict=True):
            item = frame.assignments.add(lease_token=token, attempt=1)
            item.task.task_id = str(uuid.uuid4())
            item.task.type = kind
            fill_value(item.task.payload, value)
        self.assigned += len(inputs)
        self.send(assign=frame)
        return [item.lease_token for item in frame.assignments]

    def cancel(self, token: bytes, grace: float = 5.0) -> None:
        lease = pb.CancelLease(lease_token=token, reason="enough")
        lease.grace.FromMilliseconds(int(grace * 1000))
        self.send(cancel=pb.Cancel(leases=[lease]))

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def outcome(self, token: bytes) -> pb.TaskResult:
        await self.until(lambda: token in self.results)
        return self.results[token]


class Execution:
    """Serves sessions. The tests say what is kept, how results are answered and what is refused."""

    def __init__(self) -> None:
        self.sessions: asyncio.Queue[Session] = asyncio.Queue()
        self.refuse: MeshqError | None = None
        self.refused = asyncio.Event()
        self.keep: Callable[[bytes], bool] = lambda _token: True
        self.answer: Callable[[bytes], pb.ResultStatus.ValueType | None]
        self.answer = lambda _token: pb.RESULT_STATUS_ACCEPTED
        self.heartbeat = 0.1
        self.target = ""

    async def session(self) -> Session:
        async with asyncio.timeout(DEADLINE):
            return await self.sessions.get()

    async def connect(self, request_iterator: Any, context: Any) -> AsyncIterator[pb.ConnectResponse]:
        hello = (await anext(request_iterator)).hello
        if self.refuse is not None:
            self.refused.set()
            await abort(context, self.refuse)
        session = Session(hello)
        yield self._welcome(hello)
        self.sessions.put_nowait(session)
        reader = asyncio.create_task(self._read(session, request_iterator))
        try:
            while (frame := await session.outgoing.get()) is not None:
                if isinstance(frame, MeshqError):
                    await abort(context, frame)
                    return
                yield frame
        finally:
            session.ended = True
            session.news.set()
            reader.cancel()
            await asyncio.wait([reader])

    def _welcome(self, hello: pb.Hello) -> pb.ConnectResponse:
        welcome = pb.Welcome(session_id=str(uuid.uuid4()), instance_id="execution-1")
        welcome.heartbeat_interval.FromMilliseconds(int(self.heartbeat * 1000))
        for token in hello.held_leases:
            welcome.held_leases.add(lease_token=token, kept=self.keep(token))
        return pb.ConnectResponse(welcome=welcome)

    async def _read(self, session: Session, frames: Any) -> None:
        try:
            async for frame in frames:
                self._take(session, frame)
                session.news.set()
        except grpc.aio.UsageError:
            return  # The call ended first.
        session.outgoing.put_nowait(None)

    def _take(self, session: Session, frame: pb.ConnectRequest) -> None:
        kind = frame.WhichOneof("frame")
        session.frames.append(str(kind))
        if kind == "credits":
            session.credit = frame.credits.total
        elif kind == "received":
            session.received.update(frame.received.lease_tokens)
        elif kind == "heartbeat":
            session.heartbeats += 1
            session.progress.extend(frame.heartbeat.progress)
        elif kind == "output":
            session.outputs.extend(frame.output.outputs)
        elif kind == "pong":
            session.pongs.append(frame.pong.nonce)
        elif kind == "goodbye":
            session.goodbye = frame.goodbye.reason
        elif kind == "results":
            self._acknowledge(session, frame.results.results)

    def _acknowledge(self, session: Session, results: Any) -> None:
        session.result_frames += 1
        acks = pb.ResultsAck()
        for result in results:
            session.reports.append(result.lease_token)
            session.results[result.lease_token] = result
            status = self.answer(result.lease_token)
            if status is not None:
                acks.acks.add(lease_token=result.lease_token, status=status)
        if acks.acks:
            session.send(results_ack=acks)


async def abort(context: Any, error: MeshqError) -> None:
    status = to_status(error)
    await context.abort(error.code, error.message, ((STATUS_KEY, status.SerializeToString()),))


@pytest.fixture
async def execution() -> AsyncIterator[Execution]:
    server = grpc.aio.server()
    servicer = Execution()
    connect = grpc.stream_stream_rpc_method_handler(
        servicer.connect, pb.ConnectRequest.FromString, pb.ConnectResponse.SerializeToString
    )
    handler = grpc.method_handlers_generic_handler("meshq.v1.WorkerService", {"Connect": connect})
    server.add_generic_rpc_handlers((handler,))
    servicer.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield servicer
    await server.stop(0)


class Bench:
    """A running worker and its first session."""

    def __init__(self, worker: Worker, session: Session) -> None:
        self.worker = worker
        self.session = session

    async def end(self) -> None:
        self.worker.stop()
        await asyncio.to_thread(self.worker.wait)


Start = Callable[..., Any]


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of handlers that other processes can import, which test modules cannot be."""
    (tmp_path / "sample_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("sample_tasks")
    del sys.modules["sample_tasks"]


@pytest.fixture
async def start(execution: Execution) -> AsyncIterator[Start]:
    running: list[Bench] = []

    async def begin(function: Any = None, **options: Any) -> Bench:
        processes = options.pop("in_processes", False)
        worker = Worker(execution.target, drain_timeout=0.5, **options)
        if function is not None:
            worker.registry.add("work", function, processes=processes)
        worker.start()
        bench = Bench(worker, await execution.session())
        running.append(bench)
        return bench

    yield begin
    for bench in running:
        bench.worker.stop()
        await bench.end()


def multiply(a: int, b: int) -> int:
    return a * b


def value_of(result: pb.TaskResult) -> Any:
    assert result.WhichOneof("outcome") == "success", result
    return from_value(result.success.result)


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


# Cancelling and losing


@pytest.fixture
def stuck() -> threading.Event:
    return threading.Event()


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


# Stopping


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
def command(execution: Execution, sample: Any, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    def begin(*options: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "meshq.worker", "--target", execution.target, "--tasks", "sample_tasks"]
        return subprocess.Popen(
            [*line, *options],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


async def test_a_handler_that_holds_the_interpreter_does_not_stop_heartbeats(
    execution: Execution, command: Callable[..., subprocess.Popen[str]]
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


async def test_a_second_signal_hastens_the_end(
    execution: Execution, command: Callable[..., subprocess.Popen[str]]
) -> None:
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
    execution: Execution, command: Callable[..., subprocess.Popen[str]]
) -> None:
    with command() as process:
        session = await execution.session()
        session.assign("long")
        await session.until(lambda: session.progress)
        process.kill()
        await session.until(lambda: session.goodbye)
        assert session.goodbye == "the worker's process ended"
