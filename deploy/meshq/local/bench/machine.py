"""What the figures were measured on, and how much of it there was."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import re
from pathlib import Path

import psutil

from meshq.local import binaries

_SERVERS = {"PostgreSQL": "postgres", "Valkey": "valkey-server", "etcd": "etcd", "Envoy": "envoy"}


def machine() -> dict[str, str]:
    """The machine, the day, and the versions of what runs."""
    return {
        "day": f"{dt.datetime.now(dt.UTC):%Y-%m-%d}",
        "processor": f"{os.cpu_count()} cores, {_processor()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "meshq": importlib.metadata.version("meshq"),
        "Python": platform.python_version(),
        "gRPC": importlib.metadata.version("grpcio"),
        **{name: _version(binary) for name, binary in _SERVERS.items()},
    }


class HostShare:
    """What part of the machine's time its host gives to others, from now on.

    A rented machine is not alone. Figures of a minute in which the host took much say little.
    """

    def __init__(self) -> None:
        self._began = _times()

    def so_far(self) -> float:
        """The part, from 0 to 1; 0 where the system does not tell."""
        taken, passed = (now - then for now, then in zip(_times(), self._began, strict=True))
        return taken / passed if passed > 0 else 0.0


def _times() -> tuple[float, float]:
    """Seconds that the host took and seconds in all, of all cores."""
    times = psutil.cpu_times()
    return getattr(times, "steal", 0.0), sum(times)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _version(binary: str) -> str:
    found = binaries.version(binaries.find(binary))
    return ".".join(map(str, found)) if found else ""
