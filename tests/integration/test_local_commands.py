"""`meshq up`, `down` and `status` as a person types them: sentences, exit codes, and nothing left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.processes import running

COMMAND = [sys.executable, "-m", "meshq.local"]


@pytest.fixture
def data(server_folder: Path) -> Iterator[Path]:
    folder = server_folder / f"commands-{time.monotonic_ns()}"
    yield folder
    meshq("down", "--data", str(folder))


def meshq(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **environment},
    )


def refused(*words: str, **environment: str) -> str:
    """The one sentence with which a command is refused."""
    done = meshq(*words, **environment)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("meshq: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def descendants(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split() for line in listed.splitlines())
    parents = {int(child): int(parent) for child, parent in rows}
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def alive(pid: int) -> bool:
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout.strip()[:1] not in ("", "Z")


def test_port_in_use(data: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"Port {port} of 127.0.0.1 is in use" in refused(
            "up", "--data", str(data), "--port", str(port)
        )
        detached = refused("up", "--data", str(data), "--port", str(port), "--detach")
        assert f"Port {port} of 127.0.0.1 is in use" in detached


def test_missing_binary() -> None:
    said = refused("up", "--ephemeral", "--port", "0", MESHQ_BIN_ETCD="/nowhere/etcd")
    assert "MESHQ_BIN_ETCD names /nowhere/etcd" in said


def test_data_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be used" in refused("up", "--data", str(tmp_path / "file"), "--port", "0")


def test_data_and_ephemeral_exclude_each_other(data: Path) -> None:
    assert "--ephemeral" in refused("up", "--data", str(data), "--ephemeral")


def test_nothing_to_stop(data: Path) -> None:
    assert f"No meshq runs on {data}." in refused("down", "--data", str(data))
    assert f"No meshq runs on {data}." in refused("status", "--data", str(data))
    done = meshq("status", "--data", str(data), "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"running": False, "ready": False, "data": str(data)}


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("moment", ["etcd starting", "shard-1 ready"])
def test_interrupt_during_start_leaves_nothing(data: Path, moment: str, detach: bool) -> None:
    words = [*COMMAND, "up", "--data", str(data), "--port", "0", *(["--detach"] if detach else [])]
    with running(words, stdout=subprocess.PIPE) as up:
        assert up.stdout is not None
        while moment not in up.stdout.readline():
            pass
        children = descendants(up.pid)
        assert children
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=60)
        assert up.returncode == 130
    assert not any(map(alive, children))
    refused("down", "--data", str(data))


@pytest.mark.timeout(300)
class TestWholeSystem:
    """The real components, too."""

    def test_detached_system_is_shown_and_stopped(self, data: Path) -> None:
        started = meshq("up", "--data", str(data), "--port", "0", "--detach")
        assert started.returncode == 0, started.stdout + started.stderr
        assert f"meshq down --data {data}" in started.stdout
        shown = meshq("status", "--data", str(data), "--json")
        assert shown.returncode == 0
        status = json.loads(shown.stdout)
        assert status["running"]
        assert status["ready"]
        assert status["edge"] in started.stdout
        assert {process["state"] for process in status["processes"]} == {"ready"}
        left = [status["supervisor"], *descendants(status["supervisor"])]
        assert len(left) > len(status["processes"])

        assert "already" in refused("up", "--data", str(data), "--port", "0")
        assert "already" in refused("up", "--data", str(data), "--port", "0", "--detach")
        assert all(map(alive, left))

        assert meshq("down", "--data", str(data)).returncode == 0
        assert not any(map(alive, left))
        refused("down", "--data", str(data))

    def test_killed_supervisor_leaves_nothing_and_its_data_is_good(self, data: Path) -> None:
        assert meshq("up", "--data", str(data), "--port", "0", "--detach").returncode == 0
        supervisor = json.loads(meshq("status", "--data", str(data), "--json").stdout)["supervisor"]
        left = descendants(supervisor)
        os.kill(supervisor, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(map(alive, left)):
            assert time.monotonic() < deadline, [pid for pid in left if alive(pid)]
            time.sleep(0.05)
        assert "No meshq runs" in refused("status", "--data", str(data))
        again = meshq("up", "--data", str(data), "--port", "0", "--detach")
        assert again.returncode == 0, again.stdout + again.stderr

    def test_interrupt_stops_the_ready_system(self, data: Path) -> None:
        words = [*COMMAND, "up", "--data", str(data), "--port", "0"]
        with running(words, stdout=subprocess.PIPE) as up:
            assert up.stdout is not None
            while "meshq is ready" not in (line := up.stdout.readline()):
                assert line, "it ended"
            left = descendants(up.pid)
            up.send_signal(signal.SIGINT)
            up.communicate(timeout=100)
            assert up.returncode == 0
        assert not any(map(alive, left))
