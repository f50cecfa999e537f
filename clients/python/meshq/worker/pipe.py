"""The pipe between a worker's handlers and the process that keeps its session.

It carries the frames of the session protocol as they are, `ConnectRequest` one way and `ConnectResponse`
the other, and beside them notices of its own, which are JSON. Each message is a kind, a length and a body.

To the handlers the pipe is a session that never breaks: the session process reconnects, acknowledges
deliveries, keeps results until they are recorded, and translates credit. See `meshq.worker.session`.
"""

from __future__ import annotations

import contextlib
import enum
import json
import socket
import struct
import threading
from collections.abc import Mapping
from typing import Any, Final

HEADER: Final = struct.Struct(">BI")


class Kind(enum.IntEnum):
    """What a message on the pipe is."""

    FRAME = 0
    NOTICE = 1


class PipeClosed(Exception):
    """The other end is gone."""


class Pipe:
    """The handlers' end: blocking, for one reading thread and any number of writing ones."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._reader = end.makefile("rb", buffering=1 << 20)
        self._lock = threading.Lock()

    def send_frame(self, body: bytes) -> None:
        """Send an encoded frame of the session protocol.

        Raises:
            PipeClosed: The session process is gone.
        """
        self._send(Kind.FRAME, body)

    def send_notice(self, notice: Mapping[str, Any]) -> None:
        """Send a notice; raises as `send_frame` does."""
        self._send(Kind.NOTICE, json.dumps(notice).encode())

    def receive(self) -> tuple[Kind, bytes]:
        """The next message.

        Raises:
            PipeClosed: The session process is gone.
        """
        try:
            kind, length = HEADER.unpack(self._exactly(HEADER.size))
            return Kind(kind), self._exactly(length)
        except (OSError, ValueError):
            raise PipeClosed from None

    def shut(self) -> None:
        """End the traffic from any thread; the one that reads gets PipeClosed and has to `close`."""
        with contextlib.suppress(OSError):  # The other end may have been first.
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end; for the thread that reads."""
        self._reader.close()
        self._socket.close()

    def _send(self, kind: Kind, body: bytes) -> None:
        try:
            with self._lock:
                self._socket.sendall(HEADER.pack(kind, len(body)) + body)
        except OSError:
            raise PipeClosed from None

    def _exactly(self, length: int) -> bytes:
        data: bytes = self._reader.read(length)
        if len(data) < length:
            raise PipeClosed
        return data
