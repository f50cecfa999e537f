"""A process that has imported what the components need, and becomes any of them by a fork.

`python -u -m meshq.local.forkserver <parent> <module>...` imports the modules, says so, and takes requests
at the socket that is its standard input. A message there brings two descriptors: a connection, from which a
`Request` is read, and the log. The connection is told the process id, with a descriptor of the process, and
the exit code when it has ended. All children end when the socket does, the parent, or the fork server itself.

Forking is safe because nothing that is imported starts a thread or initializes gRPC; the first is checked.
"""

import ctypes
import gc
import importlib
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import setproctitle

from meshq.contract.runtime import GRPC_FORKS
from meshq.local.forks import READY, Request

_PR_SET_PDEATHSIG = 1


class _Child:
    """A child as its fork server sees it."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.descriptor = os.pidfd_open(pid)
        self._pid = pid
        self._connection = connection
        self._tell(str(pid).encode(), self.descriptor)

    def ended(self) -> None:
        """Tell the exit code, negative for a signal."""
        _, status = os.waitpid(self._pid, 0)
        self._tell(str(os.waitstatus_to_exitcode(status)).encode())
        self.close()

    def close(self) -> None:
        """Forget it."""
        os.close(self.descriptor)
        self._connection.close()

    def _tell(self, text: bytes, *descriptors: int) -> None:
        with suppress(OSError):  # nobody listens any more: the end of the socket will say so
            socket.send_fds(self._connection, [text], descriptors)


class _Forks:
    """Forks for whoever asks at the socket."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._children: dict[int, _Child] = {}
        # In contrast to epoll's, its registrations are not shared with children.
        self._poll = select.poll()
        self._poll.register(requests, select.POLLIN)

    def serve(self) -> Request | None:
        """Return in each child what it is to be, and None in the fork server when nobody asks any more."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._children:
                    self._poll.unregister(descriptor)
                    self._children.pop(descriptor).ended()
                    continue
                message, received, _, _ = socket.recv_fds(self._requests, 1, 2, socket.MSG_CMSG_CLOEXEC)
                if not message:
                    return None
                if request := self._fork(*received):
                    return request

    def _fork(self, connection_descriptor: int, log: int) -> Request | None:
        connection = socket.socket(fileno=connection_descriptor)
        request = Request.read(connection)
        server = os.getpid()
        if pid := os.fork():
            os.close(log)
            child = _Child(pid, connection)
            self._children[child.descriptor] = child
            self._poll.register(child.descriptor, select.POLLIN)
            return None
        os.setsid()
        _die_with(server)
        connection.close()
        self._forget()
        _send_output_to(log)
        return request

    def _forget(self) -> None:
        """Let go of what belongs to the fork server."""
        self._requests.close()
        for child in self._children.values():
            child.close()


def main(parent: int, modules: Sequence[str]) -> None:
    """Serve; in a child, be the module that was asked for."""
    _die_with(parent)
    requests = _take_over_input()
    # Once it is imported, what a child sets is too late.
    os.environ.setdefault(GRPC_FORKS, "0")
    _import(modules)
    os.close(os.pidfd_open(os.getpid()))  # some sandboxes refuse it: better now than later
    requests.sendall(READY)
    if request := _Forks(requests).serve():
        _become(request)


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        _give_up("The parent ended before the process was started.")


def _take_over_input() -> socket.socket:
    """The socket, with nothing to read left in its place for the children."""
    requests = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return requests


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        # What cannot be imported is told in the log of the process that needs it.
        with suppress(Exception):
            name = f"{module}.__main__"
            importlib.import_module(name)
            del sys.modules[name]  # it is run under another name
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        _give_up("Something that is imported starts threads, so this process cannot be forked.")
    gc.collect()
    gc.freeze()  # children that collect would otherwise write to, and so copy, every page


def _send_output_to(log: int) -> None:
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)


def _become(request: Request) -> None:
    """Run the module; the interpreter then ends as it does after `python -m`."""
    sys.argv[1:] = request.words
    sys.orig_argv[1:] = ["-m", request.module, *request.words]
    # Before the environment is another: by that it finds where the title is.
    setproctitle.setproctitle(" ".join(sys.orig_argv))
    os.environ.clear()
    os.environ.update(request.environment)
    runpy.run_module(request.module, run_name="__main__", alter_sys=True)


def _give_up(reason: str) -> NoReturn:
    sys.exit(reason)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
