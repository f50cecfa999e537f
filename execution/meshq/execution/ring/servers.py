"""Looks at a server that is no shard yet, or has been none for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from meshq.execution.ring import keys, scripts
from meshq.execution.ring.connection import Connection
from meshq.execution.ring.errors import ShardError, ShardUnavailable
from meshq.execution.ring.primary import Passwords, open_primary
from meshq.execution.ring.shard import run_script

POLICY: Final = "noeviction"
SECTIONS: Final = ("server", "replication", "memory", "stats", "keyspace")
"""What is read of INFO."""
_ANSWER_SECONDS: Final = 3.0


class Content(NamedTuple):
    """What a server holds.

    Attributes:
        keys: How many keys.
        epoch: The epoch of the shard that it is, or was; 0 when it has been none.
        closed: Whether that shard was taken out of the ring.
    """

    keys: int
    epoch: int
    closed: bool


class Servers:
    """See the module.

    Args:
        instance_id: This instance.
        passwords: Of the servers, and of who knows where they are.
    """

    def __init__(self, instance_id: str, passwords: Passwords) -> None:
        self._name = f"meshq-{instance_id}"
        self._passwords = passwords

    async def look(self, address: str) -> Content:
        """What the server at an address holds.

        Raises:
            ShardUnavailable: It does not answer, or must not be a shard.
        """
        async with self._connected(address) as connection:
            info = parse_info(await connection.call("INFO", *SECTIONS))
            judge(info, address)
            meta = parse_hash(await connection.call("HGETALL", keys.META))
            size = int(await connection.call("DBSIZE"))
        return Content(size, int(meta.get("epoch", 0)), meta.get("state") == "closed")

    async def shut(self, address: str, ring_version: int) -> None:
        """Have the server do nothing until it begins anew, in a later version of the ring than this one.

        Raises:
            ShardUnavailable: It does not answer.
        """
        async with self._connected(address) as connection:
            await run_script(connection, scripts.SHUT, ring_version)

    @asynccontextmanager
    async def _connected(self, address: str) -> AsyncIterator[Connection]:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                connection = await open_primary(address, self._name, self._passwords)
                try:
                    yield connection
                finally:
                    connection.close()
        except ShardUnavailable:
            raise
        except (ShardError, TimeoutError) as error:
            raise ShardUnavailable(f"{address}: {error or 'it does not answer'}") from error


def judge(info: dict[str, str], server: str) -> None:
    """Raise `ShardUnavailable` for a server that must not be a shard; `info` is what INFO says."""
    policy = info.get("maxmemory_policy", POLICY)
    if policy != POLICY:
        raise ShardUnavailable(f"its maxmemory-policy is {policy}, it must be {POLICY}")
    if info.get("role", "master") != "master":
        raise ShardUnavailable(f"{server} is a replica; the ring needs the primary")


def parse_info(reply: bytes | str) -> dict[str, str]:
    """The fields of INFO."""
    text = reply.decode() if isinstance(reply, bytes) else reply
    pairs = (line.partition(":") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def parse_hash(reply: dict[bytes, bytes] | list[Any]) -> dict[str, str]:
    """The fields of a hash."""
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {name.decode(): value.decode() for name, value in pairs}
