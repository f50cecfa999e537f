"""Addresses of shards, as the ring has them.

`host:port` is a server. `sentinel://host:port,host:port/name` is the primary that these Sentinels know under
the name, whichever server that is at the time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from meshq.contract.errors import shown

_SCHEME: Final = "sentinel://"
_MAX_PORT: Final = 65_535
_MAX_SENTINELS: Final = 16
_HOST: Final = re.compile(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+")
_PRIMARY: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""What Sentinel takes as the name of a primary."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that listens.

    Attributes:
        host: Name or IP address; of IPv6 without brackets.
        port: TCP port.
    """

    host: str
    port: int

    def __str__(self) -> str:
        """As `host:port`, with brackets around IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Watched:
    """A primary that Sentinels watch over.

    Attributes:
        sentinels: Where they listen.
        name: What they call the primary.
    """

    sentinels: tuple[Server, ...]
    name: str

    def __str__(self) -> str:
        """As the ring has it."""
        return f"{_SCHEME}{','.join(map(str, self.sentinels))}/{self.name}"


def parse_address(text: str) -> Server | Watched:
    """Read the address of a shard.

    Raises:
        ValueError: It is none; the message says what it has to be.
    """
    if not text.startswith(_SCHEME):
        return parse_server(text)
    listed, _, name = text.removeprefix(_SCHEME).partition("/")
    if not _PRIMARY.fullmatch(name):
        raise ValueError(
            f"{shown(text)} must end with /name, the name that its Sentinels have for the primary: "
            "1 to 128 letters, digits, '.', '_' or '-'"
        )
    sentinels = tuple(parse_server(part) for part in listed.split(","))
    if len(set(sentinels)) != len(sentinels):
        raise ValueError(f"{shown(text)} must not name a Sentinel twice")
    if len(sentinels) > _MAX_SENTINELS:
        raise ValueError(f"{shown(text)} must name at most {_MAX_SENTINELS} Sentinels, not {len(sentinels)}")
    return Watched(sentinels, name)


def parse_server(text: str) -> Server:
    """Read `host:port`; raises ValueError."""
    host, _, port = text.rpartition(":")
    if not _HOST.fullmatch(host) or not (port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT):
        raise ValueError(f"{shown(text)} must be host:port with a port of 1 to {_MAX_PORT}")
    return Server(host.removeprefix("[").removesuffix("]"), int(port))
