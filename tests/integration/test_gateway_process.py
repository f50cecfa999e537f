# ruff: noqa: N802 - servicers have the names of the contract
"""The gateway as a process: what it shows of itself, what it serves, how it starts and ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from fixtures.edge import ID, SECONDS, TASKS, Stand, answers, envoys_of, process, stand, until

from meshq.local.ports import free_ports
from meshq.local.servers import Etcd
from meshq.mesh.etcd import EtcdClient
from meshq.mesh.registration import Announcement, Registration
from meshq.mesh.server import ServedService, start_server
from meshq.v1 import (
    ring_service_pb2,
    ring_service_pb2_grpc,
    task_pb2,
    task_service_pb2,
    task_service_pb2_grpc,
)

__all__ = ["stand"]

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
    ring = Ring()  # type: ignore[abstract]
    service = ServedService(
        name, lambda server: ring_service_pb2_grpc.add_RingServiceServicer_to_server(ring, server)
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
