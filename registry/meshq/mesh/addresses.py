"""Addresses that others can dial."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from meshq.mesh.telemetry import logger

_log = logger(__name__)


async def reachable(address: str) -> str:
    """The address as others shall dial it, with an IP address for the host.

    xDS carries IP addresses only, so a name is looked up here; and what listens on all addresses of a
    machine is told by the one that the machine's name stands for.
    """
    host, _, port = address.rpartition(":")
    try:
        if not ipaddress.ip_address(host.strip("[]")).is_unspecified:
            return address
        host = socket.gethostname()
    except ValueError:
        pass
    found = await _look_up(host)
    if found is None:
        _log.warning("cannot find the address of this host; register one that others can dial", host=host)
        return address
    return f"[{found}]:{port}" if ":" in found else f"{found}:{port}"


async def _look_up(host: str) -> str | None:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return None
    # IPv4 first: it is what reaches most networks.
    found.sort(key=lambda item: item[0] is not socket.AF_INET)
    return str(found[0][4][0])
