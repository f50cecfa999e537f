"""The whole life of a process: start, what operators see, and the order of a stop."""

import signal
import time
import urllib.error
import urllib.request
from typing import Any

import grpc
import pytest
from fixtures.mesh import COMPONENT, Mesh, mesh, wait_until
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshq.local.ports import free_port
from meshq.v1 import task_service_pb2, task_service_pb2_grpc

__all__ = ["mesh"]


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def get_task(channel: grpc.Channel, **options: Any) -> str:
    stub: Any = task_service_pb2_grpc.TaskServiceStub(channel)
    return str(stub.GetTask(task_service_pb2.GetTaskRequest(), **options).task_id)


def test_a_process_serves_without_etcd_and_without_registry() -> None:
    lonely = Mesh(f"127.0.0.1:{free_port()}")
    try:
        process = lonely.component("a")
        address = process.wait_logged("serving")["address"]
        with grpc.insecure_channel(address) as channel:
            assert get_task(channel, timeout=5) == "a"
        process.wait_logged("cannot register; trying on")
        assert process.stop() == 0
        assert process.problems == []
    finally:
        lonely.end()


def test_admin_shows_metrics_health_and_channelz(mesh: Mesh) -> None:
    process = mesh.component("a")
    entry = process.wait_logged("serving")
    with grpc.insecure_channel(entry["address"]) as channel:
        get_task(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        status = health.Check(health_pb2.HealthCheckRequest(service="meshq.v1.TaskService")).status
        assert status == health_pb2.HealthCheckResponse.SERVING
    assert get(entry["admin"], "/healthz") == (200, "serving\n")
    # Longer than the answer before: each has a length of its own.
    assert get(entry["admin"], "/elsewhere") == (404, "there is /metrics and /healthz\n")
    code, metrics = get(entry["admin"], "/metrics")
    assert code == 200
    handled = [line for line in metrics.splitlines() if line.startswith("grpc_server_handled_total{")]
    assert any('grpc_method="GetTask"' in line and line.endswith(" 1.0") for line in handled)
    with grpc.insecure_channel(entry["channelz"]) as channel:
        channelz: Any = channelz_pb2_grpc.ChannelzStub(channel)
        servers = channelz.GetServers(channelz_pb2.GetServersRequest(start_server_id=0)).server
    assert sum(server.data.calls_started for server in servers) >= 2


def test_a_stop_is_told_before_it_happens(mesh: Mesh) -> None:
    process = mesh.component("a", MESHQ_DRAIN_DELAY="1")
    entry = process.wait_logged("serving")
    process.wait_logged("registered")
    with grpc.insecure_channel(entry["address"]) as channel:
        stub: Any = task_service_pb2_grpc.TaskServiceStub(channel)
        watch = stub.WatchTask(task_service_pb2.WatchTaskRequest())
        next(watch)
        process.signal(signal.SIGTERM)
        wait_until(lambda: get(entry["admin"], "/healthz")[0] == 503)
        # It is on its way out, and still answers whoever has not heard of it yet.
        assert get_task(channel, timeout=5) == "a"
        health: Any = health_pb2_grpc.HealthStub(channel)
        wait_until(
            lambda: (
                health.Check(health_pb2.HealthCheckRequest()).status
                == health_pb2.HealthCheckResponse.NOT_SERVING
            )
        )
        # The stream is asked to end, and ends in order.
        assert list(watch) == []
    assert process.wait() == 0
    assert process.problems == []


def test_calls_under_way_are_finished(mesh: Mesh) -> None:
    process = mesh.component("a", TEST_FAULT="slow", MESHQ_DRAIN_DELAY="0")
    with grpc.insecure_channel(process.wait_logged("serving")["address"]) as channel:
        stub: Any = task_service_pb2_grpc.TaskServiceStub(channel)
        call = stub.GetTask.future(task_service_pb2.GetTaskRequest())
        wait_until(lambda: get(process.wait_logged("serving")["admin"], "/metrics")[1].count("GetTask"))
        process.signal(signal.SIGINT)
        assert call.result(timeout=5).task_id == "a"
    assert process.wait() == 0


def test_who_hears_late_of_a_stop_is_answered(mesh: Mesh) -> None:
    process = mesh.component("a", MESHQ_DRAIN_DELAY="0")
    with grpc.insecure_channel(process.wait_logged("serving")["address"]) as channel:
        stub: Any = task_service_pb2_grpc.TaskServiceStub(channel)
        get_task(channel, timeout=5)
        process.signal(signal.SIGTERM)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            calls = [stub.GetTask.future(task_service_pb2.GetTaskRequest(), timeout=30) for _ in range(100)]
            assert {call.result().task_id for call in calls} == {"a"}
    assert process.wait() == 0


def test_callers_that_vanish_leave_no_trace_in_the_log(mesh: Mesh) -> None:
    process = mesh.component("a", TEST_FAULT="slow")
    address = process.wait_logged("serving")["address"]
    for _ in range(3):
        channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        stub: Any = task_service_pb2_grpc.TaskServiceStub(channel)
        calls = [stub.GetTask.future(task_service_pb2.GetTaskRequest(), timeout=0.3) for _ in range(20)]
        watches = [stub.WatchTask(task_service_pb2.WatchTaskRequest()) for _ in range(20)]
        assert all(next(watch) is not None for watch in watches)
        calls[0].exception()
        for watch in watches[:10]:
            watch.cancel()
        # The others end in the middle, with their connection.
        channel.close()
    assert process.stop() == 0
    assert process.problems == []


def test_a_watch_of_health_does_not_delay_a_stop(mesh: Mesh) -> None:
    process = mesh.component("a")
    with grpc.insecure_channel(process.wait_logged("serving")["address"]) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        begun = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - begun < 5
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_second_signal_hastens(mesh: Mesh) -> None:
    process = mesh.component("a", TEST_FAULT="slow", MESHQ_DRAIN_DELAY="60")
    begun = time.monotonic()
    process.signal(signal.SIGTERM)
    process.wait_logged("stopping")
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert time.monotonic() - begun < 10


def test_a_signal_during_the_start_stops(mesh: Mesh) -> None:
    process = mesh.start(COMPONENT, MESHQ_ETCD_ENDPOINTS="127.0.0.1:1")
    wait_until(lambda: process.logs)
    assert process.stop() == 0


def test_a_start_that_is_interrupted_is_drained(mesh: Mesh) -> None:
    process = mesh.start(COMPONENT, TEST_FAULT="endless")
    process.wait_logged("begins to start")
    assert process.stop() == 0
    assert process.logged("drained")


@pytest.mark.parametrize(
    ("environment", "code", "said"),
    [
        ({"MESHQ_LISTEN": "nowhere"}, 2, "MESHQ_LISTEN: must be host:port"),
        ({"TEST_FAULT": "startup"}, 1, "the database is away"),
    ],
)
def test_a_failed_start_says_why(mesh: Mesh, environment: dict[str, str], code: int, said: str) -> None:
    process = mesh.start(COMPONENT, **environment)
    assert process.wait() == code
    assert said in str(process.problems)
    assert "Traceback" not in str(process.problems)


@pytest.mark.parametrize("setting", ["MESHQ_LISTEN", "MESHQ_ADMIN_LISTEN"])
def test_a_taken_port_is_named(mesh: Mesh, setting: str) -> None:
    entry = mesh.component("a").wait_logged("serving")
    taken = entry["address"] if setting == "MESHQ_LISTEN" else entry["admin"]
    process = mesh.start(COMPONENT, **{setting: taken})
    assert process.wait() == 1
    assert f"cannot listen on {taken}" in str(process.problems)


def test_logs_are_json_in_elastic_fields(mesh: Mesh) -> None:
    process = mesh.component("a")
    entry = process.wait_logged("serving")
    assert entry["log.level"] == "info"
    assert entry["service.name"] == "meshq.management"
    assert entry["service.node.name"] == "a"
    assert entry["@timestamp"].endswith("Z")
    process.stop()
    assert process.other == []
