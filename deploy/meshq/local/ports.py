"""Ports on loopback: finding free ones, and telling whether one is taken."""

import socket
from contextlib import ExitStack

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Find as many free ports, all different.

    All are held open until the last is found. Nobody holds them afterwards, so whoever listens must be ready
    to choose again.
    """
    with ExitStack() as held:
        return [_bound(held).getsockname()[1] for _ in range(count)]


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


def _bound(held: ExitStack) -> socket.socket:
    bound = held.enter_context(socket.socket())
    bound.bind((LOOPBACK, 0))
    return bound
