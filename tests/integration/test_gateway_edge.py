# ruff: noqa: N802 - servicers have the names of the contract
"""The edge as its callers see it: a real Envoy between real clients and a real server.

etcd, the registry and the gateway run as processes; the server of the tasks is in the test and
registers itself like any component, so routes and clusters take their usual way.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import psutil
import pytest
import pytest_asyncio
from google.protobuf import struct_pb2
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from meshq.contract.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    Overloaded,
    PreconditionFailed,
    Reason,
    Unavailable,
    Unimplemented,
)
from meshq.contract.limits import MAX_MESSAGE_BYTES
from meshq.contract.status import from_rpc_error, from_status
from meshq.local.ports import free_ports
from meshq.local.servers import Etcd
from meshq.mesh.channels import open_channel
from meshq.mesh.context import edge, request_id
from meshq.mesh.contract_methods import public_services
from meshq.mesh.etcd import EtcdClient
from meshq.mesh.registration import Announcement, Registration
from meshq.mesh.server import ServedService, start_server
from meshq.v1 import (
    ring_service_pb2,
    ring_service_pb2_grpc,
    task_pb2,
    task_service_pb2,
    task_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

TASKS = "meshq.v1.TaskService"
ID = "01920000-0000-7000-8000-000000000000"
SECONDS = 30.0


class Tasks(task_service_pb2_grpc.TaskServiceServicer):
    """Answers with what it heard."""

    def __init__(self) -> None:
        self.running = asyncio.Event()

    async def CreateTask(self, request: Any, context: Any) -> Any:
        if not request.task.type:
            raise InvalidRequest.field("task.type", "must be set")
        task = task_pb2.Task()
        task.CopyFrom(request.task)
        task.task_id = ID
        task.state = task_pb2.TASK_STATE_PENDING
        heard = {"request_id": request.request_id, "x-request-id": request_id(), "edge": str(edge())}
        task.headers.update(heard)
        task.headers["x-meshq-edge"] = dict(context.invocation_metadata()).get("x-meshq-edge", "")
        return task

    async def BatchCreateTasks(self, request: Any, context: Any) -> Any:
        raise Overloaded("Later.", Reason.BACKLOG_FULL, retry_delay=2.5)

    async def BatchGetTasks(self, request: Any, context: Any) -> Any:
        raise RuntimeError("a fault")

    async def CancelTask(self, request: Any, context: Any) -> Any:
        return task_pb2.Task(task_id=request.task_id, cancel_reason=request.reason)

    async def DeleteTask(self, request: Any, context: Any) -> Any:
        raise PreconditionFailed("The task is open.", Reason.TASK_NOT_ENDED)

    async def GetTask(self, request: Any, _context: Any) -> Any:
        if request.task_id == "slow":
            await asyncio.sleep(SECONDS)
        if request.task_id == "none":
            raise NotFound(f"There is no task {request.task_id}.", Reason.TASK_NOT_FOUND, task_id="none")
        full = request.view == task_pb2.TASK_VIEW_FULL
        value = struct_pb2.Value(number_value=1.5) if full else struct_pb2.Value(string_value="é")
        return task_pb2.Task(
            task_id=request.task_id, type="x", state=task_pb2.TASK_STATE_SUCCEEDED, result=value
        )

    async def ListTasks(self, request: Any, _context: Any) -> Any:
        states = ",".join(str(state) for state in request.states)
        since = request.min_create_time.ToJsonString() if request.HasField("min_create_time") else ""
        headers = {"page_size": str(request.page_size), "states": states, "since": since}
        return task_service_pb2.ListTasksResponse(tasks=[task_pb2.Task(type=request.type, headers=headers)])

    async def RunTask(self, request: Any, _context: Any) -> Any:
        assert request.task.type
        self.running.set()
        await asyncio.sleep(request.wait_timeout.ToMilliseconds() / 1_000)
        return task_pb2.Task(task_id=ID, type=request.task.type, state=task_pb2.TASK_STATE_SUCCEEDED)

    async def WatchTask(self, request: Any, _context: Any) -> AsyncIterator[Any]:
        if request.task_id == "none":
            raise NotFound("There is no such task.")
        for step in (1, 2):
            progress = task_pb2.TaskProgress(attempt=1, fraction=step / 2, message="ö")
            yield task_service_pb2.WatchTaskResponse(progress=progress)
            await asyncio.sleep(0.3)
        yield task_service_pb2.WatchTaskResponse(
            output=task_pb2.TaskOutput(attempt=1, offset=1 << 40, chunk=b"\0\xff")
        )
        ended = task_pb2.Task(task_id=request.task_id, state=task_pb2.TASK_STATE_SUCCEEDED)
        yield task_service_pb2.WatchTaskResponse(task=ended)

    async def IngestTasks(self, requests: Any, _context: Any) -> AsyncIterator[Any]:
        frame = 0
        async for request in requests:
            results = [task_service_pb2.CreateTaskResult(task_id=task.type) for task in request.tasks]
            yield task_service_pb2.IngestTasksResponse(frame=frame, results=results)
            frame += 1


@dataclass
class Stand:
    """The processes, and how to reach the edge."""

    environment: Mapping[str, str]
    gateway: subprocess.Popen[bytes]
    edge: str
    console: str
    http: aiohttp.ClientSession
    channel: grpc.aio.Channel
    tasks: Any
    servicer: Tasks

    async def rest(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        """The status and the JSON of a REST call."""
        async with self.http.request(method, f"http://{self.edge}{path}", **more) as answer:
            assert answer.content_type == "application/json", await answer.text()
            return answer.status, await answer.json()


@contextlib.contextmanager
def process(module: str, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process of meshq, killed at the end if it still runs."""
    started = subprocess.Popen([sys.executable, "-m", module], env={**os.environ, **environment})
    try:
        yield started
    finally:
        if started.poll() is None:
            started.terminate()
            try:
                started.wait(15)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


async def until(ask: Callable[[], Awaitable[bool]], seconds: float = SECONDS) -> None:
    """Ask until the answer is yes."""
    async with asyncio.timeout(seconds):
        while not await ask():  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.05)


def envoys_of(gateway: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [child for child in psutil.Process(gateway.pid).children() if "envoy" in child.name()]


async def answers(http: aiohttp.ClientSession, url: str, status: int = 200) -> bool:
    try:
        async with http.get(url, ssl=False) as answer:
            return answer.status == status
    except aiohttp.ClientError:
        return False


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand(etcd_server: Etcd, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    etcd_server.start()
    etcd_server.wait_ready()
    registry, edge_port, console_port = free_ports(3)
    common = {
        "MESHQ_ETCD_ENDPOINTS": etcd_server.endpoint,
        "MESHQ_REGISTRY_ADDRESSES": f"127.0.0.1:{registry}",
        "MESHQ_DRAIN_DELAY": "0.1",
        "MESHQ_DRAIN_TIMEOUT": "3",
        "MESHQ_LOG_LEVEL": "warning",
        "MESHQ_GATEWAY_WORKERS": "1",
        "MESHQ_GATEWAY_ACCESS_LOG": str(tmp_path_factory.mktemp("gateway") / "access.log"),
        "MESHQ_GATEWAY_ORIGINS": "https://page.example,https://other.example",
    }
    own = {
        "MESHQ_GATEWAY_LISTEN": f"127.0.0.1:{edge_port}",
        "MESHQ_CONSOLE_LISTEN": f"127.0.0.1:{console_port}",
    }
    etcd = EtcdClient((etcd_server.endpoint,))
    for entry in (await etcd.get_prefix("meshq.")).entries:
        await etcd.delete(entry.key)
    servicer = Tasks()  # type: ignore[abstract]
    service = ServedService(
        TASKS, lambda server: task_service_pb2_grpc.add_TaskServiceServicer_to_server(servicer, server)
    )
    server, port = await start_server([service])
    registration = Registration(
        etcd, Announcement("meshq.management", "in-test", f"127.0.0.1:{port}", {"services": [TASKS]}), 30
    )
    await registration.start()
    with (
        process("meshq.registry", {**common, "MESHQ_LISTEN": f"127.0.0.1:{registry}"}),
        process("meshq.gateway", {**common, **own}) as gateway,
    ):
        async with aiohttp.ClientSession() as http, open_channel(f"127.0.0.1:{edge_port}") as channel:
            tasks: Any = task_service_pb2_grpc.TaskServiceStub(channel)
            edge, console = f"127.0.0.1:{edge_port}", f"127.0.0.1:{console_port}"
            await until(lambda: answers(http, f"http://{edge}/v1/tasks"))
            await until(lambda: answers(http, f"http://{edge}/healthz", 503))
            yield Stand(common, gateway, edge, console, http, channel, tasks, servicer)
    await registration.stop()
    await server.stop(None)
    await etcd.close()


def reason(body: Mapping[str, Any]) -> str:
    """The reason in a JSON error."""
    assert set(body) == {"code", "message", "details"}
    info = body["details"][0]
    assert (info["@type"], info["domain"]) == ("type.googleapis.com/google.rpc.ErrorInfo", "meshq")
    return str(info["reason"])


async def test_curl_with_its_default_content_type(stand: Stand) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    text = '{"type":"word_count","payload":"word1 word2 word3"}'
    status, task = await stand.rest("POST", "/v1/tasks", data=text, headers=form)
    assert status == 200
    assert (task["task_id"], task["state"], task["payload"]) == (
        ID,
        "TASK_STATE_PENDING",
        "word1 word2 word3",
    )


async def test_json_in_and_out(stand: Stand) -> None:
    payload = {"words": ["a", 1, 2.5, None, True], "nested": {"x": {}}}
    status, task = await stand.rest("POST", "/v1/tasks", json={"type": "t", "payload": payload})
    assert (status, task["payload"]) == (200, payload)
    assert task["headers"]["request_id"] == ""
    # Zeros and empty lists are shown.
    assert (task["attempt"], task["worker_id"]) == (0, "")


async def test_bytes_are_base64(stand: Stand) -> None:
    data = base64.b64encode(b"\x00\xff").decode()
    status, task = await stand.rest("POST", "/v1/tasks", json={"type": "t", "data": data})
    assert (status, task["data"]) == (200, data)


async def test_query_parameters_are_fields(stand: Stand) -> None:
    _, task = await stand.rest("POST", "/v1/tasks?request_id=r-1", json={"type": "t"})
    assert task["headers"]["request_id"] == "r-1"
    query = "page_size=7&type=x&states=TASK_STATE_PENDING&states=TASK_STATE_FAILED"
    query += "&min_create_time=2026-01-02T03:04:05Z"
    _, page = await stand.rest("GET", f"/v1/tasks?{query}")
    assert page["tasks"][0]["headers"] == {"page_size": "7", "states": "3,8", "since": "2026-01-02T03:04:05Z"}
    assert page["next_page_token"] == ""
    _, task = await stand.rest("GET", f"/v1/tasks/{ID}?view=TASK_VIEW_FULL")
    assert (task["task_id"], task["result"]) == (ID, 1.5)


async def test_a_custom_verb(stand: Stand) -> None:
    status, task = await stand.rest("POST", "/v1/tasks:run?wait_timeout=0.2s", json={"type": "t"})
    assert (status, task["state"]) == (200, "TASK_STATE_SUCCEEDED")


async def test_a_body_may_be_left_out(stand: Stand) -> None:
    status, task = await stand.rest("POST", f"/v1/tasks/{ID}:cancel")
    assert (status, task["task_id"], task["cancel_reason"]) == (200, ID, "")


async def test_numbers_of_a_payload_are_doubles(stand: Stand) -> None:
    text = '{"type": "t", "payload": [9007199254740993, 0.1, null]}'
    _, task = await stand.rest("POST", "/v1/tasks", data=text)
    assert task["payload"] == [9007199254740992, 0.1, None]


async def test_names_may_be_those_of_javascript(stand: Stand) -> None:
    _, task = await stand.rest("POST", "/v1/tasks", json={"type": "t", "maxAttempts": 7})
    assert task["max_attempts"] == 7


async def test_unknown_body_fields_are_dropped(stand: Stand) -> None:
    status, task = await stand.rest("POST", "/v1/tasks", json={"type": "t", "nonsense": 1})
    assert (status, task["type"]) == (200, "t")


async def test_a_stream_is_a_line_of_json_for_each_event_as_it_happens(stand: Stand) -> None:
    arrivals, lines = [], []
    async with stand.http.get(f"http://{stand.edge}/v1/tasks/{ID}:watch") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        async for line in answer.content:
            arrivals.append(time.monotonic())
            lines.append(json.loads(line))
    assert [next(iter(line)) for line in lines] == ["progress", "progress", "output", "task"]
    assert lines[0]["progress"]["message"] == "ö"
    assert lines[2]["output"] == {"attempt": 1, "offset": str(1 << 40), "stream": "", "chunk": "AP8="}
    assert lines[3]["task"]["state"] == "TASK_STATE_SUCCEEDED"
    assert arrivals[1] - arrivals[0] > 0.2


async def test_a_stream_that_fails_at_once_is_an_error(stand: Stand) -> None:
    status, body = await stand.rest("GET", "/v1/tasks/none:watch")
    assert (status, reason(body)) == (404, "TASK_NOT_FOUND")


async def test_errors_have_their_details(stand: Stand) -> None:
    status, body = await stand.rest("POST", "/v1/tasks", json={})
    assert (status, body["code"], reason(body)) == (400, 3, "INVALID_FIELD")
    violation = body["details"][1]["field_violations"][0]
    assert (violation["field"], violation["description"]) == ("task.type", "must be set")
    status, body = await stand.rest("GET", "/v1/tasks/none")
    assert (status, body["code"], reason(body)) == (404, 5, "TASK_NOT_FOUND")
    assert body["details"][0]["metadata"] == {"task_id": "none"}


@pytest.mark.parametrize(
    "text", ["{bad", "[]x", '{"type": 5}', '{"max_attempts": "many", "type": "t"}', "word"]
)
async def test_what_is_no_json_of_the_method_is_refused(stand: Stand, text: str) -> None:
    status, body = await stand.rest("POST", "/v1/tasks", data=text)
    assert (status, body["code"], reason(body)) == (400, 3, "INVALID_FIELD")
    assert [violation["field"] for violation in body["details"][1]["field_violations"]] == ["body"]
    assert body["message"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/tasks:batchCreate", (429, 8, "BACKLOG_FULL")),
        ("POST", "/v1/tasks:batchGet", (500, 13, "INTERNAL")),
        ("DELETE", f"/v1/tasks/{ID}", (400, 9, "TASK_NOT_ENDED")),
    ],
)
async def test_codes_become_statuses(
    stand: Stand, method: str, path: str, expected: tuple[int, int, str]
) -> None:
    status, body = await stand.rest(method, path, json={} if method == "POST" else None)
    assert (status, body["code"], reason(body)) == expected
    assert ("2.500s" in str(body)) == (expected[0] == 429)


async def test_path_and_body_make_one_request(stand: Stand) -> None:
    status, task = await stand.rest("POST", f"/v1/tasks/{ID}:cancel", json={"reason": "enough"})
    assert (status, task["task_id"], task["cancel_reason"]) == (200, ID, "enough")


async def test_unknown_query_parameters_are_refused(stand: Stand) -> None:
    status, body = await stand.rest("POST", "/v1/tasks?nonsense=1", json={"type": "t"})
    assert (status, reason(body)) == (400, "INVALID_FIELD")
    violation = body["details"][1]["field_violations"][0]
    assert violation["field"] == "query"
    assert "nonsense" in violation["description"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/nothing"), ("PATCH", "/v1/tasks"), ("GET", "/v2/tasks"), ("DELETE", "/x")],
)
async def test_unknown_paths(stand: Stand, method: str, path: str) -> None:
    status, body = await stand.rest(method, path)
    assert (status, body["code"], reason(body)) == (404, 12, "METHOD_UNKNOWN")


async def test_a_service_that_nobody_serves_now(stand: Stand) -> None:
    status, body = await stand.rest("GET", "/v1/workers")
    assert (status, body["code"], reason(body)) == (503, 14, "COMPONENT_UNAVAILABLE")
    assert body["details"][1]["retry_delay"] == "1s"
    stub: Any = worker_service_pb2_grpc.WorkerServiceStub(stand.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListWorkers(worker_service_pb2.ListWorkersRequest(), timeout=5)
    error = from_rpc_error(caught.value)
    assert isinstance(error, Unavailable)
    assert (error.reason, error.retry_delay) == (Reason.COMPONENT_UNAVAILABLE, 1.0)


async def test_a_body_that_is_too_large(stand: Stand) -> None:
    status, answer = await stand.rest("POST", "/v1/tasks", data=_task_of_size(MAX_MESSAGE_BYTES))
    assert (status, answer["code"], reason(answer)) == (413, 3, "INVALID_FIELD")


async def test_a_large_body_passes(stand: Stand) -> None:
    status, task = await stand.rest("POST", "/v1/tasks", data=_task_of_size(8 << 20))
    assert (status, len(task["payload"])) == (200, 8 << 20)


def _task_of_size(size: int) -> io.BytesIO:
    return io.BytesIO(json.dumps({"type": "t", "payload": "x" * size}).encode())


async def test_deadlines_hold_for_rest_and_grpc(stand: Stand) -> None:
    status, body = await stand.rest("GET", "/v1/tasks/slow", headers={"grpc-timeout": "300m"})
    # Envoy and the server both watch the deadline; the server's gRPC gives no details.
    assert (status, body["code"]) == (504, 4)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stand.tasks.GetTask(task_service_pb2.GetTaskRequest(task_id="slow"), timeout=0.3)
    assert isinstance(from_rpc_error(caught.value), DeadlineExceeded)


async def test_a_request_id_is_made_here_and_only_then_marked(stand: Stand) -> None:
    _, first = await stand.rest("POST", "/v1/tasks", json={"type": "t"})
    _, second = await stand.rest("POST", "/v1/tasks", json={"type": "t"})
    ids = {first["headers"]["x-request-id"], second["headers"]["x-request-id"]}
    assert len(ids) == 2
    assert first["headers"]["edge"] == "True"
    headers = {"x-request-id": "mine", "x-meshq-edge": "1"}
    _, third = await stand.rest("POST", "/v1/tasks", json={"type": "t"}, headers=headers)
    assert third["headers"]["x-request-id"] == "mine"
    assert (third["headers"]["edge"], third["headers"]["x-meshq-edge"]) == ("False", "")


async def test_the_request_id_comes_back(stand: Stand) -> None:
    url = f"http://{stand.edge}/v1/nothing"
    async with stand.http.get(url, headers={"x-request-id": "mine"}) as answer:
        assert answer.headers["x-request-id"] == "mine"


async def test_grpc_passes_through(stand: Stand) -> None:
    request = task_service_pb2.CreateTaskRequest(
        task=task_pb2.Task(type="t", data=b"\0" * (1 << 20)), request_id="r"
    )
    task = await stand.tasks.CreateTask(request, metadata=(("under_score", "x"),))
    assert (task.task_id, len(task.data), task.headers["request_id"]) == (ID, 1 << 20, "r")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stand.tasks.CreateTask(task_service_pb2.CreateTaskRequest())
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidRequest)
    assert [item.field for item in error.violations] == ["task.type"]


async def test_streams_pass_both_ways_frame_by_frame(stand: Stand) -> None:
    call = stand.tasks.IngestTasks()
    for number in range(3):
        await call.write(task_service_pb2.IngestTasksRequest(tasks=[task_pb2.Task(type=f"t{number}")]))
        async with asyncio.timeout(5):
            answer = await call.read()
        assert (answer.frame, answer.results[0].task_id) == (number, f"t{number}")
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF


async def test_a_method_that_does_not_exist(stand: Stand) -> None:
    for path in (
        "/meshq.v1.Nothing/Get",
        "/meshq.internal.v1.LedgerService/ReportAttempts",
        f"/{TASKS}/Nothing",
    ):
        call: Any = stand.channel.unary_unary(path)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"")
        error = from_rpc_error(caught.value)
        assert isinstance(error, Unimplemented), path
        assert error.reason is Reason.METHOD_UNKNOWN


async def test_reflection_and_health_answer_for_the_whole(stand: Stand) -> None:
    channel: Any = stand.channel
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async for answer in stub.ServerReflectionInfo(iter([request])):
        names = {service.name for service in answer.list_services_response.service}
        assert set(public_services()) <= names
        assert not any("internal" in name for name in names)
    v1: Any = stand.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    symbol = reflection_pb2.ServerReflectionRequest(file_containing_symbol=TASKS)
    async for answer in v1(iter([symbol])):
        assert answer.file_descriptor_response.file_descriptor_proto
    health: Any = health_pb2_grpc.HealthStub(stand.channel)
    state = await health.Check(health_pb2.HealthCheckRequest())
    assert state.status == health_pb2.HealthCheckResponse.SERVING


def frames(body: bytes) -> list[tuple[int, bytes]]:
    """The flags and contents of the frames of a gRPC-Web body."""
    found = []
    while body:
        flags, length = struct.unpack(">BI", body[:5])
        found.append((flags, body[5 : 5 + length]))
        body = body[5 + length :]
    return found


async def web_call(stand: Stand, method: str, message: bytes, *, text: bool = False) -> tuple[Any, bytes]:
    kind = "application/grpc-web-text" if text else "application/grpc-web+proto"
    body = struct.pack(">BI", 0, len(message)) + message
    headers = {"Content-Type": kind, "Accept": kind, "X-Grpc-Web": "1", "Origin": "https://page.example"}
    data = base64.b64encode(body) if text else body
    async with stand.http.post(f"http://{stand.edge}/{method}", data=data, headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        content = await answer.read()
        # As text each frame is encoded for itself, with its own padding.
        pieces = re.findall(rb"[^=]+=*", content)
        return answer.headers, b"".join(map(base64.b64decode, pieces)) if text else content


@pytest.mark.parametrize("text", [False, True])
async def test_grpc_web(stand: Stand, text: bool) -> None:
    request = task_service_pb2.CreateTaskRequest(task=task_pb2.Task(type="t")).SerializeToString()
    _, body = await web_call(stand, f"{TASKS}/CreateTask", request, text=text)
    (first, message), (last, trailers) = frames(body)
    assert (first, last) == (0, 0x80)
    assert task_pb2.Task.FromString(message).task_id == ID
    assert b"grpc-status:0" in trailers


async def test_grpc_web_streams(stand: Stand) -> None:
    request = task_service_pb2.WatchTaskRequest(task_id=ID).SerializeToString()
    _, body = await web_call(stand, f"{TASKS}/WatchTask", request)
    *events, (last, _) = frames(body)
    assert (len(events), last) == (4, 0x80)


async def test_grpc_web_errors_have_their_details(stand: Stand) -> None:
    headers, body = await web_call(stand, f"{TASKS}/CreateTask", b"")
    assert (headers["grpc-status"], body) == ("3", b"")
    encoded = headers["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(encoded + "=="))
    assert isinstance(from_status(status), InvalidRequest)
    # So does what Envoy refuses itself.
    headers, body = await web_call(stand, "meshq.v1.WorkerService/ListWorkers", b"")
    assert (headers["grpc-status"], headers["content-type"], body) == (
        "14",
        "application/grpc-web+proto",
        b"",
    )
    encoded = headers["grpc-status-details-bin"]
    error = from_status(status_pb2.Status.FromString(base64.b64decode(encoded + "==")))
    assert error.reason is Reason.COMPONENT_UNAVAILABLE


@pytest.mark.parametrize("path", [f"/{TASKS}/CreateTask", "/v1/tasks"])
async def test_preflight(stand: Stand, path: str) -> None:
    headers = {
        "Origin": "https://page.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-grpc-web,grpc-timeout",
    }
    async with stand.http.options(f"http://{stand.edge}{path}", headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        assert "POST" in answer.headers["access-control-allow-methods"]
        allowed = answer.headers["access-control-allow-headers"].replace(" ", "").lower().split(",")
        assert {"content-type", "x-grpc-web", "grpc-timeout", "x-user-agent"} <= set(allowed)


async def test_pages_may_read_answers_and_refusals(stand: Stand) -> None:
    for path in ("/v1/tasks", "/v1/tasks/none", "/v1/nothing", "/v1/tasks?nonsense=1"):
        url = f"http://{stand.edge}{path}"
        async with stand.http.get(url, headers={"Origin": "https://other.example"}) as answer:
            assert answer.headers["access-control-allow-origin"] == "https://other.example", path
            exposed = answer.headers["access-control-expose-headers"].replace(" ", "").split(",")
            assert {"grpc-status", "grpc-message", "grpc-status-details-bin"} <= set(exposed)


async def test_other_origins_may_not(stand: Stand) -> None:
    url = f"http://{stand.edge}/v1/tasks"
    async with stand.http.get(url, headers={"Origin": "https://evil.example"}) as answer:
        assert "access-control-allow-origin" not in answer.headers


async def test_the_access_log_has_a_line_for_each_call(stand: Stand) -> None:
    path = Path(stand.environment["MESHQ_GATEWAY_ACCESS_LOG"])
    await stand.rest("GET", "/v1/tasks/none", headers={"x-request-id": "logged"})

    async def logged() -> bool:
        text = await asyncio.to_thread(path.read_text)
        lines = [json.loads(line) for line in text.splitlines() if '"logged"' in line]
        return any(
            line["url.path"] == "/v1/tasks/none"
            and line["rpc.method"] == f"/{TASKS}/GetTask"
            and line["http.response.status_code"] == 404
            for line in lines
        )

    await until(logged)


async def test_the_console_is_at_the_edge_and_for_itself(stand: Stand) -> None:
    for host in (stand.edge, stand.console):
        async with stand.http.get(f"http://{host}/") as page:
            text = await page.text()
            assert (page.status, page.content_type) == (200, "text/html")
            assert stand.edge in text
            assert "The workers are not available." in text
        async with stand.http.get(f"http://{host}/console/console.css") as style:
            assert (style.status, style.content_type) == (200, "text/css")
        async with stand.http.get(f"http://{host}/favicon.ico") as icon:
            assert icon.status == 204
    async with stand.http.get(f"http://{stand.console}/nothing") as missing:
        assert missing.status == 404


async def test_health_names_what_is_missing(stand: Stand) -> None:
    async with stand.http.get(f"http://{stand.console}/healthz") as answer:
        body = await answer.json()
    assert (answer.status, body["status"]) == (503, "unavailable")
    instances = {name: facts["instances"] for name, facts in body["components"].items()}
    assert instances["meshq.management"] == 1
    assert instances["meshq.execution"] == 0
    assert (body["edge"]["live"], body["edge"]["routes"]) == (True, True)


async def test_metrics_of_all(stand: Stand) -> None:
    async with stand.http.get(f"http://{stand.console}/metrics") as answer:
        text = await answer.text()
    assert "meshq_gateway_envoy_up{" in text
    assert "envoy_http_downstream_rq_total{" in text
    reached = [line for line in text.splitlines() if line.startswith("meshq_instance_reached{")]
    assert any('component="meshq.registry"' in line and line.endswith(" 1") for line in reached)


async def test_an_envoy_that_dies_is_replaced_on_the_same_port(stand: Stand) -> None:
    (envoy,) = envoys_of(stand.gateway)
    envoy.kill()

    async def replaced() -> bool:
        return [child.pid for child in envoys_of(stand.gateway)] not in ([], [envoy.pid])

    await until(replaced)
    await until(lambda: answers(stand.http, f"http://{stand.edge}/v1/tasks"))
    task = await stand.tasks.CreateTask(
        task_service_pb2.CreateTaskRequest(task=task_pb2.Task(type="t")), wait_for_ready=True, timeout=10
    )
    assert task.task_id == ID


@contextlib.asynccontextmanager
async def second_gateway(
    stand: Stand, scheme: str = "http", **settings: str
) -> AsyncIterator[tuple[subprocess.Popen[bytes], str]]:
    """One more gateway, and where its edge is."""
    (port,) = free_ports(1)
    listen = f"127.0.0.1:{port}"
    environment = {**stand.environment, "MESHQ_GATEWAY_LISTEN": listen, **settings}
    with process("meshq.gateway", environment) as gateway:
        await until(lambda: answers(stand.http, f"{scheme}://{listen}/v1/tasks"))
        yield gateway, listen


async def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_a_stop_lets_calls_end_and_leaves_no_envoy(stand: Stand) -> None:
    async with second_gateway(stand) as (gateway, listen):
        (envoy,) = envoys_of(gateway)
        stand.servicer.running.clear()
        url = f"http://{listen}/v1/tasks:run?wait_timeout=1.5s"
        running = asyncio.create_task(stand.http.post(url, json={"type": "t"}).__aenter__())
        async with asyncio.timeout(SECONDS):
            await stand.servicer.running.wait()
        gateway.send_signal(signal.SIGTERM)
        answer = await running
        assert answer.status == 200
        answer.close()
        assert await asyncio.to_thread(gateway.wait, 15) == 0
        await until(lambda: gone(envoy.pid), 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
async def test_envoy_does_not_outlive_a_gateway_that_was_killed(stand: Stand) -> None:
    async with second_gateway(stand) as (gateway, _):
        (envoy,) = envoys_of(gateway)
        gateway.kill()
        gateway.wait()
        await until(lambda: gone(envoy.pid), 5)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
async def test_tls(stand: Stand, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-days", "1", "-subj", "/CN=edge.example", "-addext", "subjectAltName=DNS:edge.example"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    files = {"MESHQ_GATEWAY_TLS_CERTIFICATE": str(certificate), "MESHQ_GATEWAY_TLS_KEY": str(key)}
    async with second_gateway(stand, "https", **files) as (_, listen):
        assert not await answers(stand.http, f"http://{listen}/v1/tasks")
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        options = (("grpc.ssl_target_name_override", "edge.example"),)
        async with grpc.aio.secure_channel(listen, credentials, options=options) as channel:
            tasks: Any = task_service_pb2_grpc.TaskServiceStub(channel)
            assert (await tasks.GetTask(task_service_pb2.GetTaskRequest(task_id=ID))).task_id == ID


async def test_a_port_that_is_taken_is_said_in_one_sentence(stand: Stand) -> None:
    environment = {**os.environ, **stand.environment, "MESHQ_GATEWAY_LISTEN": stand.edge}
    command = [sys.executable, "-m", "meshq.gateway"]
    ended = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "Address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert await answers(stand.http, f"http://{stand.edge}/v1/tasks")


async def test_a_component_that_comes_later_is_served_without_a_restart(
    stand: Stand, etcd_server: Etcd
) -> None:
    class Ring(ring_service_pb2_grpc.RingServiceServicer):
        async def ListShards(self, _request: Any, _context: Any) -> Any:
            shard = ring_service_pb2.Shard(shard="shard-1", used_memory_bytes=1 << 40)
            return ring_service_pb2.ListShardsResponse(shards=[shard])

    name = "meshq.v1.RingService"
    service = ServedService(
        name, lambda server: ring_service_pb2_grpc.add_RingServiceServicer_to_server(Ring(), server)
    )
    server, port = await start_server([service])
    etcd = EtcdClient((etcd_server.endpoint,))
    announcement = Announcement("meshq.execution", "late", f"127.0.0.1:{port}", {"services": [name]})
    registration = Registration(etcd, announcement, 30)
    await registration.start()
    try:
        await until(lambda: answers(stand.http, f"http://{stand.edge}/v1/shards"))
        _, body = await stand.rest("GET", "/v1/shards")
        # Numbers of 64 bits are text, and zeros are there.
        assert body["ring_version"] == "0"
        assert body["shards"][0]["used_memory_bytes"] == str(1 << 40)
        await until(lambda: answers(stand.http, f"http://{stand.console}/healthz"))
        async with stand.http.get(f"http://{stand.console}/console/status") as page:
            assert "shard-1" in await page.text()
    finally:
        await registration.stop()
        await server.stop(None)
        await etcd.close()
