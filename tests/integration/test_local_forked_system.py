"""A system whose components are forked, real servers and stand-ins for components: starts, crashes, ends."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from textwrap import indent

import psutil
import pytest
from fixtures.processes import alive, session_members, until
from fixtures.stand_ins import HEALTHY, SMALL, standing_in, supervised_elsewhere

from meshq.local import forks
from meshq.local.settings import LocalSettings
from meshq.local.system import System

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks without exec are for Linux only")

COMPONENT = f"if __name__ == '__main__':\n{indent(HEALTHY, ' ')}"
# A worker has processes of its own, which shall not outlive the system either.
WORKER = """
import subprocess, sys
if __name__ == "__main__":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("connected")
    child.wait()
"""
COMPONENTS = ("registry", "management", "execution", "gateway", "worker")


def system(*, ephemeral: bool = True) -> System:
    return System(
        ephemeral=ephemeral,
        port=0,
        size=SMALL,
        settings=LocalSettings(),
        planner=standing_in(("-m", "stand_in_component"), ("-m", "stand_in_worker")),
    )


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("stand_in_component", COMPONENT), ("stand_in_worker", WORKER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__main__.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def parents(running: System) -> set[int]:
    """The parents of the components."""
    pids = [running.processes[name].pid for name in COMPONENTS]
    return {psutil.Process(pid).ppid() for pid in pids}


async def test_a_killed_fork_server_is_replaced_with_its_children() -> None:
    async with system() as running:
        (server,) = parents(running)
        assert psutil.Process(server).ppid() == os.getpid()
        before = running.processes
        members = [pid for name in COMPONENTS for pid in session_members(before[name].pid or 0)]
        assert len(members) > len(COMPONENTS)
        os.kill(server, signal.SIGKILL)
        await until(lambda: all(running.processes[name].restarts for name in COMPONENTS))
        assert not any(map(alive, members))
        await running.wait_ready()
        assert parents(running).isdisjoint({server, os.getpid()})
        assert all(running.processes[name].address == before[name].address for name in COMPONENTS)
        assert running.processes["etcd"].pid == before["etcd"].pid
        (replacement,) = parents(running)
    assert not alive(replacement)
    assert not any(alive(one.pid) for one in running.processes.values())


async def test_a_crash_is_followed_by_another_fork() -> None:
    async with system() as running:
        (server,) = parents(running)
        before = running.processes["execution"].pid
        running.kill("execution")
        await until(lambda: running.processes["execution"].restarts == 1)
        await running.wait_ready("execution")
        assert running.processes["execution"].pid != before
        assert parents(running) == {server}


async def test_without_a_fork_server_each_has_an_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "supported", lambda: False)
    async with system() as running:
        assert parents(running) == {os.getpid()}
    assert not any(alive(one.pid) for one in running.processes.values())


@pytest.mark.parametrize("also_the_fork_server", [False, True])
async def test_a_killed_supervisor_leaves_nothing(also_the_fork_server: bool) -> None:
    supervisor, folder, pids = await supervised_elsewhere(__file__)
    (server,) = {psutil.Process(pids[name]).ppid() for name in COMPONENTS}
    members = [server, *(pid for leader in pids.values() for pid in session_members(leader))]
    assert len(members) > len(pids) + 1
    supervisor.kill()
    if also_the_fork_server:
        with suppress(ProcessLookupError):  # it may have ended with the supervisor by now
            os.kill(server, signal.SIGKILL)
    await supervisor.wait()
    await until(lambda: not any(map(alive, members)))
    await until(lambda: not folder.exists())
