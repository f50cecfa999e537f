"""The supervisor's side of the fork server: it is started, asked to fork, and replaced when it has died.

Forking without a new program is safe on Linux only, and some sandboxes refuse what it takes. Where a fork
server does not become ready, the caller starts a new interpreter for each process instead.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import sys
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Self

from meshq.local.child import Child, Guard

READY = b"."
_IMPORTED_WITHIN = 60.0
_FORKED_WITHIN = 5.0
_PATIENCE = 5.0
_LONGEST = 32
_CHUNK = 65_536


class ForkRefused(Exception):
    """The fork server has died, or does not answer."""


@dataclass(frozen=True)
class Request:
    """What a child is to be.

    Attributes:
        module: What `python -m` would run.
        words: Its arguments.
        environment: All of its environment.
    """

    module: str
    words: Sequence[str]
    environment: Mapping[str, str]

    @classmethod
    def read(cls, connection: socket.socket) -> Self:
        """Read one; the other side says no more after it."""
        return cls(**json.loads(b"".join(iter(lambda: connection.recv(_CHUNK), b""))))

    def write(self, connection: socket.socket) -> None:
        """Write it, and nothing after it."""
        connection.sendall(json.dumps(asdict(self)).encode())
        connection.shutdown(socket.SHUT_WR)


class Forked:
    """A process that the fork server has started and therefore waits for.

    Signals go to a descriptor of the process: its number may be another's by now.
    """

    def __init__(self, connection: socket.socket, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._connection = connection
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def wait(self) -> int:
        """Wait for its end and return the exit code, negative for a signal."""
        with self._connection:
            try:
                told = self._connection.recv(_LONGEST)
            except OSError:
                told = b""
        return int(told) if told else self._lost()

    def send_signal(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def _lost(self) -> int:
        """The fork server has died, and Linux kills its children; return when that is done."""
        self.send_signal(signal.SIGKILL)
        end = select.poll()
        end.register(self._descriptor, select.POLLIN)
        end.poll()
        return -signal.SIGKILL


class Forks:
    """Forks processes from a server that has imported their modules."""

    def __init__(
        self, modules: Sequence[str], environment: Mapping[str, str], log: Path, guard: Guard
    ) -> None:
        """Nothing is started yet.

        Args:
            modules: What to import.
            environment: What the modules find in the environment while they are imported.
            log: Where the fork server says why it cannot be used.
            guard: Is told of the fork server, and of what it starts.
        """
        self._modules = tuple(dict.fromkeys(modules))
        self._environment = environment
        self._log = log
        self._guard = guard
        self._server: Child | None = None
        self._requests: socket.socket | None = None
        self._ready: asyncio.Task[bool] | None = None
        self._usable = supported() and bool(self._modules)

    async def usable(self) -> bool:
        """Whether `fork` can be called now; waits until a server that is being started is ready."""
        self.start()
        if self._ready is not None:
            self._usable = await asyncio.shield(self._ready)
        return self._usable

    def start(self) -> None:
        """Start a server unless there is one, or none can be used here."""
        if not self._usable or (self._server is not None and self._server.alive):
            return
        self._close()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._requests = ours
        command = [sys.executable, "-u", "-m", "meshq.local.forkserver", str(os.getpid()), *self._modules]
        with theirs, self._log.open("ab") as log:
            self._server = Child.spawn(
                command, environment=self._environment, stdin=theirs, log=log, guard=self._guard
            )
        self._ready = asyncio.create_task(_said_ready(ours), name="fork-server")

    def fork(
        self, module: str, words: Sequence[str], *, environment: Mapping[str, str], log: IO[bytes]
    ) -> Child:
        """Start `python -m module words`; raise ForkRefused if that cannot be had now.

        Blocks for the milliseconds of a fork, so that nothing comes between the process and the guard's line.
        """
        assert self._requests is not None
        ours, theirs = socket.socketpair()
        ours.settimeout(_FORKED_WITHIN)
        try:
            with theirs:
                socket.send_fds(self._requests, [b"+"], [theirs.fileno(), log.fileno()])
            Request(module, words, environment).write(ours)
            told, descriptors, _, _ = socket.recv_fds(ours, _LONGEST, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            told, descriptors = b"", []
        if not told:
            ours.close()
            self.kill()  # with whatever it may have started meanwhile
            raise ForkRefused
        ours.settimeout(None)
        return Child(Forked(ours, int(told), *descriptors), self._guard)

    def kill(self) -> None:
        """End the server and all that it has started."""
        if self._server is not None:
            self._server.kill_group()

    async def stop(self) -> None:
        """End the server; what it has started has ended before."""
        self._usable = False
        if self._server is not None:
            await self._server.stop(signal.SIGTERM, _PATIENCE)
        if self._ready is not None:
            await asyncio.wait({self._ready})
        self._close()

    def _close(self) -> None:
        if self._requests is not None:
            self._requests.close()
            self._requests = None


def supported() -> bool:
    """Whether processes can be forked here without becoming another program."""
    return sys.platform == "linux"


async def _said_ready(requests: socket.socket) -> bool:
    try:
        async with asyncio.timeout(_IMPORTED_WITHIN):
            return await asyncio.get_running_loop().sock_recv(requests, 1) == READY
    except OSError:  # of the socket, or the time is over
        return False
