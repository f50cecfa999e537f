"""Execution instances in this process, on real shards and a real database, with a ledger that tests script."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from meshq.contract.errors import Unavailable
from meshq.contract.ids import new_task_id
from meshq.execution.app import Execution
from meshq.execution.settings import ExecutionSettings
from meshq.internal.v1 import dispatch_service_pb2 as dispatch_pb
from meshq.internal.v1 import ledger_service_pb2 as ledger_pb
from meshq.internal.v1.attempt_service_pb2_grpc import AttemptServiceStub
from meshq.internal.v1.dispatch_service_pb2_grpc import DispatchServiceStub
from meshq.internal.v1.ledger_service_pb2_grpc import (
    LedgerServiceServicer,
    add_LedgerServiceServicer_to_server,
)
from meshq.internal.v1.progress_service_pb2_grpc import ProgressServiceStub
from meshq.mesh.channels import CHANNEL_OPTIONS
from meshq.mesh.server import ServedService, start_server
from meshq.v1 import task_pb2, worker_service_pb2
from meshq.v1.ring_service_pb2_grpc import RingServiceStub
from meshq.v1.worker_service_pb2_grpc import WorkerServiceStub

DONE, RUN, GONE, KEEP = 1, 2, 3, 4


async def wait_until(condition: Callable[[], Any], what: str = "", seconds: float = 15.0) -> Any:
    """Wait for a condition, which may be awaitable, with a deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"not in time: {what or condition}"
        await asyncio.sleep(0.01)


class FakeLedger(LedgerServiceServicer):
    """Ends tasks, runs lost ones again up to three attempts; `answer` may be replaced."""

    def __init__(self) -> None:
        self.reports: list[ledger_pb.AttemptReport] = []
        self.available = True
        self.answer: Callable[[ledger_pb.AttemptReport], ledger_pb.Directive] = self.default

    def default(self, report: ledger_pb.AttemptReport) -> ledger_pb.Directive:
        if report.outcome == task_pb2.ATTEMPT_OUTCOME_UNSPECIFIED:
            return ledger_pb.Directive(kind=KEEP)
        if report.outcome == task_pb2.ATTEMPT_OUTCOME_LOST and report.attempt < 3:
            now = int(time.time() * 1000)
            return ledger_pb.Directive(kind=RUN, attempt=report.attempt + 1, not_before_ms=now)
        return ledger_pb.Directive(kind=DONE, state=task_pb2.TASK_STATE_SUCCEEDED)

    async def ReportAttempts(self, request: Any, context: Any) -> Any:  # noqa: N802
        if not self.available:
            raise Unavailable("not now")
        self.reports.extend(request.reports)
        return ledger_pb.ReportAttemptsResponse(directives=[self.answer(item) for item in request.reports])

    def of(self, task_id: bytes, outcome: int | None = None) -> list[ledger_pb.AttemptReport]:
        return [
            report
            for report in self.reports
            if report.task_id == task_id and (report.outcome if outcome is None else outcome) == report.outcome
        ]

    def ended(self) -> dict[bytes, int]:
        return {report.task_id: report.outcome for report in self.reports if report.outcome}


class Peers:
    def __init__(self) -> None:
        self.instances: dict[str, Any] = {}

    async def wait_ready(self, timeout: float) -> None:
        pass

    def subscribe(self, callback: Callable[[], None]) -> None:
        pass


class QuietEtcd:
    """Says nothing; the ring comes from the database."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.changed = asyncio.Event()

    async def get(self, key: str) -> Any:
        value = self.content.get(key)
        return None if value is None else SimpleNamespace(value=value)

    async def put(self, key: str, value: bytes) -> int:
        self.content[key] = value
        return 1

    async def watch(self, prefix: str) -> AsyncIterator[Any]:
        yield None
        while True:
            await self.changed.wait()
            self.changed.clear()
            yield None


class Instance:
    """One execution instance with its server and stubs."""

    def __init__(self, execution: Execution, server: grpc.aio.Server, port: int) -> None:
        self.execution = execution
        self.server = server
        self.address = f"127.0.0.1:{port}"
        self.channel = grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        self.worker = WorkerServiceStub(self.channel)
        self.dispatch = DispatchServiceStub(self.channel)
        self.attempts = AttemptServiceStub(self.channel)
        self.progress = ProgressServiceStub(self.channel)
        self.ring = RingServiceStub(self.channel)
        self.app = execution.app()
        self.stopped = False

    async def open(self) -> None:
        """Wait until all shards are open."""
        shards = self.execution.shards
        await wait_until(lambda: shards.all() and all(s.state.name == "OPEN" for s in shards.all()), "open shards")

    async def stop(self, *, crash: bool = False) -> None:
        if self.stopped:
            return
        self.stopped = True
        if crash:
            # What a killed process does not do any more: answer, renew, report.
            for part in ("sessions", "expirer", "receipts", "recorder", "reporter", "polls"):
                task = getattr(self.execution, part)
                if part == "sessions":
                    await task._repeater.stop()
                    await task._allocator.stop()
                else:
                    await task.stop()
        await self.channel.close()
        await self.server.stop(None)
        for part in reversed(self.app.background):
            await part.stop()


class Cluster:
    """Starts instances that share a database, shards and a ledger."""

    def __init__(self, database: str, shards: Mapping[str, str], ledger: FakeLedger, ledger_address: str) -> None:
        self.database = database
        self.shards = shards
        self.ledger = ledger
        self.peers = Peers()
        self.etcd = QuietEtcd()
        self.instances: list[Instance] = []
        self._ledger_channel = grpc.aio.insecure_channel(ledger_address, options=CHANNEL_OPTIONS)
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def start(self, **settings: Any) -> Instance:
        values = {
            "database_url": self.database,
            "shards": ",".join(f"{name}={address}" for name, address in self.shards.items()),
            "instance_id": f"execution-{len(self.instances) + 1}",
            "lease_ttl": 3.0,
            "heartbeat_interval": 0.5,
            "delivery_timeout": 1.0,
            **settings,
        }
        kit = SimpleNamespace(
            settings=ExecutionSettings(**values),
            instance_id=values["instance_id"],
            etcd=self.etcd,
            channel=lambda: self._ledger_channel,
            direct=self._direct,
            peers=lambda _component: self.peers,
        )
        execution = Execution(kit)
        server, port = await start_server(execution.app().services)
        instance = Instance(execution, server, port)
        for part in instance.app.background:
            await part.start()
        self.instances.append(instance)
        self.peers.instances[kit.instance_id] = SimpleNamespace(address=instance.address)
        await instance.open()
        return instance

    def _direct(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        return self._channels[address]

    async def stop(self) -> None:
        for instance in reversed(self.instances):
            await instance.stop()
        for channel in (*self._channels.values(), self._ledger_channel):
            await channel.close()


@pytest.fixture
async def cluster(database: str, shards: dict[str, str]) -> AsyncIterator[Cluster]:
    ledger = FakeLedger()
    service = ServedService(
        "meshq.internal.v1.LedgerService", lambda server: add_LedgerServiceServicer_to_server(ledger, server)
    )
    server, port = await start_server([service])
    running = Cluster(database, shards, ledger, f"127.0.0.1:{port}")
    try:
        yield running
    finally:
        await running.stop()
        await server.stop(None)


@pytest.fixture
async def instance(cluster: Cluster) -> Instance:
    return await cluster.start()


class TestWorker:
    """A worker at the level of frames."""

    __test__ = False

    def __init__(self, instance: Instance, worker_id: str = "w-1", **hello: Any) -> None:
        self.instance = instance
        values = {"protocol_version": 1, "instance_key": b"k1", "task_types": ["t"], "slots": 10}
        values |= {"capabilities": ["cancel", "progress", "output"]} | hello
        self.hello = worker_service_pb2.Hello(worker_id=worker_id, **values)
        self.call: Any = None
        self.welcome: Any = None
        self.assigned: dict[bytes, Any] = {}
        self.acks: dict[bytes, int] = {}
        self.cancels: dict[bytes, Any] = {}
        self.lost: set[bytes] = set()
        self.controls: list[int] = []
        self.error: Any = None
        self.ended = asyncio.Event()
        self.auto_receive = True
        self.auto_finish = False
        self._total = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self, credit: int = 0, *, heartbeat: bool = True) -> "TestWorker":
        self.call = self.instance.worker.Connect()
        await self.send(hello=self.hello)
        first = await self.call.read()
        assert first is not grpc.aio.EOF
        self.welcome = first.welcome
        self._tasks.append(asyncio.create_task(self._read()))
        if heartbeat:
            self._tasks.append(asyncio.create_task(self._beat()))
        if credit:
            await self.credit(credit)
        return self

    async def send(self, **frame: Any) -> None:
        await self.call.write(worker_service_pb2.ConnectRequest(**frame))

    async def credit(self, more: int) -> None:
        self._total += more
        await self.send(credits=worker_service_pb2.Credits(total=self._total))

    async def receive(self, *tokens: bytes) -> None:
        await self.send(received=worker_service_pb2.Received(lease_tokens=tokens))

    async def finish(self, *tokens: bytes, data: bytes = b"out") -> None:
        success = worker_service_pb2.Success(data=data)
        results = [worker_service_pb2.TaskResult(lease_token=token, success=success) for token in tokens]
        await self.send(results=worker_service_pb2.Results(results=results))

    async def next_task(self, count: int = 1) -> list[bytes]:
        await wait_until(lambda: len(self.assigned) >= count, f"{count} assignments to {self.hello.worker_id}")
        return list(self.assigned)

    async def _read(self) -> None:
        try:
            while (frame := await self.call.read()) is not grpc.aio.EOF:
                await self._take(frame)
        except grpc.aio.AioRpcError as error:
            self.error = error
        except (asyncio.CancelledError, asyncio.InvalidStateError):
            pass
        finally:
            self.ended.set()

    async def _take(self, frame: Any) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "assign":
            tokens = [item.lease_token for item in frame.assign.assignments]
            self.assigned |= {item.lease_token: item for item in frame.assign.assignments}
            if self.auto_receive:
                await self.receive(*tokens)
            if self.auto_finish:
                await self.finish(*tokens)
                await self.credit(len(tokens))
        elif kind == "results_ack":
            self.acks |= {ack.lease_token: ack.status for ack in frame.results_ack.acks}
        elif kind == "cancel":
            self.cancels |= {lease.lease_token: lease for lease in frame.cancel.leases}
        elif kind == "lease_lost":
            self.lost |= set(frame.lease_lost.lease_tokens)
        elif kind == "control":
            self.controls.append(frame.control.action)

    async def _beat(self) -> None:
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            while True:
                await asyncio.sleep(0.3)
                await self.send(heartbeat=worker_service_pb2.Heartbeat())

    async def close(self) -> None:
        """Vanish."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.call is not None:
            self.call.cancel()


@pytest.fixture
async def workers() -> AsyncIterator[Callable[..., TestWorker]]:
    made: list[TestWorker] = []

    def make(instance: Instance, worker_id: str = "w-1", **hello: Any) -> TestWorker:
        made.append(TestWorker(instance, worker_id, **hello))
        return made[-1]

    yield make
    for worker in made:
        await worker.close()


class Dispatcher:
    """Management's side of a dispatch stream."""

    def __init__(self, instance: Instance) -> None:
        self.call = instance.dispatch.Dispatch()
        self.frame = 0
        self.compares = 0

    def item(self, task_type: str = "t", **fields: Any) -> Any:
        values = {
            "task_id": new_task_id().bytes,
            "attempt": 1,
            "tenant": "default",
            "queue": "default",
            "type": task_type,
            "ready_time_ms": int(time.time() * 1000),
        } | fields
        task = task_pb2.Task(task_id=str(uuid.UUID(bytes=values["task_id"])), type=task_type, data=b"in")
        return dispatch_pb.DispatchItem(task=task.SerializeToString(), **values)

    async def send(self, *items: Any) -> dict[int, int]:
        """Dispatch and return what was rejected."""
        number, self.frame = self.frame, self.frame + 1
        await self.call.write(dispatch_pb.DispatchRequest(frame=number, items=items))
        while True:
            answer = await self.read()
            if answer.HasField("frame"):
                assert answer.frame == number
                return {item.index: item.reason for item in answer.rejected}

    async def read(self) -> Any:
        answer = await self.call.read()
        assert answer is not grpc.aio.EOF
        self.compares += answer.compare
        return answer

    async def one(self, **fields: Any) -> bytes:
        item = self.item(**fields)
        assert await self.send(item) == {}
        return bytes(item.task_id)

    async def many(self, count: int, **fields: Any) -> list[bytes]:
        items = [self.item(**fields) for _ in range(count)]
        assert await self.send(*items) == {}
        return [bytes(item.task_id) for item in items]


@pytest.fixture
async def dispatchers() -> AsyncIterator[Callable[[Instance], Dispatcher]]:
    made: list[Dispatcher] = []

    def make(instance: Instance) -> Dispatcher:
        made.append(Dispatcher(instance))
        return made[-1]

    yield make
    for dispatcher in made:
        dispatcher.call.cancel()


@pytest.fixture
def dispatcher(dispatchers: Callable[[Instance], Dispatcher], instance: Instance) -> Dispatcher:
    return dispatchers(instance)


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., Awaitable[Any]]:
    return wait_until
