"""The supervisor with real servers, and stand-ins for components: starts, restarts, stops, leaves nothing."""

import asyncio
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.processes import alive, session_members, until
from fixtures.stand_ins import HEALTHY, SMALL, standing_in, supervised_elsewhere

from meshq.local.errors import AlreadyRunning, PortInUse, StartFailed
from meshq.local.plan import Kind, SystemPlan
from meshq.local.ports import free_port
from meshq.local.settings import LocalSettings
from meshq.local.state import SystemState
from meshq.local.system import System

SLEEP = "import time; time.sleep(600)"
# What a component may have started: it shall not outlive the system.
CHILD = f"subprocess.run([sys.executable, '-c', {SLEEP!r}])"
WITH_CHILD = f"import subprocess, sys; print('connected', flush=True); {CHILD}"
STAND_INS = standing_in(("-S", "-c", HEALTHY), ("-S", "-c", WITH_CHILD))


def system(data: Path | None = None, **options: object) -> System:
    chosen: dict[str, object] = {"port": 0, "size": SMALL, "settings": LocalSettings(), "planner": STAND_INS}
    return System(data, **{**chosen, **options})  # type: ignore[arg-type]


@pytest.fixture
def data(server_folder: Path) -> Path:
    folder = server_folder / f"system-{time.monotonic_ns()}"
    folder.mkdir()
    return folder


async def test_everything_runs_and_nothing_is_left() -> None:
    async with system(ephemeral=True) as running:
        data = running.data
        processes = running.processes
        assert {one.state for one in processes.values()} == {"ready"}
        assert set(running.shards) == {"shard-1", "shard-2", "shard-3"}
        assert running.edge.startswith("127.0.0.1:")
        assert "stand-in" in running.logs("registry")
        assert SystemState.read(data).ready
        worker = processes["worker"].pid
        assert worker is not None
        await until(lambda: len(session_members(worker)) == 2)
    assert not any(alive(one.pid) for one in processes.values())
    await until(lambda: not any(map(alive, session_members(worker))))
    assert not data.exists()


async def test_what_dies_is_restarted() -> None:
    async with system(ephemeral=True) as running:
        before = running.processes
        for name in ("etcd", "shard-2", "postgres", "execution"):
            running.kill(name)
        await until(
            lambda: all(
                running.processes[name].restarts for name in ("etcd", "shard-2", "postgres", "execution")
            )
        )
        await running.wait_ready()
        after = running.processes
        for name in ("etcd", "shard-2", "postgres", "execution"):
            assert after[name].pid != before[name].pid
            assert after[name].address == before[name].address
        assert after["registry"].pid == before["registry"].pid


async def test_one_process_is_stopped_and_started() -> None:
    async with system(ephemeral=True) as running:
        await running.stop_process("shard-1")
        assert running.processes["shard-1"].state == "stopped"
        assert running.processes["shard-1"].pid is None
        with pytest.raises(StartFailed, match="shard-1 does not run"):
            running.kill("shard-1")
        await running.start_process("shard-1")
        assert running.processes["shard-1"].state == "ready"
        await running.restart("registry")


async def test_without_restart_the_dead_stay_dead() -> None:
    async with system(ephemeral=True, restart=False) as running:
        running.kill("shard-1")
        await until(lambda: running.processes["shard-1"].state == "stopped")


async def test_second_start_keeps_ports_and_data_and_is_quick(data: Path) -> None:
    port = free_port()
    async with system(data, port=port) as first:
        addresses = {name: one.address for name, one in first.processes.items()}
    assert not SystemState.read(data).ready
    begin = time.monotonic()
    async with system(data, port=port) as second:
        assert time.monotonic() - begin < 10
        assert {name: one.address for name, one in second.processes.items()} == addresses


async def test_one_system_at_a_time(data: Path) -> None:
    async with system(data):
        with pytest.raises(AlreadyRunning, match=r"runs on .* already"):
            await system(data).__aenter__()
        assert SystemState.read(data).ready  # the second left the first's state alone


async def test_edge_port_in_use() -> None:
    port = free_port()
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    async with taken:
        with pytest.raises(PortInUse, match=f"Port {port} of 127.0.0.1 is in use"):
            await system(ephemeral=True, port=port).__aenter__()


async def test_remembered_port_that_is_taken_is_chosen_again(data: Path) -> None:
    async with system(data) as first:
        address = first.shards["shard-1"]
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", int(address.split(":")[1]))
    async with taken, system(data) as second:
        assert second.shards["shard-1"] != address


async def test_failed_start_says_why_and_leaves_nothing() -> None:
    seen: dict[str, int] = {}

    def broken(*words: object) -> SystemPlan:
        plan = STAND_INS(*words)  # type: ignore[arg-type]
        command = (sys.executable, "-S", "-c", "raise SystemExit('the reason')")
        processes = [
            replace(one, command=command) if one.kind is Kind.WORKER else one for one in plan.processes
        ]
        return replace(plan, processes=tuple(processes))

    started = system(
        ephemeral=True, planner=broken, changed=lambda one: seen.update({one.name: one.pid or 0})
    )
    with pytest.raises(StartFailed, match="worker ended with code 1 during its start: the reason"):
        await started.__aenter__()
    assert not any(alive(one.pid) for one in started.processes.values())
    assert not started.data.exists()


@pytest.mark.parametrize("when", ["etcd", "postgres", "worker"])
async def test_cancelled_start_leaves_nothing(when: str) -> None:
    reached = asyncio.Event()
    pids: set[int] = set()

    def changed(one: object) -> None:
        pid, name = getattr(one, "pid", None), getattr(one, "name", "")
        if pid:
            pids.add(pid)
            if name == when:
                reached.set()

    started = system(ephemeral=True, changed=changed)
    starting = asyncio.create_task(started.__aenter__())
    await reached.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert pids
    assert not any(map(alive, pids))
    assert not started.data.exists()


async def test_killed_supervisor_leaves_no_orphans() -> None:
    supervisor, folder, pids = await supervised_elsewhere(__file__)
    members = [pid for leader in pids.values() for pid in session_members(leader)]
    assert len(members) > len(pids)
    supervisor.kill()
    await supervisor.wait()
    await until(lambda: not any(map(alive, members)))
    await until(lambda: not folder.exists())


async def test_interrupted_program_stops_its_system() -> None:
    supervisor, folder, pids = await supervised_elsewhere(__file__)
    supervisor.send_signal(signal.SIGINT)
    await supervisor.wait()
    assert not any(map(alive, pids.values()))
    await until(lambda: not folder.exists())
