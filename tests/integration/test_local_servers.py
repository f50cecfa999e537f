"""The real servers start, stop, die and come back; and the fixtures hand them out empty."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg
import pytest

from meshq.local import privileges, probes
from meshq.local.errors import PrivilegesRefused, StartFailed
from meshq.local.ports import free_port
from meshq.local.servers import Etcd, Postgres, Valkey


def test_etcd_is_empty_and_comes_back(etcd: str, etcd_server: Etcd) -> None:
    assert etcd == etcd_server.endpoint
    etcd_server.kill()
    assert not etcd_server.ready()
    etcd_server.start()
    etcd_server.wait_ready()


def test_database_is_fresh(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (x int)")
        version = connection.info.server_version
    assert version >= 160000


def test_postgres_survives_a_kill(database: str, postgres_server: Postgres) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (x int)")
    postgres_server.kill()
    postgres_server.start()
    postgres_server.wait_ready()
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_shards_are_empty(shards: dict[str, str], shard_servers: Mapping[str, Valkey]) -> None:
    assert len(shards) == 3
    for address in shards.values():
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"DBSIZE\r\n")
            assert connection.recv(16) == b":0\r\n"
    shard_servers["shard-2"].kill()
    assert not shard_servers["shard-2"].running


def test_killed_shard_is_back_for_the_next_test(
    shards: dict[str, str], shard_servers: Mapping[str, Valkey]
) -> None:
    assert all(server.ready() for server in shard_servers.values())


def test_a_server_that_cannot_listen_says_why(tmp_path: Path) -> None:
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        server = Valkey(tmp_path / "v", port)
        server.start()
        with pytest.raises(StartFailed, match="in use"):
            server.wait_ready()
        server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_servers_die_with_the_process_that_started_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    program = (
        "import sys, pathlib, time\n"
        "from meshq.local.servers import Valkey, Postgres, Etcd\n"
        "from meshq.local.ports import free_ports\n"
        f"base = pathlib.Path({str(tmp_path)!r})\n"
        "p = free_ports(3)\n"
        "servers = [Valkey(base/'v', p[0]), Etcd(base/'e', p[1]), Postgres(base/'p', p[2], durable=False)]\n"
        "[s.start() for s in servers]; [s.wait_ready() for s in servers]\n"
        "print(*(s.pid for s in servers), *p, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        *pids, v, e, p = map(int, starter.stdout.readline().split())
        assert probes.valkey("127.0.0.1", v)
        assert probes.etcd("127.0.0.1", e)
        assert probes.postgres("127.0.0.1", p)
        starter.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "children outlived their parent"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie nobody reaps (no init in a container) is dead all the same.
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_postgres_runs_without_user_namespaces(
    server_folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(privileges, "_namespace", tuple)
    privileges.unprivileged.cache_clear()
    request.addfinalizer(privileges.unprivileged.cache_clear)
    server = Postgres(server_folder / "account", free_port(), durable=False)
    try:
        server.start()
        server.wait_ready()
        assert server.data.stat().st_uid != 0
    except PrivilegesRefused as refused:  # where no account may enter the folders of the wheel
        assert "cannot reach" in str(refused)  # noqa: PT017
    finally:
        server.stop()
