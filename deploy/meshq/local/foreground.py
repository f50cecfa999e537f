"""Living with a system until a signal ends it, at whatever moment that comes."""

import asyncio
import signal
from collections.abc import Callable

from meshq.local.system import System

INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(system: System, ready: Callable[[], None]) -> int:
    """Start the system, call `ready`, and stop at a signal.

    Returns:
        0 if it had become ready, 130 if the signal came during its start.
    """
    return asyncio.run(_live(system, ready))


async def _live(system: System, ready: Callable[[], None]) -> int:
    living = asyncio.current_task()
    assert living is not None
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, _interrupt, system, living)
    code = INTERRUPTED
    try:
        async with system:
            code = 0
            ready()
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        return code
    return code


def _interrupt(system: System, living: asyncio.Task[int]) -> None:
    """The first signal stops in order; whoever insists gets it done at once."""
    if system.stopping:
        system.kill_all()
    else:
        living.cancel()
