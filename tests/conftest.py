"""Real servers for tests: each starts once a session, when the first test asks for it."""

import gc
import http.client
import json
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from meshq.contract.runtime import GRPC_EXPERIMENTS, READ_IN_PLACE

# Components that tests build in their own process use gRPC as they do in theirs.
os.environ.setdefault(GRPC_EXPERIMENTS, READ_IN_PLACE)

from meshq.local.ports import free_port, free_ports
from meshq.local.servers import Etcd, Postgres, Server, Valkey

SHARDS = ("shard-1", "shard-2", "shard-3")
_S = TypeVar("_S", bound=Server)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Without the garbage collector: while it calls somebody, as hypothesis asks it to, CPython 3.11 now and
    then refuses the source that it is just parsing (`AST constructor recursion depth mismatch`)."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where processes share the tests, each file stays together, and so does all that uses the whole system:
    it is started once."""
    for item in items:
        folder = item.path.parent.name
        item.add_marker(pytest.mark.xdist_group(folder if folder == "e2e" else item.path.stem))


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    # Not tmp_path: an unprivileged PostgreSQL has to reach its folder.
    folder = Path(tempfile.mkdtemp(prefix="meshq-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def etcd_server(server_folder: Path) -> Iterator[Etcd]:
    """The session's etcd; tests may kill it, `etcd` starts it again."""
    server = Etcd(server_folder / "etcd", free_port(), durable=False)
    yield from _serve(server)


@pytest.fixture(scope="session")
def postgres_server(server_folder: Path) -> Iterator[Postgres]:
    """The session's PostgreSQL without fsync; tests may kill it, `database` starts it again."""
    server = Postgres(server_folder / "postgres", free_port(), durable=False)
    yield from _serve(server)


@pytest.fixture(scope="session")
def shard_servers(server_folder: Path) -> Iterator[Mapping[str, Valkey]]:
    """The session's three Valkeys by shard name; tests may kill them, `shards` starts them again."""
    servers = {
        name: Valkey(server_folder / name, port)
        for name, port in zip(SHARDS, free_ports(len(SHARDS)), strict=True)
    }
    try:
        for server in servers.values():
            server.start()
        for server in servers.values():
            server.wait_ready()
        yield servers
    finally:
        for server in servers.values():
            server.stop()


@pytest.fixture
def etcd(etcd_server: Etcd) -> str:
    """An empty etcd: its endpoint, `host:port`."""
    _revive(etcd_server)
    for lease in _etcd(etcd_server, "lease/leases", {}).get("leases", ()):
        _etcd(etcd_server, "lease/revoke", {"ID": lease["ID"]})
    _etcd(etcd_server, "kv/deleterange", {"key": "AA==", "range_end": "AA=="})
    return etcd_server.endpoint


@pytest.fixture
def database(postgres_server: Postgres) -> Iterator[str]:
    """A fresh, empty database: its URL."""
    _revive(postgres_server)
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield postgres_server.create_database(name)
    _revive(postgres_server)
    postgres_server.drop_database(name)


@pytest.fixture
def shards(shard_servers: Mapping[str, Valkey]) -> dict[str, str]:
    """Three empty shards with default settings: name -> `host:port`."""
    for server in shard_servers.values():
        _revive(server)
        _empty(server)
    return {name: server.address for name, server in shard_servers.items()}


def _serve(server: _S) -> Iterator[_S]:
    try:
        server.start()
        server.wait_ready()
        yield server
    finally:
        server.stop()


def _revive(server: Server) -> None:
    server.start()
    server.wait_ready()


def _etcd(server: Etcd, method: str, body: dict[str, object]) -> dict[str, list[dict[str, object]]]:
    """Etcd's own JSON gateway, so that fixtures need no client."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request("POST", f"/v3/{method}", json.dumps(body))
        answer: dict[str, list[dict[str, object]]] = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()


def _empty(server: Valkey) -> None:
    defaults = b"CONFIG SET maxmemory 0 maxmemory-policy noeviction"
    reset = b"CLIENT UNPAUSE\r\n" + defaults + b"\r\nSCRIPT FLUSH\r\nFLUSHALL\r\n"
    answers = reset.count(b"\r\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(reset)
        received = b""
        while received.count(b"\r\n") < answers:
            received += connection.recv(1024)
    assert received == b"+OK\r\n" * answers, received
