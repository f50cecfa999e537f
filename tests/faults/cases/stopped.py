"""Processes that stop for a while and go on as if nothing had happened: whoever wakes up must be fenced."""

from __future__ import annotations

import asyncio
import os
import signal

from faults.cases.workers import family, pids, running
from faults.table import Act, Fault, Scene, add


def stop(name: str, full: float, short: float) -> Act:
    """Stop a process with all that it has started, for so many seconds."""

    async def act(scene: Scene) -> None:
        members = family(scene, name)
        if name.startswith("worker"):
            await running(scene, "long", lambda one: one.pid in pids(members))
        os.killpg(members[0].pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(scene.seconds(full, short))
        finally:
            os.killpg(members[0].pid, signal.SIGCONT)

    return act


for _name in ("worker-1", "execution-1", "management-1"):
    add(Fault(f"stop-5s-{_name}", stop(_name, 5.0, 2.0)))
    add(
        Fault(
            f"stop-60s-{_name}",
            stop(_name, 60.0, 6.0),  # longer than a lease in both forms
            often=_name == "execution-1",
            least_again=1 if _name.startswith("worker") else 0,
        )
    )
