"""When is a process ready? Servers are asked in their own protocols, components for their health by HTTP.

A worker serves nobody and cannot be asked: it says in its log that it is connected.
"""

import asyncio
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

from meshq.local import probes
from meshq.local.plan import Kind, ProcessPlan
from meshq.local.ports import LOOPBACK

_FIRST_LOOK, _SLOWER, _LAST_LOOK = 0.02, 1.3, 0.25
_THREADS = 16
_CONNECTED = re.compile(rb"\bconnected\b")
_SILENT_LEVELS = frozenset({"warning", "error"})
_pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="probe")


def probe_of(plan: ProcessPlan, log: Path) -> Callable[[], bool]:
    """The question for a process that is about to be started and will write to the log."""
    if plan.server is not None:
        return plan.server.ready
    if plan.admin_port:
        return lambda: _healthy(plan)
    if os.environ.get("MESHQ_LOG_LEVEL", "").lower() in _SILENT_LEVELS:
        return lambda: True
    begin = log.stat().st_size if log.exists() else 0
    return lambda: _connected(log, begin)


async def wait_ready(probe: Callable[[], bool]) -> None:
    """Return when the answer is yes; the caller bounds the time and watches for the process's end."""
    loop = asyncio.get_running_loop()
    pause = _FIRST_LOOK
    while not await loop.run_in_executor(_pool, probe):
        await asyncio.sleep(pause)
        pause = min(pause * _SLOWER, _LAST_LOOK)


def _healthy(plan: ProcessPlan) -> bool:
    # The gateway is asked at the edge, which knows whether the components behind it can be reached.
    port = plan.port if plan.kind is Kind.GATEWAY else plan.admin_port
    status, _ = probes.http_get(LOOPBACK, port, "/healthz")
    return status == HTTPStatus.OK


def _connected(log: Path, begin: int) -> bool:
    with log.open("rb") as file:
        file.seek(begin)
        return _CONNECTED.search(file.read()) is not None
