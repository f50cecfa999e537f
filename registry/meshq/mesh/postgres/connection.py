"""Connections to PostgreSQL that notice when nobody is there any more.

A peer that is gone without a word is found in three ways, from the cheapest on:

- by TCP: what is sent has to be acknowledged within ten seconds, and who says nothing for five is asked;
- by the server, which looks after its clients in the same way, so that no lock outlives its owner for long;
- by the clock: a statement that is not answered ends its connection. TCP says nothing where the peer's
  machine is well and the peer is not, or where something stands between both.

Where commits wait for synchronous replicas, an answer may rightly take as long as a replica is away, and
each connection that is given up goes on waiting on the server. There the clock is a last resort.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import Any, Final

from psycopg import AsyncConnection

from meshq.mesh.telemetry import logger

_log = logger(__name__)

ANSWER_SECONDS: Final = 20.0
"""Longer than the server's own bound for a statement."""
REPLICATED_ANSWER_SECONDS: Final = 300.0
RECONNECT_SECONDS: Final = 3.0
"""A pool tries for so long with growing pauses, then anew for the next who asks."""

OPTIONS: Final[dict[str, Any]] = {
    "autocommit": True,
    "target_session_attrs": "read-write",
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""What every connection is made with."""

# A commit that waits for replicas: it comes behind everything that could be seen before it.
_SETTLE: Final = "SELECT pg_logical_emit_message(true, 'meshq', '')"
_SETTINGS: Final = """
SELECT
    set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),
    set_config('tcp_keepalives_count', '3', false), current_setting('synchronous_standby_names')
"""


class Connection(AsyncConnection[tuple[Any, ...]]):
    """See the module.

    Attributes:
        patience: Seconds within which a statement has to be answered; None for as long as it takes.
        replicated: Whether commits wait for synchronous replicas.
    """

    patience: float | None = None
    replicated = False

    async def look_after(self) -> None:
        """Bound the time for answers, on both sides; called once, when the connection is new."""
        *_, standbys = await (await self.execute(_SETTINGS)).fetchone() or ("",)
        self.replicated = bool(standbys)
        self.patience = REPLICATED_ANSWER_SECONDS if standbys else ANSWER_SECONDS

    async def settle(self) -> None:
        """Wait until the replicas have all that can be seen by now.

        A transaction whose connection broke while it waited for them is visible all the same. Who repeats it
        finds it done and writes nothing, and what writes nothing waits for nobody.
        """
        if self.replicated:
            await self.execute(_SETTLE)

    async def wait(self, *args: Any, **kwargs: Any) -> Any:
        """As of the driver, for every exchange with the server."""
        if self.patience is None:
            return await super().wait(*args, **kwargs)
        watch = asyncio.get_running_loop().call_later(self.patience, self._hang_up)
        try:
            return await super().wait(*args, **kwargs)
        finally:
            watch.cancel()

    def _hang_up(self) -> None:
        """End the connection as if the server had, which wakes who waits for it."""
        _log.warning("the database does not answer; its connection is given up", seconds=self.patience)
        with suppress(OSError), socket.socket(fileno=os.dup(self.pgconn.socket)) as end:
            end.shutdown(socket.SHUT_RDWR)
