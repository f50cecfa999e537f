"""The handlers' side of the session: starts the session process, and replaces it should it die."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from meshq.contract.runtime import GRPC_EXPERIMENTS, READ_IN_PLACE
from meshq.v1 import worker_service_pb2 as pb
from meshq.worker.pipe import Kind, Pipe, PipeClosed
from meshq.worker.session.settings import SessionSettings

RESTART_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Listener:
    """What is called from the link's thread.

    Attributes:
        frame: A frame came from the server.
        notice: The session process says something about the session.
        opened: There is a pipe, at first or again.
        standing: What a new session process has to know: the settings as they are by now.
    """

    frame: Callable[[pb.ConnectResponse], None]
    notice: Callable[[Mapping[str, Any]], None]
    opened: Callable[[Pipe], None]
    standing: Callable[[], SessionSettings]


class Link:
    """Keeps a session process until `close`."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._closing = threading.Event()
        self._pipe: Pipe | None = None
        self._thread = threading.Thread(target=self._serve, name="meshq-link", daemon=True)

    def start(self) -> None:
        """Start the process."""
        self._thread.start()

    def close(self, reason: str, seconds: float) -> bool:
        """Say Goodbye once every result is recorded.

        Args:
            reason: For the server's log.
            seconds: How long to wait; after it the process is left to say Goodbye by itself.

        Returns:
            Whether the session was ended in time.
        """
        self._closing.set()
        if self._pipe is not None:
            goodbye = pb.ConnectRequest(goodbye=pb.Goodbye(reason=reason))
            try:
                self._pipe.send_frame(goodbye.SerializeToString())
            except PipeClosed:
                return False
        self._thread.join(seconds)
        if self._pipe is not None and self._thread.is_alive():
            self._pipe.shut()
        return not self._thread.is_alive()

    def _serve(self) -> None:
        while not self._closing.is_set():
            self._serve_once()
            self._closing.wait(RESTART_SECONDS)

    def _serve_once(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = _start(theirs)
        self._pipe = Pipe(ours)
        try:
            self._pipe.send_notice(self._listener.standing().to_notice())
            self._listener.opened(self._pipe)
            while True:
                self._take(*self._pipe.receive())
        except PipeClosed:
            self._pipe.close()
            process.wait()
        if not self._closing.is_set():
            self._listener.notice({"event": "session process ended", "exit_code": process.returncode})

    def _take(self, kind: Kind, body: bytes) -> None:
        if kind is Kind.FRAME:
            self._listener.frame(pb.ConnectResponse.FromString(body))
        else:
            self._listener.notice(json.loads(body))


def session_environment() -> dict[str, str]:
    """What the session process finds in its environment."""
    # Where this process finds meshq, the other one has to look as well.
    python_path = os.pathsep.join(path for path in sys.path if path)
    return {GRPC_EXPERIMENTS: READ_IN_PLACE, **os.environ, "PYTHONPATH": python_path}


def _start(end: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - this interpreter with a module of its own
        [sys.executable, "-m", "meshq.worker.session", str(end.fileno())],
        pass_fds=[end.fileno()],
        env=session_environment(),
        stdin=subprocess.DEVNULL,
    )
