"""A TCP proxy whose network can be broken: cut, half-open, silent, slow, in both directions or in one.

A link listens on a port of its own and leads to one server. What is imposed holds for the connections that
are there and for new ones, until the link is healed; it may concern the connections of some callers alone.
"""

import asyncio
import enum
import errno
import socket
import struct
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Self

from faults import loss

from meshq.local.ports import LOOPBACK

_CHUNK: Final = 64 * 1024
_CHUNKS_ON_THE_WAY: Final = 256
_BACKLOG: Final = 128
_RESET: Final = struct.pack("ii", 1, 0)
_SECONDS: Final = 1
_PROBES: Final = 100


class Way(enum.Flag):
    """Directions."""

    THERE = enum.auto()
    """From the caller to the server."""
    BACK = enum.auto()
    BOTH = THERE | BACK


NO_WAY: Final = Way(0)


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a network.

    Attributes:
        cut: Connections are reset, new ones as well.
        lost: The directions in which packets get lost. Where the system cannot do that, bytes are held
            instead.
        held: The directions in which bytes are taken, and never passed on: all is well for TCP.
        latency: Seconds that each byte is on its way, in each direction.
        bandwidth: Bytes per second and connection, in each direction; 0 for no bound.
        callers: Whose connections are concerned; all without any.
    """

    cut: bool = False
    lost: Way = NO_WAY
    held: Way = NO_WAY
    latency: float = 0.0
    bandwidth: float = 0.0
    callers: Collection[str] = ()


NONE: Final = Trouble()
CUT: Final = Trouble(cut=True)
HALF_OPEN: Final = Trouble(lost=Way.BOTH)
SILENT: Final = Trouble(held=Way.BOTH)


class Link:
    """See the module.

    Args:
        name: What it leads to, for people.
        target: The server, `host:port`.
        caller: Says by the port of a connection whose it is.
    """

    def __init__(self, name: str, target: str, caller: Callable[[int], str] = lambda _port: "") -> None:
        self.name = name
        self.target = target
        self.trouble = NONE
        self._caller = caller
        self._listener = socket.create_server((LOOPBACK, 0), backlog=_BACKLOG)
        self._listener.setblocking(False)
        self._connections: set[_Connection] = set()
        self._accepting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Carry connections from now on."""
        self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Carry none any more."""
        await self.close()

    @property
    def address(self) -> str:
        """Where callers connect to, `host:port`."""
        return f"{LOOPBACK}:{self._listener.getsockname()[1]}"

    def open(self) -> None:
        """Carry connections from now on; who came before waits so long."""
        if self._accepting is None:
            self._accepting = asyncio.create_task(self._accept(), name=f"link to {self.name}")

    async def close(self) -> None:
        """End all connections and listen no more."""
        tasks = [connection.task for connection in self._connections]
        if self._accepting is not None:
            tasks.append(self._accepting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()

    def impose(self, trouble: Trouble) -> None:
        """Have this trouble instead of what was before."""
        self.trouble = trouble
        # Connections of single callers cannot be told apart before they are made.
        _lose(self._listener, lost=bool(trouble.lost) and not trouble.callers)
        for connection in tuple(self._connections):
            connection.feel(self._felt_by(connection))

    def heal(self) -> None:
        """Have no trouble."""
        self.impose(NONE)

    @property
    def carried(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def _felt_by(self, connection: "_Connection") -> Trouble:
        callers = self.trouble.callers
        if callers and self._caller(connection.port) not in callers:
            return NONE
        return self.trouble

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                near, (_, port) = await loop.sock_accept(self._listener)
            except OSError as error:
                if error.errno == errno.EBADF:
                    return
                continue
            connection = _Connection(near, port, self.target)
            self._connections.add(connection)
            connection.task.add_done_callback(partial(self._forget, connection))
            connection.feel(self._felt_by(connection))

    def _forget(self, connection: "_Connection", _: asyncio.Task[None]) -> None:
        self._connections.discard(connection)


class _Connection:
    """One connection: a socket to the caller, one to the server, and what is on its way between them."""

    def __init__(self, near: socket.socket, port: int, target: str) -> None:
        self.port = port
        self._near = _prepared(near)
        self._far = _prepared(socket.socket())
        self._target = target
        self._trouble = NONE
        self._passing = {way: asyncio.Event() for way in (Way.THERE, Way.BACK)}
        self._aborted = False
        self.task = asyncio.create_task(self._carry())
        self.task.add_done_callback(self._close)  # a task that is cancelled at once never runs

    def feel(self, trouble: Trouble) -> None:
        """Have this trouble from now on."""
        self._trouble = trouble
        held = trouble.held if loss.AVAILABLE else trouble.held | trouble.lost
        for way, passing in self._passing.items():
            if way in held:
                passing.clear()
            else:
                passing.set()
        with suppress(OSError):
            _lose(self._near, lost=Way.THERE in trouble.lost)
            _lose(self._far, lost=Way.BACK in trouble.lost)
        if trouble.cut:
            self._aborted = True
            self.task.cancel()

    async def _carry(self) -> None:
        loop = asyncio.get_running_loop()
        host, _, port = self._target.rpartition(":")
        try:
            await self._passing[Way.THERE].wait()
            await loop.sock_connect(self._far, (host, int(port)))
            async with asyncio.TaskGroup() as group:
                for way, source, sink in (
                    (Way.THERE, self._near, self._far),
                    (Way.BACK, self._far, self._near),
                ):
                    chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_ON_THE_WAY)
                    group.create_task(self._take(way, source, chunks))
                    group.create_task(self._give(way, sink, chunks))
        except (OSError, ExceptionGroup):
            self._aborted = True

    def _close(self, _: asyncio.Task[None]) -> None:
        for end in (self._near, self._far):
            if self._aborted:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()

    async def _take(
        self, way: Way, source: socket.socket, chunks: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        loop = asyncio.get_running_loop()
        chunk = b"?"
        while chunk:
            await self._passing[way].wait()
            chunk = await loop.sock_recv(source, _CHUNK)
            await chunks.put((loop.time(), chunk))

    async def _give(self, way: Way, sink: socket.socket, chunks: asyncio.Queue[tuple[float, bytes]]) -> None:
        """Pass chunks on; an empty one is the end of the stream."""
        loop = asyncio.get_running_loop()
        chunk = b"?"
        while chunk:
            came, chunk = await chunks.get()
            if (left := came + self._trouble.latency - loop.time()) > 0:
                await asyncio.sleep(left)
            await self._passing[way].wait()
            if self._trouble.bandwidth:
                await asyncio.sleep(len(chunk) / self._trouble.bandwidth)
            if chunk:
                await loop.sock_sendall(sink, chunk)
        sink.shutdown(socket.SHUT_WR)


def _prepared(end: socket.socket) -> socket.socket:
    """Without delays of its own, and with probes by which a peer is found that has given up meanwhile."""
    end.setblocking(False)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE")  # noqa: B009 - macOS
    end.setsockopt(socket.IPPROTO_TCP, idle, _SECONDS)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _SECONDS)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    return end


def _lose(receiver: socket.socket, *, lost: bool) -> None:
    if not loss.AVAILABLE:
        return
    if lost:
        loss.begin(receiver)
    else:
        with suppress(FileNotFoundError):  # it lost nothing before
            loss.end(receiver)
