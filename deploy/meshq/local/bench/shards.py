"""What only the shards know: the memory that they use, and to the microsecond what they do when."""

from __future__ import annotations

import re
import socket
import threading
import uuid
from collections.abc import Iterable, Mapping
from typing import Self

from meshq.execution.ring.connection import open_connection
from meshq.execution.ring.keys import TOMBSTONES

_TIMEOUT = 5.0
_CHUNK = 1 << 20
_USED = re.compile(rb"used_memory:(\d+)")
_STEP = re.compile(
    rb'\+(\d+\.\d+) \[0 lua\] "(?:HSET|DEL)" "mq:task:((?:[^"\\]|\\.)*)"(?: .*?"state" "(\w+)")?'
)
_NAMES = {b"ready": "queued", b"leased": "leased", b"": "settled"}
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\a": "\\a", "\b": "\\b"}


async def used_memory(addresses: Iterable[str]) -> int:
    """The bytes that all of these servers use, but for tombstones: those leave by themselves."""
    return sum([await _used_by(address) for address in addresses])


async def _used_by(address: str) -> int:
    shard = await open_connection(address, "bench")
    try:
        used = _USED.search(await shard.call("INFO", "memory"))
        buckets = [
            await shard.call("MEMORY", "USAGE", key) for key in await shard.call("KEYS", f"{TOMBSTONES}*")
        ]
    finally:
        shard.close()
    assert used
    return int(used[1]) - sum(size or 0 for size in buckets)


def _connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=_TIMEOUT)


class ShardClock:
    """Notes what the shards do, while it is entered: `with ShardClock(addresses) as clock: ...`.

    The servers' MONITOR says it with their own time of day. It is read by threads that only keep it, so that
    whoever measures is not held up. Each command makes the shards slower, so nothing else is measured by it
    than one task at a time.
    """

    def __init__(self, addresses: Iterable[str]) -> None:
        self._addresses = tuple(addresses)
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._said: list[list[bytes]] = []

    def __enter__(self) -> Self:
        for address in self._addresses:
            connection = _connected(address)
            connection.sendall(b"MONITOR\r\n")
            connection.recv(len(b"+OK\r\n"))
            connection.settimeout(None)
            self._connections.append(connection)
            said: list[bytes] = []
            self._said.append(said)
            self._threads.append(threading.Thread(target=_keep, args=(connection, said), daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_TIMEOUT)
        for connection in self._connections:
            connection.close()

    def times(self) -> dict[str, dict[str, float]]:
        """When which task came by what, as `steps` tells it; once left."""
        return {name: times for said in self._said for name, times in steps(b"".join(said)).items()}


def steps(said: bytes) -> dict[str, dict[str, float]]:
    """When each task was first queued and leased, and when its lease went, by its escaped id.

    Args:
        said: What MONITOR said of one shard.
    """
    found: dict[str, dict[str, float]] = {}
    for line in said.splitlines():
        if (step := _STEP.match(line)) is not None and (point := _NAMES.get(step[3] or b"")):
            found.setdefault(step[2].decode(), {}).setdefault(point, float(step[1]))
    return found


def times_of(task_id: str, times: Mapping[str, dict[str, float]]) -> dict[str, float]:
    """The times of one task, which is known to the shards by the bytes of its id."""
    return times.get(escaped(uuid.UUID(task_id).bytes), {})


def escaped(data: bytes) -> str:
    """Bytes as MONITOR writes them."""
    return "".join(
        _ESCAPES.get(chr(byte)) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}")  # noqa: PLR2004
        for byte in data
    )


def _keep(connection: socket.socket, said: list[bytes]) -> None:
    while chunk := connection.recv(_CHUNK):
        said.append(chunk)
