"""What the figures were measured on."""

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


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _version(binary: str) -> str:
    found = binaries.version(binaries.find(binary))
    return ".".join(map(str, found)) if found else ""
