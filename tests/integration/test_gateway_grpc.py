"""gRPC and gRPC-Web at the edge, and what pages of other origins may do, through a real Envoy."""

from __future__ import annotations

import asyncio
import base64
import re
import struct
from typing import Any

import grpc
import pytest
from fixtures.edge import ID, TASKS, Stand, stand
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from meshq.contract.errors import (
    InvalidRequest,
    Reason,
    Unimplemented,
)
from meshq.contract.status import from_rpc_error, from_status
from meshq.mesh.contract_methods import public_services
from meshq.v1 import (
    task_pb2,
    task_service_pb2,
)

__all__ = ["stand"]

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
        async with asyncio.timeout(20):
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
