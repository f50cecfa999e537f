"""When is a process ready? Servers are asked in their own protocols, components for their health by HTTP."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

from meshq.local import probes
from meshq.local.plan import Kind, ProcessPlan
from meshq.local.ports import LOOPBACK

_LOOK_EVERY = 0.05
_SETTLED = 0.5
_THREADS = 16
_pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="probe")


def probe_of(plan: ProcessPlan) -> Callable[[], bool] | None:
    """The question for a process; None if there is nothing to ask."""
    if plan.server is not None:
        return plan.server.ready
    if plan.admin_port:
        return lambda: _healthy(plan)
    return None


async def wait_ready(plan: ProcessPlan) -> None:
    """Return when the process is ready; the caller bounds the time and watches for its end."""
    probe = probe_of(plan)
    if probe is None:
        await asyncio.sleep(_SETTLED)  # it serves nobody: having survived its start is all it can show
        return
    loop = asyncio.get_running_loop()
    while not await loop.run_in_executor(_pool, probe):  # noqa: ASYNC110 - it is another process
        await asyncio.sleep(_LOOK_EVERY)


def _healthy(plan: ProcessPlan) -> bool:
    # The gateway is asked at the edge, which knows whether the components behind it can be reached.
    port = plan.port if plan.kind is Kind.GATEWAY else plan.admin_port
    status, _ = probes.http_get(LOOPBACK, port, "/healthz")
    return status == HTTPStatus.OK
