"""What the kit's server does around every call, seen by a real client."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import structlog.testing
from fixtures.failures import failure
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from meshq.contract.errors import InternalError, InvalidRequest, NotFound, Unimplemented
from meshq.mesh.channels import MeshChannel, open_channel
from meshq.mesh.context import edge, request_id
from meshq.mesh.server import ServedService, start_server
from meshq.v1 import registry_service_pb2 as pb
from meshq.v1 import registry_service_pb2_grpc as pb_grpc

SERVICE = "meshq.v1.RegistryService"
Context = grpc.aio.ServicerContext[Any, Any]


class Servicer(pb_grpc.RegistryServiceServicer):
    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.entered = asyncio.Event()

    async def ListServices(  # noqa: N802
        self, request: pb.ListServicesRequest, context: Context
    ) -> pb.ListServicesResponse:
        return pb.ListServicesResponse(services=[pb.Service(service=request_id(), component=str(edge()))])

    async def ListInstances(  # noqa: N802
        self, request: pb.ListInstancesRequest, context: Context
    ) -> pb.ListInstancesResponse:
        if request.component == "many":
            raise InvalidRequest([*InvalidRequest.field("f" * 50, "r" * 200).violations] * 1000)
        if request.component.startswith("missing"):
            raise NotFound("no such thing", task_id="t-1")
        if request.component == "forward":
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "by hand")
        if request.component == "wait":
            self.entered.set()
            await asyncio.sleep(60)
        raise ZeroDivisionError("secret")

    async def WatchInstances(  # noqa: N802
        self, request: pb.WatchInstancesRequest, context: Context
    ) -> AsyncIterator[pb.WatchInstancesResponse]:
        try:
            yield pb.WatchInstancesResponse(sequence=1)
            if request.component:
                raise NotFound("no such component")
            await asyncio.sleep(60)
        finally:
            self.closed.set()


@pytest.fixture
async def servicer() -> Servicer:
    return Servicer()


@pytest.fixture
async def channel(servicer: Servicer) -> AsyncIterator[MeshChannel]:
    served = ServedService(SERVICE, lambda s: pb_grpc.add_RegistryServiceServicer_to_server(servicer, s))
    server, port = await start_server([served])
    async with open_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(None)


@pytest.fixture
def stub(channel: MeshChannel) -> pb_grpc.RegistryServiceStub:
    return pb_grpc.RegistryServiceStub(channel)


async def test_errors_arrive_with_their_details(stub: Any) -> None:
    error = await failure(stub.ListInstances(pb.ListInstancesRequest(component="missing")))
    assert isinstance(error, NotFound)
    assert error.metadata == {"task_id": "t-1"}


async def test_many_violations_fit_into_trailers_of_any_client(channel: MeshChannel, stub: Any) -> None:
    error = await failure(stub.ListInstances(pb.ListInstancesRequest(component="many")))
    assert isinstance(error, InvalidRequest)
    assert 1 < len(error.violations) <= 16


async def test_an_unforeseen_error_is_logged_once_and_not_shown(stub: Any) -> None:
    with structlog.testing.capture_logs() as logs:
        call = stub.ListInstances(pb.ListInstancesRequest(), metadata=(("x-request-id", "req-1"),))
        error = await failure(call)
    assert isinstance(error, InternalError)
    assert "req-1" in error.message
    assert "secret" not in error.message
    (entry,) = [item for item in logs if item["log_level"] == "error"]
    assert isinstance(entry["exc_info"], ZeroDivisionError)


async def test_what_a_servicer_aborts_itself_stays(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="by hand") as caught:
        await stub.ListInstances(pb.ListInstancesRequest(component="forward"))
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_request_id_is_taken_or_made(channel: MeshChannel, stub: Any) -> None:
    async def told(*metadata: tuple[str, str]) -> tuple[str, str]:
        response = await stub.ListServices(pb.ListServicesRequest(), metadata=metadata)
        return response.services[0].service, response.services[0].component

    assert await told(("x-request-id", "req-1")) == ("req-1", "False")
    assert await told(("x-meshq-edge", "1"), ("x-request-id", "req-2")) == ("req-2", "True")
    made, _ = await told()
    assert made
    replaced, _ = await told(("x-request-id", "not an id"))
    assert replaced != "not an id"


async def test_unknown_methods_and_messages_are_refused_quietly(
    channel: MeshChannel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert isinstance(await failure(channel.unary_unary("/meshq.v1.Nobody/Do")(b"")), Unimplemented)
        assert isinstance(await failure(channel.unary_unary(f"/{SERVICE}/Nothing")(b"")), Unimplemented)
        garbage = channel.unary_unary(f"/{SERVICE}/ListInstances")(b"\xff\xff\xff")
        assert isinstance(await failure(garbage), InvalidRequest)
        stream = channel.unary_stream(f"/{SERVICE}/WatchInstances")(b"\xff\xff\xff")
        assert isinstance(await failure(stream.read()), InvalidRequest)
    assert caplog.records == []


async def test_an_error_in_a_stream_comes_after_its_messages(stub: Any) -> None:
    call = stub.WatchInstances(pb.WatchInstancesRequest(component="x"))
    assert (await call.read()).sequence == 1
    assert isinstance(await failure(call.read()), NotFound)


async def test_a_caller_that_goes_away_is_no_error(
    servicer: Servicer, stub: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), structlog.testing.capture_logs() as logs:
        call = stub.WatchInstances(pb.WatchInstancesRequest())
        await call.read()
        call.cancel()
        async with asyncio.timeout(20):
            await servicer.closed.wait()
        waiting = stub.ListInstances(pb.ListInstancesRequest(component="wait"), timeout=0.2)
        assert (await failure(waiting)).code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert caplog.records == []
    assert [item for item in logs if item["log_level"] != "info"] == []


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_and_describes(channel: MeshChannel, version: str) -> None:
    reflect = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services="*"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        reflection_pb2.ServerReflectionRequest(
            file_containing_symbol=f"grpc.reflection.{version}.ServerReflection"
        ),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.such.Symbol"),
    ]
    listed, described, itself, missing = [answer async for answer in reflect(iter(requests))]
    names = {item.name for item in listed.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= names
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(raw)
        for raw in described.file_descriptor_response.file_descriptor_proto
    ]
    assert "meshq/v1/registry_service.proto" in [file.name for file in files]
    packages = [
        descriptor_pb2.FileDescriptorProto.FromString(raw).package
        for raw in itself.file_descriptor_response.file_descriptor_proto
    ]
    assert packages == [f"grpc.reflection.{version}"]
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_health_is_told_per_service(channel: MeshChannel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE, "grpc.health.v1.Health"):
        response = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    assert (
        await failure(stub.Check(health_pb2.HealthCheckRequest(service="nobody")))
    ).code is grpc.StatusCode.NOT_FOUND


async def test_unary_calls_have_a_deadline(
    servicer: Servicer, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshq.mesh.channels.DEFAULT_CALL_SECONDS", 0.2)
    async with asyncio.timeout(20):
        error = await failure(stub.ListInstances(pb.ListInstancesRequest(component="wait")))
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_large_messages_pass(stub: Any) -> None:
    request = pb.ListInstancesRequest(component="missing" + "x" * (20 * 1024 * 1024))
    assert isinstance(await failure(stub.ListInstances(request)), NotFound)
