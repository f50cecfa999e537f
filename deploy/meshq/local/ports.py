"""Ports on loopback: finding free ones, and telling whether one is taken."""

import random
import socket

LOOPBACK = "127.0.0.1"
# Below the ports that Linux and macOS give to outgoing connections: who was killed finds its port free again.
_RANGE = range(20_000, 30_000)
_TRIES = 1_000


def free_ports(count: int) -> list[int]:
    """Find as many free ports, all different.

    Nobody holds them afterwards, so whoever listens must be ready to choose again.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(_RANGE, _TRIES):
        if len(found) == count:
            break
        if is_free(port):
            found.append(port)
    return found


def free_port() -> int:
    """Find one free port."""
    return free_ports(1)[0]


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is not "taken"
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True
