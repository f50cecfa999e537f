"""Workers that are killed in mid-task, as a whole or in part, and a task that kills its worker every time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable

import psutil
from faults.evidence import Execution, read_executions
from faults.stage import executions_of
from faults.table import Fault, Scene, add

WITHIN, AGAIN = 60.0, 5.0
SEVERAL = {"long": 12, "long-crunched": 4}
"""Enough for each worker to get some; each has one process for what is crunched."""


async def running(scene: Scene, kind: str, chosen: Callable[[Execution], bool]) -> list[Execution]:
    """Send some long tasks of a kind, and wait until some that are chosen run."""
    serials = {scene.load.send(kind) for _ in range(SEVERAL[kind])}
    sent = asyncio.get_running_loop().time()
    path = executions_of(scene.system.data)
    offset = path.stat().st_size
    async with asyncio.timeout(WITHIN):
        while True:
            ids = {scene.load.accepted.get(serial) for serial in serials}
            begun = read_executions(path, offset)
            if found := [one for one in begun if one.end is None and one.task_id in ids and chosen(one)]:
                return found
            if asyncio.get_running_loop().time() - sent > AGAIN:  # all went to the other worker
                serials |= {scene.load.send(kind) for _ in range(SEVERAL[kind])}
                sent = asyncio.get_running_loop().time()
            await asyncio.sleep(0.02)


def family(scene: Scene, name: str) -> list[psutil.Process]:
    """A worker's process, and then those that it has started."""
    pid = scene.system.processes[name].pid
    assert pid is not None, f"{name} does not run"
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def pids(processes: Iterable[psutil.Process]) -> set[int]:
    """Their numbers."""
    return {process.pid for process in processes}


async def kill_in_mid_task(scene: Scene) -> None:
    """The worker goes with everything that it has started, and comes back under another name."""
    await scene.system.wait_ready()
    members = family(scene, "worker-2")
    await running(scene, "long", lambda one: one.pid in pids(members))
    scene.history.mark("tasks run there")
    os.killpg(members[0].pid, signal.SIGKILL)


async def kill_the_handler(scene: Scene) -> None:
    """The process that runs one handler dies, the worker lives."""
    await scene.system.wait_ready()
    members = family(scene, "worker-1")
    found = await running(scene, "long-crunched", lambda one: one.pid in pids(members))
    os.kill(found[0].pid, signal.SIGKILL)


async def kill_the_session(scene: Scene) -> None:
    """The process that keeps the session dies in the midst of tasks, the handlers go on."""
    await scene.system.wait_ready()
    members = family(scene, "worker-1")
    await running(scene, "long", lambda one: one.pid in pids(members))
    sessions = [one for one in members if "meshq.worker.session" in one.cmdline()]
    assert sessions, "the worker has no process for its session"
    for session in sessions:
        session.kill()


async def poison(scene: Scene) -> None:
    """A task kills each worker that takes it, until it is given up."""
    serial = scene.load.send("killer")
    async with asyncio.timeout(WITHIN * 3):
        while serial not in scene.load.accepted:  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.05)
        task = await scene.load.client.run(task_id=scene.load.accepted[serial])
    assert task.error is not None
    assert task.error.type == "POISON", task.error


add(Fault("kill-worker-in-mid-task", kill_in_mid_task, least_again=1, often=True))
add(Fault("kill-handler-process", kill_the_handler, least_again=1))
add(Fault("kill-session-process", kill_the_session))
add(Fault("poison", poison, least_again=1))
